"""A private world with the agent `shop`, set up as `init` would have it."""

from collections.abc import Iterator

import pytest

from backchannel.testing import World

from .moments import Moments


@pytest.fixture
def world() -> Iterator[World]:
    with World() as found:
        found.up("shop", "analyst")
        yield found


@pytest.fixture
def shop(world: World) -> Moments:
    return Moments(world)
