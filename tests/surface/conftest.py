"""The world these tests live in is the one we give to users."""

from collections.abc import Iterator

import pytest

from backchannel.testing import World
from backchannel.testing import backchannel_world as world

from .helpers import left

__all__ = ["shared", "shared_world", "world"]
NAMES = ("analyst", "executor", "writer")


@pytest.fixture(scope="module")
def shared_world() -> Iterator[World]:
    with World() as found:
        found.up(*NAMES)
        yield found


@pytest.fixture
def shared(shared_world: World) -> World:
    """A world for tests that kill nobody: analyst, executor and writer run, and nothing waits for them."""
    shared_world.up(*NAMES)
    for name in NAMES:
        with shared_world.agent(name) as agent:
            left(agent, None)
    return shared_world
