"""Pause: a person's stop. Nothing is handed out, mail waits, nothing is lost."""

import threading

import pytest

from backchannel import TimedOut
from backchannel.testing import World

from .helpers import answering, collect, control, left, status, texts, until


def test_a_paused_agent_gets_nothing_and_its_mail_waits(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    got: list[str] = []
    waiting = threading.Thread(target=lambda: got.extend(texts(collect(executor, 3))))
    waiting.start()
    until(lambda: status(world, "executor")["receiving"], "somebody to wait")
    paused = world.cli("pause", "executor")
    assert (paused.returncode, paused.stdout) == (0, "executor  paused\n")
    receipts = [analyst.send("executor", "one"), *analyst.send_many("executor", ["two", "three"])]
    assert left(executor) == []
    assert control(world, "executor", "take", wait=0.1)["messages"] == []
    assert [receipt.refresh().stage for receipt in receipts] == ["stored"] * 3
    assert (got, status(world, "executor")["backlog"]) == ([], 3)
    assert world.cli("resume", "executor").stdout == "executor  hands out again\n"
    waiting.join()
    assert got == ["one", "two", "three"]


def test_everybody_sees_that_an_agent_is_paused(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    world.cli("pause", "executor")
    assert {agent.name: agent.paused for agent in analyst.agents()} == {"analyst": False, "executor": True}
    assert "executor  online  paused" in world.cli("agents").stdout
    world.cli("resume", "executor")
    assert not any(agent.paused for agent in analyst.agents())


def test_a_pause_outlives_the_daemon(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    world.cli("pause", "executor")
    world.kill("executor")
    analyst.send("executor", "hello")  # starts it again
    assert left(executor) == []
    world.stop("executor")
    assert left(executor) == []
    assert status(world, "executor")["paused"]
    world.cli("resume", "executor")
    world.kill("executor")
    assert texts(collect(executor, 1)) == ["hello"]


def test_what_was_handed_out_before_the_pause_may_be_settled(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    receipt = analyst.send("executor", "hello")
    stream = executor.receive(wait=5)
    delivery = next(stream)
    world.cli("pause", "executor")
    delivery.reply("done")
    assert receipt.refresh().stage == "done"
    assert texts(collect(analyst, 1)) == ["done"]


def test_a_question_to_a_paused_agent_is_answered_after_the_pause(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    world.cli("pause", "--all")
    with answering(executor, lambda delivery: delivery.reply("late")):
        with pytest.raises(TimedOut):
            analyst.ask("executor", "now?", timeout=0.2)
        assert world.cli("resume", "--all").returncode == 0
        assert texts(collect(analyst, 1)) == ["late"]


def test_pausing_nobody_is_an_error(world: World) -> None:
    world.up("executor")
    assert world.cli("pause").returncode == 2
    wrong = world.cli("pause", "executer", "executor")
    assert (wrong.returncode, wrong.stdout) == (5, "executor  paused\n")
    assert "did you mean executor?" in wrong.stderr
