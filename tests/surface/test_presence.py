"""Who is there: by locks and held connections, never by a note somebody left; and what can wake an agent."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from backchannel import Agent
from backchannel.cli.init import declaring
from backchannel.client import Adapter
from backchannel.client.records import AgentInfo
from backchannel.testing import World

from .helpers import Refusal, control, until

CLAUDE = Adapter("claude", wakes=True, mid_turn=True, evidence="turn", version="2.1.0")


def seen(world: World, name: str = "bob") -> AgentInfo:
    return next(agent for agent in world.agent("looker").agents() if agent.name == name)


def test_an_agent_is_there_for_as_long_as_it_holds_a_connection(world: World) -> None:
    world.up("bob")
    assert (seen(world).presence, seen(world).since) == ("away", None)
    begun = time.time()
    bob = world.agent("bob")
    world.agent("alice").send("bob", "hello")
    stream: Any = bob.receive(wait=5)
    delivery = next(stream)
    busy = seen(world)
    assert (busy.presence, busy.backlog) == ("working", 1)
    assert busy.oldest_unacked is not None
    assert busy.oldest_unacked >= begun - 1
    delivery.ack()
    stream.close()
    until(lambda: seen(world).presence == "away", "the connection to be let go")
    gone = seen(world)
    assert gone.since is not None
    assert gone.since >= begun
    assert (gone.online, gone.backlog, gone.oldest_unacked) == (True, 0, None)


def test_a_killed_process_is_away_at_once_whatever_it_left_behind(world: World) -> None:
    world.up("bob")
    program = "from backchannel import Agent; next(Agent('bob').receive(wait=None), None)"
    waiting = subprocess.Popen([sys.executable, "-c", program], env=world.env)
    try:
        until(lambda: seen(world).presence == "idle", "it to wait for mail")
        assert not [name for name in os.listdir(world.paths.state("bob")) if "pid" in name]
        waiting.send_signal(signal.SIGKILL)
        until(lambda: seen(world).presence == "away", "the daemon to notice")
    finally:
        waiting.kill()
        waiting.wait()


def test_a_lease_that_outlives_its_connection_does_not_say_that_anybody_is_there(world: World) -> None:
    world.up("bob")
    world.agent("alice").send("bob", "hello")
    assert control(world, "bob", "take", detached=True)["messages"]
    until(lambda: seen(world).presence == "away", "the connection to be let go")
    assert seen(world).receiving is False


def test_paused_down_and_offline_are_told_apart(world: World) -> None:
    world.up("bob", "carol", "dora")
    assert world.cli("pause", "bob").returncode == 0
    assert world.cli("down", "carol").returncode == 0
    world.stop("dora")
    lines = {line.split()[0]: line.split()[1:] for line in world.cli("agents").stdout.splitlines()}
    assert lines["bob"][:2] == ["online", "paused"]
    assert lines["carol"] == ["down"]
    assert lines["dora"] == ["offline", "away"]
    found = {a["name"]: a for a in map(json.loads, world.cli("agents", "--json").stdout.splitlines())}
    assert {name: (a["online"], a["presence"]) for name, a in found.items() if name in lines} == {
        "bob": (True, "paused"),
        "carol": (False, "down"),
        "dora": (False, "away"),
        **({"looker": (True, "away")} if "looker" in found else {}),
    }


# --- adapters ---------------------------------------------------------------------------------------------------------


def test_what_an_adapter_can_do_is_shown_while_its_connection_lives(world: World) -> None:
    world.up("bob")
    assert (seen(world).wakes, seen(world).adapters) == (None, [])
    with Agent("bob", places=world.paths, adapter=CLAUDE) as bob:
        world.agent("alice").send("bob", "hello")
        stream: Any = bob.receive(wait=5)
        next(stream).ack()
        assert seen(world).adapters == [{**CLAUDE._asdict(), "attached": True}]
        assert seen(world).wakes is True
        stream.close()
    until(lambda: not seen(world).adapters, "the connection to be let go")


def test_an_adapter_that_is_installed_and_not_attached_wakes_nobody(world: World) -> None:
    world.up("bob")
    change = declaring(world.paths, "bob", CLAUDE)
    assert change.is_needed
    change.apply()
    assert not declaring(world.paths, "bob", CLAUDE).is_needed
    assert seen(world).adapters == [{**CLAUDE._asdict(), "attached": False}]
    assert seen(world).wakes is False
    assert "claude (wakes, mid-turn, evidence turn, not attached)" in world.cli("agents").stdout
    with Agent("bob", places=world.paths, adapter=CLAUDE) as bob:
        list(bob.receive(wait=0.1))  # this connection is kept, or not: either way nothing is said twice
        assert len(seen(world).adapters) == 1


def test_a_daemon_that_restarts_is_told_again_by_whoever_takes_next(world: World) -> None:
    with Agent("bob", places=world.paths, adapter=CLAUDE) as bob:
        world.agent("alice").send("bob", "one")
        stream: Any = bob.receive(wait=20)
        next(stream).ack()
        world.stop("bob")
        world.agent("alice").send("bob", "two")
        delivery = next(stream)
        assert [adapter["attached"] for adapter in seen(world).adapters] == [True]
        delivery.ack()
        stream.close()


@pytest.mark.parametrize(
    "wrong", [{"name": "../x"}, {"name": "x", "evidence": "hope"}, {"name": "x", "version": "1" * 200}]
)
def test_a_declaration_that_means_nothing_is_refused(shared: World, wrong: dict[str, str]) -> None:
    with pytest.raises(Refusal) as refused:
        control(shared, "executor", "take", adapter=wrong)
    assert refused.value.code == "bad_params"
