"""The real Claude Code, Codex and Gemini CLI, against models of ours: mail reaches the model, and the receipt is true.

The sender is always a process that has nothing to do with the program. What is asserted is what stood in the request to
the model, and what the receipt said at that moment and later.
"""

import json
import re

import pytest

from .models import Run, Say, Seen
from .programs import Home, Running, until

pytestmark = pytest.mark.timeout(300)
every = pytest.mark.parametrize("home", ["claude", "codex", "gemini"], indirect=True)
woken = pytest.mark.parametrize("home", ["claude", "codex"], indirect=True)

ONCE = {
    "claude": ["-p", "PROMPT"],
    "codex": [
        "exec", "--skip-git-repo-check", "--dangerously-bypass-hook-trust",
        "--dangerously-bypass-approvals-and-sandbox", "PROMPT",
    ],
    "gemini": ["--yolo", "--model", "gemini-2.5-flash", "-p", "PROMPT"],
}  # fmt: skip


def once(home: Home, prompt: str) -> list[str]:
    """The words that make it answer one prompt, and end."""
    return [prompt if word == "PROMPT" else word for word in ONCE[home.program]]


def push(home: Home, text: str) -> str:
    """A message to `shop`, from a process that is the agent analyst. Returns its id."""
    sent: dict[str, str] = json.loads(home.backchannel("send", "shop", text, "--as", "analyst", "--json"))
    return sent["id"]


def stage(home: Home, message_id: str) -> str:
    receipt: dict[str, str] = json.loads(home.backchannel("status", message_id, "--to", "shop", "--json"))
    return receipt["stage"]


def id_in(seen: Seen) -> str:
    found = re.search(r"· message (m-[0-9a-f]+)\]", seen.new)
    assert found, seen.new
    return found.group(1)


def reply_to(seen: Seen, text: str) -> str:
    """The command that the message itself names."""
    found = re.search(r"`([^`]+ reply m-[0-9a-f]+) TEXT (--as \S+)`", seen.new)
    assert found, seen.new
    return f"{found.group(1)} '{text}' {found.group(2)}"


@every
def test_a_message_reaches_the_model_in_the_middle_of_its_work_and_its_answer_comes_back(home: Home) -> None:
    analyst = home.agent("analyst")
    stages = []

    def mind(seen: Seen) -> Say | Run:
        match len(home.model.turns):
            case 1:
                push(home, "use port 8080, not 3000")
                return Run("echo working")
            case 2:
                stages.append(stage(home, id_in(seen)))
                return Run(reply_to(seen, "port 8080 it is"))
        return Say("done")

    home.model.mind = mind
    program = home.start(*once(home, "start the server"))
    assert program.end() == 0, program.output
    seen = home.model.turns[1]
    assert "use port 8080, not 3000" in seen.new
    assert "message of agent analyst" in seen.new
    assert "working" in seen.new
    assert stages == ["taken"]  # it stands in the request, but the model has not answered yet
    assert stage(home, id_in(seen)) == "done"
    answer = next(iter(analyst.receive(wait=20)))
    assert (answer.sender, answer.text, answer.reply_to) == ("shop", "port 8080 it is", id_in(seen))
    answer.ack()
    assert home.log() == ""


@every
def test_what_comes_before_the_turn_ends_keeps_it_going_and_is_acked_after_it(home: Home) -> None:
    home.agent("analyst")
    stages = []

    def mind(seen: Seen) -> Say | Run:
        if len(home.model.turns) == 1:
            push(home, "one thing more")
        else:
            stages.append(stage(home, id_in(seen)))
        return Say("fine")

    home.model.mind = mind
    program = home.start(*once(home, "hello"))
    assert program.end() == 0, program.output
    assert len(home.model.turns) == 2
    assert "one thing more" in home.model.turns[1].new
    assert stages == ["taken"]
    assert stage(home, id_in(home.model.turns[1])) == "acked"
    assert home.log() == ""


@every
def test_mail_that_waits_comes_with_the_prompt(home: Home) -> None:
    home.agent("analyst")
    message_id = push(home, "before you begin")
    program = home.start(*once(home, "hello there"))
    assert program.end() == 0, program.output
    (seen,) = home.model.turns
    assert "before you begin" in seen.whole
    assert "hello there" in seen.whole
    assert "This session is the agent shop" in seen.whole
    assert stage(home, message_id) == "acked"


@every
def test_a_program_that_dies_before_its_model_answers_leaves_the_receipt_at_taken_and_the_mail_to_the_next(
    home: Home,
) -> None:
    home.agent("analyst")

    def mind(seen: Seen) -> Say | Run:
        if len(home.model.turns) == 1:
            push(home, "the disk is full")
            home.model.gate.clear()  # the next request waits there
            return Run("echo working")
        return Say("never said")

    home.model.mind = mind
    program = home.start(*once(home, "hello"))
    seen = home.model.wait_for("the disk is full")
    message_id = id_in(seen)
    program.kill()
    home.model.gate.set()
    assert stage(home, message_id) == "taken"
    home.model.mind = lambda seen: Say("fine")
    count = len(home.model.turns)
    program = home.start(*once(home, "hello again"))
    assert program.end() == 0, program.output
    again = home.model.turns[count]
    assert "the disk is full" in again.whole
    assert "Handed out before" in again.whole
    assert stage(home, message_id) == "acked"


@every
def test_where_the_agent_is_down_the_program_does_not_notice(home: Home) -> None:
    home.backchannel("down", "shop")
    program = home.start(*once(home, "hello"))
    assert program.end() == 0, program.output
    assert "fine" in program.output
    assert "shop is down" in home.log()
    assert "is down" not in program.output
    assert "is down" not in home.model.turns[0].whole


@every
def test_a_second_window_is_another_agent_and_goes_when_it_ends_empty(home: Home) -> None:
    home.agent("analyst")
    home.model.gate.clear()
    first = home.start(*once(home, "window-one"))
    home.model.wait_for("window-one")
    second = home.start(*once(home, "window-two"))
    seen = home.model.wait_for("window-two")
    assert "This session is the agent shop-2" in seen.whole
    assert "shop-2" in home.world.paths.registered()
    home.model.gate.set()
    assert first.end() == 0
    assert second.end() == 0
    until(lambda: "shop-2" not in home.world.paths.registered(), "shop-2 to be removed")
    assert home.log() == ""


# --- idle, in a terminal: the two that can be woken -------------------------------------------------------------------


def idle(home: Home) -> bool:
    """Whether a message to it would wake it now."""
    agents = [json.loads(line) for line in home.backchannel("agents", "--json").splitlines()]
    return any(agent["name"] == "shop" and agent["wakes"] for agent in agents)


def window(home: Home) -> Running:
    """An open window, idle. One of Claude Code is an agent at once, one of Codex after its first turn."""
    found = home.start(*WINDOW[home.program], tty=True)
    if home.program == "codex":
        found.until("Ask Codex to do anything")
        found.type("hello", enter=True)
    until(lambda: idle(home), "the window to wait for mail", 90)
    return found


WINDOW = {
    "claude": [],
    "codex": ["--no-daemon", "--dangerously-bypass-hook-trust", "--dangerously-bypass-approvals-and-sandbox"],
}


@woken
def test_an_idle_window_is_woken_by_each_message_and_answers(home: Home) -> None:
    analyst = home.agent("analyst")
    stages = []

    def mind(seen: Seen) -> Say | Run:
        if "message of agent analyst" not in seen.new:
            return Say("fine")
        stages.append(stage(home, id_in(seen)))
        return Run(reply_to(seen, "awake"))

    home.model.mind = mind
    found = window(home)
    for text in ("good morning", "still there?"):
        message_id = push(home, text)
        seen = home.model.wait_for(text)
        assert id_in(seen) == message_id
        answer = next(iter(analyst.receive(wait=30)))
        assert (answer.text, answer.reply_to) == ("awake", message_id)
        answer.ack()
        until(lambda: idle(home), "the window to wait again")
    assert stages == ["taken", "taken"]
    found.type("/exit", enter=True)
    assert found.end() == 0
    assert home.log() == ""


@woken
def test_an_idle_window_is_woken_and_its_turn_is_the_evidence(home: Home) -> None:
    home.agent("analyst")
    window(home)
    home.model.gate.clear()
    message_id = push(home, "no answer needed")
    home.model.wait_for("no answer needed")
    assert stage(home, message_id) == "taken"
    home.model.gate.set()
    until(lambda: stage(home, message_id) == "acked", "the end of its turn")


@woken
def test_a_window_that_dies_between_wake_and_answer_leaves_the_receipt_at_taken(home: Home) -> None:
    home.agent("analyst")
    first = window(home)
    home.model.gate.clear()
    message_id = push(home, "wake up")
    home.model.wait_for("wake up")
    first.kill()
    home.model.gate.set()
    assert stage(home, message_id) == "taken"
    window(home)  # an agent at once, which is woken by it; or it comes with the first prompt
    seen = home.model.wait_for("Handed out before")
    assert "wake up" in seen.new
    until(lambda: stage(home, message_id) == "acked", "the second window's turn")


@pytest.mark.parametrize("home", ["codex"], indirect=True)
def test_codex_asks_whether_our_hooks_are_trusted_and_doctor_knows_the_answer(home: Home) -> None:
    assert "Codex does not trust the hooks of" in home.backchannel("doctor")
    found = home.start("--no-daemon", tty=True)
    found.until("Trust all and continue")
    found.type("2", enter=True)
    until(lambda: "ok    codex shop: " in home.backchannel("doctor"), "doctor to see it")
