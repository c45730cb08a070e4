"""Accepting and rejecting is the agent's: by its settings, or by its model."""

import json
import threading

import pytest

from backchannel import Refused
from backchannel.testing import World
from gateways import Gateway
from model import Call, Model, Say, Seen


def test_who_is_not_allowed_is_rejected_with_the_reason(critic: Gateway, model: Model, world: World) -> None:
    with pytest.raises(Refused, match="critic takes no tasks from stranger"):
        world.agent("stranger").open("critic", "judge me", timeout=20)
    with pytest.raises(Refused, match="critic takes no messages from stranger"):
        world.agent("stranger").ask("critic", "judge me", timeout=20)
    assert not model.of("critic")


def test_a_busy_agent_rejects_with_a_time(writer: Gateway, model: Model, world: World) -> None:
    go_on = threading.Event()

    def slow(seen: Seen) -> Say:
        go_on.wait(30)
        return Say("done")

    model.minds["writer"] = slow
    boss = world.agent("boss2")
    sessions = [boss.open("writer", f"task {n}", timeout=20) for n in (1, 2)]
    model.wait_for(lambda s: "task 2" in s.user)
    with pytest.raises(Refused, match="busy") as refused:
        boss.open("writer", "task 3", timeout=20)
    assert refused.value.retry_after == 60.0
    go_on.set()
    for session in sessions:
        assert next(iter(session)).text == "done"
        session.close()


def test_the_model_refuses_a_task_by_tool_and_the_askers_model_reads_why(
    coder: Gateway, critic: Gateway, model: Model, chat: str
) -> None:
    model.minds["coder"] = lambda seen: (
        Call("backchannel_open", {"to": "critic", "task": "praise my poem"}) if seen.role == "user" else Say(seen.last)
    )

    def refuses(seen: Seen) -> Say | Call:
        if seen.role == "tool":
            return Say("I refused.")
        session = seen.user.split("session ")[1].split(" ")[0]
        return Call(
            "backchannel_close",
            {"session": session, "status": "rejected", "result": "I only criticise", "retry_after_s": 90},
        )

    model.minds["critic"] = refuses
    coder.say("get some praise", chat)
    answer = json.loads(coder.wait_told("I only criticise", chat))
    assert answer["code"] == "rejected"
    assert answer["retry_after_s"] == 90.0


def test_the_model_accepts_a_task_by_tool_before_it_begins(critic: Gateway, model: Model, world: World) -> None:
    working = threading.Event()

    def accepts(seen: Seen) -> Say | Call:
        session = seen.user.split("session ")[1].split(" ")[0]
        if seen.role == "user":
            return Call("backchannel_accept", {"session": session})
        working.wait(30)
        return Say("hm.")

    model.minds["critic"] = accepts
    session = world.agent("coder").open("critic", "judge this", timeout=30)  # returns while the turn still runs
    working.set()
    assert next(iter(session)).text == "hm."
    session.close()
