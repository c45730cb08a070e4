"""`backchannel audit`, of agents that run and of those that do not."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from backchannel.testing import World

from .helpers import collect


def accounts(world: World, *names: str, status: int = 0) -> dict[str, Any]:
    done = world.cli("audit", "--json", *names)
    assert (done.returncode, done.stderr) == (status, "")
    return {account["agent"]: account for account in map(json.loads, done.stdout.splitlines())}


def test_everything_is_accounted_for_agent_by_agent_and_together(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    analyst.send_many("executor", ["one", "two", "three"])
    collect(executor, 2)
    world.cli("down", "analyst")  # counted all the same, and not started for it
    found = accounts(world)
    assert list(found) == ["analyst", "executor", "@all"]
    counts = found["executor"]["messages"]
    assert (counts["total"], counts["acked"], counts["stored"]) == (3, 2, 1)
    assert found["@all"]["messages"] == counts
    assert world.cli("audit").stdout.count("adds up") == 3


def test_without_agents_json_is_an_account_of_nothing(world: World) -> None:
    assert world.cli("audit").stdout == "no agents yet: backchannel up NAME\n"
    nothing = accounts(world)["@all"]
    world.up("executor")
    assert nothing == accounts(world)["@all"]


def test_what_does_not_add_up_is_said_and_is_a_failure(world: World) -> None:
    world.up("executor")
    world.agent("analyst").send("executor", "one")
    world.cli("down", "executor")
    with sqlite3.connect(world.paths.state("executor", "mailbox.db")) as db:
        db.execute("UPDATE messages SET sender = 'mallory'")
    db.close()
    found = accounts(world, "executor", status=1)
    assert any("mallory" in sentence for sentence in found["executor"]["wrong"])
    assert found["@all"]["wrong"] == [f"executor: {sentence}" for sentence in found["executor"]["wrong"]]
    assert "DOES NOT ADD UP" in world.cli("audit", "executor").stdout


def test_a_name_that_never_had_a_mailbox_has_an_account_of_nothing(world: World) -> None:
    world.up("analyst")
    assert world.cli("audit", "nobody").returncode == 5
    assert accounts(world, "analyst")["analyst"]["messages"]["total"] == 0


def test_who_could_not_be_asked_is_not_said_to_add_up(world: World) -> None:
    world.up("analyst", "executor")
    world.stop("executor")
    Path(world.paths.state("executor", "mailbox.db")).write_bytes(b"nothing that SQLite would know" * 100)
    done = world.cli("audit")
    assert done.returncode == 1
    assert "executor" in done.stderr
    last = next(line for line in done.stdout.splitlines() if line.startswith("@all"))
    assert last.endswith("adds up, without 1 that could not be asked")
