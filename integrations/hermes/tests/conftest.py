"""Three real Hermes gateways, a model server, and a private world of agents; started once."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backchannel.testing import World
from gateways import Gateway
from model import Model, Say

SETTINGS: dict[str, dict[str, Any]] = {
    "coder": {"retry_s": 0.3, "texts_max": 8},
    "writer": {"retry_s": 0.3, "attempts": 3, "at_once": 2, "texts_max": 8},
    "critic": {"accept": "model", "allow": "coder,@user"},
}
RESTRICTED = "platform_toolsets: {backchannel: [backchannel]}\n"


@pytest.fixture(scope="session")
def hermes() -> str:
    """The hermes command. Without one these tests fail: skipped, they would prove nothing."""
    command = os.environ.get("BACKCHANNEL_TEST_HERMES") or shutil.which("hermes", path=Path(sys.executable).parent)
    assert command, "no hermes: install hermes-agent into an environment of its own, and set BACKCHANNEL_TEST_HERMES"
    return command


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    model = Model()
    yield model
    model.close()


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    """The home of the user whose profiles these are. Short, because sockets lie in it."""
    root = Path(tempfile.mkdtemp(prefix="bh-"))
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def started(hermes: str, world: World, model: Model, root: Path) -> Iterator[dict[str, Gateway]]:
    gateways = {name: Gateway(hermes, world, root, name) for name in SETTINGS}
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: make(gateways[name], model, SETTINGS[name]), gateways))
        yield gateways
    finally:
        for gateway in gateways.values():
            gateway.kill()
            if keep := os.environ.get("KEEP"):
                shutil.copytree(gateway.home / "logs", f"{keep}/{gateway.name}", dirs_exist_ok=True)


def make(gateway: Gateway, model: Model, settings: dict[str, Any]) -> None:
    gateway.make(model, RESTRICTED if gateway.name == "critic" else "")
    gateway.set_up(**settings)
    gateway.start()


@pytest.fixture
def agents(started: dict[str, Gateway], model: Model) -> Iterator[dict[str, Gateway]]:
    """The three, running, with minds that have not been made up."""
    model.forget()
    for name in started:
        model.minds[name] = lambda seen: Say(f"(nothing was planned for: {seen.last})")
    for gateway in started.values():
        if not gateway.is_running:
            gateway.launch()
            gateway.wait_ready()
    yield started
    model.wait_quiet()


@pytest.fixture
def coder(agents: dict[str, Gateway]) -> Gateway:
    return agents["coder"]


@pytest.fixture
def writer(agents: dict[str, Gateway]) -> Gateway:
    return agents["writer"]


@pytest.fixture
def critic(agents: dict[str, Gateway]) -> Gateway:
    return agents["critic"]


@pytest.fixture
def chat(request: pytest.FixtureRequest) -> str:
    """A human of this test's own, so that no history is shared."""
    return str(request.node.name).removeprefix("test_")[:40]
