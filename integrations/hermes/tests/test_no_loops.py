"""Two polite agents stop: by themselves where nothing is owed, by the cap where they mean to go on."""

import json
import re
from functools import partial

from backchannel.testing import World
from gateways import Gateway, until
from model import Call, Mind, Model, Say, Seen

TEXTS_MAX = 8  # as in conftest
HOPS_MAX = 16


def test_two_agents_told_to_thank_each_other_for_ever_stop_within_the_cap_and_both_are_told(
    coder: Gateway, writer: Gateway, model: Model, world: World, chat: str
) -> None:
    def thanks_for_ever(seen: Seen) -> Say | Call:
        session = re.search(r"session (s-[0-9a-f]{32})", seen.user)
        if seen.role == "tool":
            return Say("I said thank you.")
        if session is None:
            return Call("backchannel_open", {"to": "writer", "task": "let us thank each other"})
        return Call("backchannel_send", {"session": session[1], "text": "thank you!"})

    model.minds |= {"coder": thanks_for_ever, "writer": lambda seen: Say("no, thank YOU!")}
    coder.say("be polite", chat)
    for name in ("coder", "writer"):
        told = model.wait_for(partial(is_told, name), 60)
        assert "max_messages" in told.user
    model.wait_quiet(1.0)
    said = model.count("thank you!", "writer") + model.count("no, thank YOU!", "coder")
    assert said <= TEXTS_MAX
    # The one more "thank you" that the coder tried was refused, and its model read why.
    tools = [s.last for s in model.of("coder") if s.role == "tool"]
    assert "session_state" in tools[-1]


def test_thanking_by_messages_ends_at_the_hops_and_both_are_told(
    coder: Gateway, writer: Gateway, model: Model, world: World, chat: str
) -> None:
    def thanks(other: str) -> Mind:
        def mind(seen: Seen) -> Say | Call:
            if seen.role == "tool":
                return Say("NO_REPLY")
            return Call("backchannel_send", {"to": other, "text": "merci!"})

        return mind

    model.minds |= {"coder": thanks("writer"), "writer": thanks("coder")}
    coder.say("be polite again", chat)
    model.wait_for(lambda s: s.role == "tool" and '"loop"' in s.last, 60)
    model.wait_quiet(1.0)
    assert model.count("merci!") == HOPS_MAX + 1
    refused = [s for s in model.seen if "that is a loop" in s.last]
    assert {s.agent for s in refused} == {"coder", "writer"}
    # Who was told could not begin again from there.
    assert any('"notice"' in s.last for s in model.seen)


def test_no_reply_sends_nothing_and_the_message_is_acked(writer: Gateway, model: Model, world: World) -> None:
    world.up("informer")
    model.minds["writer"] = lambda seen: Say("NO_REPLY")
    sent = json.loads(world.cli("send", "writer", "for your information", "--json", agent="informer").stdout)
    until(lambda: status(world, sent["id"])["stage"] == "acked", 20)
    assert status(world, sent["id"])["evidence"] == "turn"
    assert world.cli("peek", agent="informer").stdout == ""


def is_told(name: str, seen: Seen) -> bool:
    return seen.agent == name and "session ended with agent" in seen.user


def status(world: World, message_id: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(world.cli("status", message_id, "--json").stdout)
    return found
