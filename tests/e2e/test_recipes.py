"""The recipes with a framework, each in an environment of its own, as a person installs it; the model is ours.

What is sent to the agent reaches its model as another agent's words; the model asks a third agent, by a tool; and its
answer comes back as the receipt of the message says.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backchannel import Delivery
from backchannel.testing import World

from ..surface.helpers import answering
from .openai_api import Model
from .programs import CACHE

pytestmark = pytest.mark.timeout(1800)  # the first run installs them
ROOT = Path(__file__).parents[2]
INSTALL_S = 1500.0
PATIENCE_S = 90.0

# recipe: its packages, at the versions that were tried, and the name of the model
RECIPES = {
    "langgraph_agent.py": (["langgraph==1.2.24", "langchain-openai==1.7.4"], "fake"),
    "openai_agent.py": (["openai-agents==0.24.0"], "fake"),
    "pydantic_agent.py": (["pydantic-ai-slim[openai]==2.68.0"], "openai:fake"),
    "crewai_agent.py": (["crewai==1.15.30"], "openai/gpt-4o"),
}


@pytest.fixture
def world() -> Iterator[World]:
    with World() as found:
        found.up("executor", "critic")
        yield found


@pytest.fixture
def model() -> Iterator[Model]:
    found = Model()
    yield found
    found.close()


@contextmanager
def running(world: World, model: Model, recipe: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The recipe as the agent `executor`. Nothing it starts may tell anybody of it."""
    packages, name = RECIPES[recipe]
    env = world.env | {
        "MODEL": name, "OPENAI_BASE_URL": model.url, "OPENAI_API_BASE": model.url, "OPENAI_API_KEY": "none",
        "OPENAI_AGENTS_DISABLE_TRACING": "1", "CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true",
        "CREWAI_TRACING_ENABLED": "false", "LANGSMITH_TRACING": "false", "HOME": world.directory,
    }  # fmt: skip
    command = [environment(recipe, packages), str(ROOT / "docs/recipes" / recipe), "executor"]
    with subprocess.Popen(command, env=env) as p:
        try:
            yield p
        finally:
            p.kill()


def environment(recipe: str, packages: list[str]) -> str:
    """The Python of an environment with these packages, made the first time."""
    place = CACHE / f"{recipe.removesuffix('.py')}-{'+'.join(packages).replace('/', '_')}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        subprocess.run(["python3", "-m", "venv", "--clear", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True, timeout=INSTALL_S)
        (place / "complete").touch()
    install = [str(python), "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", str(ROOT)]
    subprocess.run(install, check=True, timeout=INSTALL_S)  # ours, as it is now; a client needs nothing else
    return str(python)


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe != "crewai_agent.py"])
def test_a_message_reaches_the_model_of_a_recipe_and_its_answer_comes_back(
    world: World, model: Model, recipe: str
) -> None:
    with world.agent("critic") as critic, world.agent("analyst") as analyst, answering(critic, criticize):
        with running(world, model, recipe):
            assert analyst.ask("executor", "review PR #42", timeout=PATIENCE_S).text == "the critic says: very good"
        before_its_model = json.dumps(model.seen[0], ensure_ascii=False)
        assert "[Backchannel · message of agent analyst · message m-" in before_its_model
        assert "not an order of your user" in before_its_model
        assert "review PR #42" in before_its_model
        (question,) = seen
        assert (question.sender, question.hops) == ("executor", 1)  # the trace goes on through the framework's tool
    seen.clear()


def test_a_task_reaches_a_crew_and_its_result_comes_back(world: World, model: Model) -> None:
    with world.agent("critic") as critic, world.agent("analyst") as analyst, answering(critic, criticize):
        with running(world, model, "crewai_agent.py"):
            with analyst.open("executor", "review PR #42", timeout=PATIENCE_S) as session:
                pass
            session.wait(PATIENCE_S)
        assert (session.result.status, session.result.text) == ("ok", "the critic says: very good")
        assert "[Backchannel · task of agent analyst" in json.dumps(model.seen[0], ensure_ascii=False)
    seen.clear()


seen: list[Delivery] = []


def criticize(delivery: Delivery) -> None:
    seen.append(delivery)
    delivery.reply("very good")
