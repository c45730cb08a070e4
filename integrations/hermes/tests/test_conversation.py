"""A human asks one agent, that one asks others, and the answers come back to the human: with three real gateways."""

import json
import re
from functools import partial

from backchannel.testing import World
from gateways import Gateway, until
from model import Call, Model, Say, Seen


def test_the_answers_of_two_agents_come_into_the_chat_of_the_human(
    coder: Gateway, writer: Gateway, critic: Gateway, model: Model, chat: str
) -> None:
    def asks_both(seen: Seen) -> Say | Call:
        if seen.user.startswith("[Backchannel"):
            return Say("heard: " + seen.user.splitlines()[1])
        called = sum(m["role"] == "tool" for m in seen.messages)
        if called < 2:
            return Call(
                "backchannel_open", {"to": ("writer", "critic")[called], "task": "a title for the sunrise song"}
            )
        return Say("I have asked both.")

    model.minds |= {
        "coder": asks_both,
        "writer": lambda seen: Say("title: Dawn"),
        "critic": lambda seen: Say("no title before the song"),
    }
    coder.say("we need a title", chat)
    coder.wait_told("heard: title: Dawn", chat)
    coder.wait_told("heard: no title before the song", chat)
    assert "I have asked both." in coder.desk(chat)
    # What reached the writer's model: who asks, and the task.
    asked = model.wait_for(lambda s: s.agent == "writer")
    assert re.match(r"\[Backchannel · task of agent coder · session s-[0-9a-f]{32} · offer\]\n", asked.user)
    assert "a title for the sunrise song" in asked.user
    assert "ANOTHER AI AGENT" in asked.system
    # What reached the coder's model: in the human's chat, with all that was said there before.
    answer = model.wait_for(lambda s: s.agent == "coder" and "title: Dawn" in s.user)
    assert answer.user.startswith("[Backchannel · text of agent writer · session s-")
    assert any("we need a title" in str(m["content"]) for m in answer.messages)


def test_a_waiting_tool_gets_the_answer_and_it_is_acked_when_the_turn_ended(
    coder: Gateway, writer: Gateway, model: Model, world: World, chat: str
) -> None:
    model.minds["coder"] = lambda seen: (
        Call("backchannel_ask", {"to": "writer", "question": "8080 or 3000?"})
        if seen.role == "user"
        else Say("writer says " + json.loads(seen.last)["answer"])
    )
    model.minds["writer"] = lambda seen: Say("8080")
    coder.say("which port?", chat)
    coder.wait_told("writer says 8080", chat)
    until(lambda: world.cli("peek", agent="coder").stdout == "", 5)
    assert model.count("8080 or 3000?", "writer") == 1
    (answer,) = [m for m in logged(world, "coder") if m["text"] == "8080"]
    assert answer["stage"] == "acked"


def test_a_message_wakes_an_idle_agent_and_its_answer_wakes_the_chat_that_sent_it(
    coder: Gateway, writer: Gateway, model: Model, chat: str
) -> None:
    def sends(seen: Seen) -> Say | Call:
        if seen.user.startswith("[Backchannel"):
            return Say("writer reports: " + seen.user.splitlines()[1])
        return Call("backchannel_send", {"to": "writer", "text": "draft it"}) if seen.role == "user" else Say("sent")

    model.minds |= {"coder": sends, "writer": lambda seen: Say("drafted in /etc/hostname")}
    coder.say("let writer draft", chat)
    coder.wait_told("writer reports: drafted in /etc/hostname", chat)
    model.wait_quiet()
    # The answer owes no answer: the writer's model was asked once.
    assert len(model.of("writer")) == 1


def test_a_session_has_a_history_of_its_own_and_goes_on(
    coder: Gateway, writer: Gateway, model: Model, world: World, chat: str
) -> None:
    def talks(seen: Seen) -> Say | Call:
        session = re.search(r"session (s-[0-9a-f]{32})", seen.user)
        if session is None:
            open_it = Call("backchannel_open", {"to": "writer", "task": "count: one"})
            return open_it if seen.role == "user" else Say("opened")
        if seen.role == "tool":
            return Say("told writer: " + seen.last)
        if "you said one and two" not in seen.user:
            return Call("backchannel_send", {"session": session[1], "text": "count: two"})
        return Call("backchannel_close", {"session": session[1]})

    def counts(seen: Seen) -> Say:
        said = [word for word in ("one", "two") if any(f"count: {word}" in str(m["content"]) for m in seen.messages)]
        return Say("you said " + " and ".join(said))

    model.minds |= {"coder": talks, "writer": counts}
    coder.say("count with writer", chat)
    heard = model.wait_for(lambda s: s.agent == "coder" and "you said one and two" in s.user)
    session = re.search(r"session (s-[0-9a-f]{32})", heard.user)
    assert session is not None
    for agent in ("writer", "coder"):
        until(partial(is_finished, world, agent, session[1]), 10)
    for mail in ("offer", "1"):  # acknowledged because their turns had ended, with what those said
        receipt = json.loads(world.cli("status", f"{session[1]}/{mail}", "--to", "writer", "--json").stdout)
        assert (receipt["stage"], receipt["evidence"]) == ("acked", "turn")


def test_a_person_asks_an_agent_from_the_shell(writer: Gateway, model: Model, world: World) -> None:
    model.minds["writer"] = lambda seen: Say("the answer is 42")
    asked = world.cli("ask", "writer", "what is it?", "--timeout", "30")
    assert (asked.returncode, asked.stdout) == (0, "the answer is 42\n")
    question = model.wait_for(lambda s: "what is it?" in s.user)
    assert question.user.startswith("[Backchannel · message of @user · message m-")


def test_the_tools_list_agents_and_sessions(coder: Gateway, model: Model, chat: str) -> None:
    def looks(seen: Seen) -> Say | Call:
        called = sum(m["role"] == "tool" for m in seen.messages)
        if called < 2:
            return Call(("backchannel_agents", "backchannel_inbox")[called], {})
        return Say("looked")

    model.minds["coder"] = looks
    coder.say("who is there?", chat)
    coder.wait_told("looked", chat)
    tools = [json.loads(m["content"]) for m in model.of("coder")[-1].messages if m["role"] == "tool"]
    assert {agent["name"] for agent in tools[0]["agents"]} >= {"writer", "critic"}
    assert tools[1]["you"] == "coder"


def is_finished(world: World, agent: str, session: str) -> bool:
    record = json.loads(world.cli("sessions", session, "--json", agent=agent).stdout)
    return bool(record["cause"] == "finished")


def logged(world: World, agent: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in world.cli("log", "--json", "--text", agent=agent).stdout.splitlines()]
