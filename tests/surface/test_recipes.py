"""The recipes that need no framework, as a person starts them: an agent that answers, and dies without losing anything.

Those with a framework run in `tests/e2e/test_recipes.py`.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backchannel import Refused
from backchannel.testing import World, command

from .helpers import until

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
COMMANDS = {
    "service.sh": [str(RECIPES / "service.sh"), "tr", "a-z", "A-Z"],
    "asyncio_service.py": [sys.executable, str(RECIPES / "asyncio_service.py"), "executor"],
    "service.mjs": ["node", str(RECIPES / "service.mjs"), "executor"],
}
NEEDS = {"service.sh": "jq", "service.mjs": "node"}


@contextmanager
def running(world: World, recipe: str, *works: str) -> Iterator["subprocess.Popen[bytes]"]:
    if recipe in NEEDS and shutil.which(NEEDS[recipe]) is None:
        pytest.skip(f"{NEEDS[recipe]} is not installed")
    env = world.env_of("executor")
    env["PATH"] = f"{os.path.dirname(command())}:{env['PATH']}"
    words = [COMMANDS[recipe][0], *works] if works else COMMANDS[recipe]
    with subprocess.Popen(words, env=env, start_new_session=True) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("recipe", COMMANDS)
def test_the_agent_of_a_recipe_answers(world: World, recipe: str) -> None:
    world.up("executor")
    with running(world, recipe), world.agent("analyst") as analyst:
        for text in ("hello", "two\nlines"):
            assert analyst.ask("executor", text, timeout=30).text.strip() == text.upper()


ODD = "case $(cat) in hello) echo hello;; silent) false;; *) printf %s --usage; false;; esac"


def test_the_recipe_in_bash_goes_on_after_an_offer_and_a_command_that_fails(world: World) -> None:
    world.up("executor")
    with world.agent("analyst") as analyst:
        assert world.cli("open", "executor", "a task", "--wait", "0", agent="analyst").returncode == 0
        with running(world, "service.sh", "sh", "-c", ODD):
            with pytest.raises(Refused, match="failed without a word"):
                analyst.ask("executor", "silent", timeout=30)
            with pytest.raises(Refused, match="--usage"):
                analyst.ask("executor", "noisy", timeout=30)
            receipt = analyst.send("executor", "hello", key="--id")
            assert receipt.wait("done", timeout=30).stage == "done"
            assert analyst.ask("executor", "hello", timeout=30).text.strip() == "hello"


def test_what_a_recipe_was_working_on_when_it_died_is_answered_by_the_next(world: World) -> None:
    world.up("executor")
    with world.agent("analyst") as analyst:
        receipts = [analyst.send("executor", f"{number}") for number in range(50)]
        with running(world, "asyncio_service.py"):
            receipts[0].wait("taken", 30)
        with running(world, "asyncio_service.py"):
            until(lambda: all(receipt.refresh().stage == "done" for receipt in receipts), timeout=30)


def test_every_recipe_is_listed_and_run_somewhere() -> None:
    listed = (RECIPES.parent / "recipes.md").read_text()
    framework = (RECIPES.parents[1] / "tests" / "e2e" / "test_recipes.py").read_text()
    for recipe in RECIPES.iterdir():
        if recipe.suffix in (".py", ".sh", ".mjs"):
            assert f"recipes/{recipe.name}" in listed
            assert recipe.name in COMMANDS or recipe.name in framework
            lines = [line for line in recipe.read_text().splitlines() if line.strip()]
            assert len(lines) <= 32, "a recipe is about twenty lines, and some words"
