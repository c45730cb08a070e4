"""These tests start programs that npm has: only `nox -s e2e` asks for them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .models import Model
from .programs import Home


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("BACKCHANNEL_E2E"):
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="downloads much from npm and PyPI: run `nox -s e2e`"))


@pytest.fixture
def model() -> Iterator[Model]:
    found = Model()
    yield found
    found.close()


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path, model: Model) -> Iterator[Home]:
    """A home of the program that the test is about, with Backchannel set up in its project `shop`."""
    found = Home(request.param, tmp_path, model)
    try:
        found.init()
        yield found
    finally:
        found.close()
