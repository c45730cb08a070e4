"""Gateways that end in the middle of a turn: what was not answered is done once more, and nothing is answered twice."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from backchannel import Session
from backchannel.testing import World
from gateways import Gateway, until
from model import Call, Fail, Mind, Model, Say, Seen


class Gate:
    """A mind that stops at a text until the test lets it go on; told to stop, it stops once only."""

    def __init__(self, at: str, mind: Mind) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self._at = at
        self._mind = mind

    def __call__(self, seen: Seen) -> Say | Call | Fail:
        if self._at in seen.user and not self.reached.is_set():
            self.reached.set()
            self.go_on.wait(60)
        return self._mind(seen)


def asks_writer(task: str) -> Callable[[Seen], Say | Call]:
    def mind(seen: Seen) -> Say | Call:
        if "[Backchannel" in seen.user:
            return Say("heard: " + seen.user[seen.user.index("[Backchannel") :].splitlines()[1])
        if "The previous turn was interrupted" in seen.user:  # Hermes takes up the human's own chat by itself
            return Say("I am back.")
        return Call("backchannel_open", {"to": "writer", "task": task}) if seen.role == "user" else Say("asked")

    return mind


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_all_three_end_in_the_middle_and_the_answer_comes_once(
    agents: dict[str, Gateway], model: Model, world: World, chat: str, how: str
) -> None:
    coder, task = agents["coder"], f"a long poem ({how})"
    gate = Gate(task, lambda seen: Say(f"poem ({how})"))
    model.minds |= {"coder": asks_writer(task), "writer": gate}
    coder.say("a poem, please", chat)
    assert gate.reached.wait(30)
    until(lambda: "asked" in coder.desk(chat), 20)
    for gateway in agents.values():
        getattr(gateway, how)()
    gate.go_on.set()
    for gateway in agents.values():
        gateway.launch()
    for gateway in agents.values():
        gateway.wait_ready()
    coder.wait_told(f"heard: poem ({how})", chat)
    model.wait_quiet(1.0)
    assert sum(f"heard: poem ({how})" in told for told in coder.desk(chat)) == 1
    # The writer's model was given the task twice, the second time with the word that it is so.
    first, second = [s for s in model.of("writer") if task in s.user]
    assert "Handed out again" not in first.user
    assert "Handed out again" in second.user
    # And the coder heard one text: no error, no notice of the shutdown, nothing "recovered".
    texts = [m for m in logged(world, "coder") if m["kind"] == "data" and how in m["text"]]
    assert [m["text"] for m in texts] == [f"poem ({how})"]


def test_a_gateway_that_dies_between_wake_and_turn_leaves_the_message_taken_and_the_next_does_it_once(
    writer: Gateway, model: Model, world: World
) -> None:
    model.minds["writer"] = lambda seen: Say("done once")
    mark = Path(writer.home / "die-before-turn")
    mark.touch()
    sent = json.loads(world.cli("send", "writer", "write one line", "--json").stdout)
    writer.wait_dead()
    mark.unlink()
    assert not model.of("writer")
    # Nobody has acknowledged it: it is with the agent, as far as anybody knows, and then in its mailbox again.
    assert receipt(world, sent["id"])["stage"] in ("taken", "stored")
    assert receipt(world, sent["id"])["delivery"] == 1
    writer.start()
    until(lambda: receipt(world, sent["id"])["stage"] == "done", 30)
    model.wait_quiet()
    assert [s.user for s in model.of("writer") if "write one line" in s.user] == [model.of("writer")[-1].user]
    assert receipt(world, sent["id"])["delivery"] == 2


def test_while_a_turn_runs_its_text_is_taken_and_the_next_of_the_session_waits_in_the_daemon(
    writer: Gateway, model: Model, world: World
) -> None:
    gate = Gate("second", lambda seen: Say("answer to " + seen.user.splitlines()[1]))
    model.minds["writer"] = gate
    with world.agent("boss").open("writer", "first", timeout=20) as session:
        assert heard(session) == "answer to first"
        second, third = session.send("second"), session.send("third")
        assert gate.reached.wait(20)
        until(lambda: stages(world, "writer").get(f"{session.id}/2") == "stored", 5)
        assert stages(world, "writer")[f"{session.id}/1"] == "taken"
        gate.go_on.set()
        assert (heard(session), heard(session)) == ("answer to second", "answer to third")
        second.wait("acked", timeout=10)
        third.wait("acked", timeout=10)
    assert {m["id"]: m["stage"] for m in logged(world, "writer")}[f"{session.id}/offer"] == "acked"


def test_a_failing_provider_says_nothing_to_the_peer_and_the_work_is_done_when_it_is_back(
    coder: Gateway, writer: Gateway, model: Model, world: World, chat: str
) -> None:
    failures = iter([Fail(500)] * 2)

    model.minds |= {"coder": asks_writer("a haiku"), "writer": lambda seen: next(failures, Say("five seven five"))}
    coder.say("a haiku, please", chat)
    coder.wait_told("heard: five seven five", chat)
    texts = [m["text"] for m in logged(world, "coder") if m["kind"] == "data"]
    assert not any("provider" in text or "⚠️" in text for text in texts)


def test_a_provider_that_stays_down_fails_the_task_and_the_asker_is_told_why(
    coder: Gateway, writer: Gateway, model: Model, chat: str
) -> None:
    model.minds |= {"coder": asks_writer("a limerick"), "writer": lambda seen: Fail(500)}
    coder.say("a limerick, please", chat)
    told = model.wait_for(lambda s: s.agent == "coder" and "[Backchannel · failed of agent writer" in s.user, 60)
    assert "provider" in told.user


def heard(session: Session) -> str:
    delivery = next(session.receive(wait=20))
    delivery.ack()
    return delivery.text


def logged(world: World, agent: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in world.cli("log", "--json", "--text", agent=agent).stdout.splitlines()]


def stages(world: World, agent: str) -> dict[str, str]:
    found = [json.loads(line) for line in world.cli("peek", "--json", agent=agent).stdout.splitlines()]
    return {message["id"]: message["stage"] for message in found}


def receipt(world: World, message_id: str) -> dict[str, str | int]:
    found: dict[str, str | int] = json.loads(world.cli("status", message_id, "--json").stdout)
    return found
