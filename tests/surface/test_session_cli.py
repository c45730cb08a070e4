"""Sessions from the shell: one command at a time, each a process of its own; and a person who joins line by line."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from backchannel.testing import World, command

from .helpers import PATIENCE_S, established, heard, kill, offer, opening, reached, until

NEVER = "s-" + "0" * 32


class Shell:
    """Commands typed by one agent."""

    def __init__(self, world: World, agent: str) -> None:
        self._world = world
        self._agent = agent

    def run(self, *words: str, code: int = 0, input: str | None = None) -> str:
        """What the command printed; on stderr if it is to fail."""
        done = self._world.cli(*words, agent=self._agent, input=input)
        assert done.returncode == code, (words, done)
        return done.stderr if code else done.stdout

    def json(self, *words: str, input: str | None = None) -> Any:
        return json.loads(self.run(*words, "--json", input=input))

    @contextmanager
    def started(self, *words: str, **how: Any) -> Iterator["subprocess.Popen[str]"]:
        with subprocess.Popen(
            [command(), *words],
            env=self._world.env_of(self._agent),
            stdin=how.get("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def analyst(shared: World) -> Shell:
    return Shell(shared, "analyst")


@pytest.fixture
def executor(shared: World) -> Shell:
    return Shell(shared, "executor")


def test_a_session_from_one_shell_to_another(analyst: Shell, executor: Shell) -> None:
    with analyst.started("open", "executor", "review PR #42", "--wait", "20") as opening:
        offered = executor.json("recv", "--wait", "20")
        assert (offered["kind"], offered["text"], offered["from"]) == ("offer", "review PR #42", "analyst")
        session = offered["session"]
        assert executor.run("accept", session) == f"ESTABLISHED  analyst  {session}\n"
        assert (opening.communicate(timeout=20), opening.returncode) == ((f"{session}\n", ""), 0)
    assert analyst.run("say", session, "the auth module") == f"queued  executor  {session}/1\n"
    assert analyst.run("say", session, "-", input="and the tests").startswith("queued")
    assert executor.run("recv", "--session", session, "--wait", "20", "--max", "1").splitlines()[1] == "the auth module"
    assert executor.json("recv", "--session", session, "--wait", "20")["text"] == "and the tests"
    assert executor.run("progress", session, "3 of 7 files").startswith("ESTABLISHED")
    assert executor.json("say", session, "line 7 is wrong")["stage"] == "queued"
    assert executor.run("close", session, "--result", "-", input="one finding").startswith("FIN-WAIT-1")
    found = analyst.run("recv", "--session", session, "--wait", "20")
    assert "line 7 is wrong" in found
    found += analyst.run("recv", "--session", session, "--wait", "20") if "finished" not in found else ""
    assert re.search(rf"{session}/2  finished \(ok\)\none finding\n  -> backchannel close {session}", found)
    assert analyst.json("close", session)["state"] in ("LAST-ACK", "CLOSED")
    executor.run("recv", "--session", session, "--wait", "20")
    until(lambda: analyst.json("sessions", session)["state"] == "CLOSED", "the end")
    record = executor.json("sessions", session)
    assert (record["cause"], record["task_state"], record["status"], record["result"]) == (
        "finished", "completed", "ok", "one finding"
    )  # fmt: skip
    assert {"id", "peer", "role", "state", "task_state", "task", "status", "result"} <= set(record)
    assert analyst.run("recv") == executor.run("recv") == ""


def test_a_refusal_is_printed_with_its_reason_and_time(analyst: Shell, executor: Shell) -> None:
    for options in ([], ["--json"]):
        with analyst.started("open", "executor", "review", "--wait", "20", *options) as opening:
            session = executor.json("recv", "--wait", "20")["session"]
            rejected = executor.run("reject", session, "--reason", "busy", "--retry-after", "60")
            assert rejected == f"CLOSED  analyst  {session}  (rejected: busy)\n"
            printed, complained = opening.communicate(timeout=20)
            assert (printed, opening.returncode) == ("", 3)
            if options:
                assert json.loads(complained)["retry_after"] == 60
            else:
                assert complained == "backchannel: executor rejected the task (busy): ask again in 60 s\n"


def test_an_offer_that_nobody_accepts_is_withdrawn_in_time(analyst: Shell, executor: Shell) -> None:
    assert "did not accept within 0.1 s" in analyst.run("open", "executor", "review", "--wait", "0.1", code=4)
    until(lambda: "SYN-RECEIVED" not in executor.run("sessions", "--open"), "the RST")
    record = json.loads(executor.run("sessions", "--json").splitlines()[0])
    assert (record["state"], record["task"]) == ("CLOSED", "review")
    assert "CLOSED" in executor.run("accept", record["id"], code=3)


def test_an_interrupted_open_takes_its_offer_back(analyst: Shell, shared: World) -> None:
    executor = shared.agent("executor")
    with analyst.started("open", "executor", "review", "--wait", "60") as opening:
        offer(executor)
        os.kill(opening.pid, signal.SIGINT)
        assert opening.wait(20) == 130
    until(lambda: not executor.sessions("SYN-RECEIVED"), "the offer to be gone")


def test_an_open_that_does_not_wait_leaves_the_notice_for_recv(analyst: Shell, executor: Shell) -> None:
    session = analyst.run("open", "executor", "-", "--wait", "0", "--max-messages", "9", input="look at it").strip()
    assert re.fullmatch(r"s-[0-9a-f]{32}", session)
    offered = executor.run("recv", "--wait", "20")
    assert re.fullmatch(
        rf"analyst  [\d:]+  {session}/offer  offer\nlook at it\n  -> backchannel accept {session}, or .*\n", offered
    )
    assert executor.json("accept", session)["max_messages"] == 9
    accepted = analyst.run("recv", "--wait", "20")
    assert re.fullmatch(
        rf"executor  [\d:]+  {session}/accepted  accepted\n  -> backchannel say {session} TEXT\n", accepted
    )
    assert analyst.run("abort", session, "--reason", "never mind") == (
        f"CLOSED  executor  {session}  (aborted: never mind)\n"
    )
    reset = executor.run("recv", "--wait", "20")
    assert f"{session}/reset  reset (reset)\nnever mind\n  -> backchannel trace {session}\n" in reset


def test_a_failed_task_is_seen_as_failed(analyst: Shell, shared: World) -> None:
    ours, theirs = established(shared.agent("analyst"), shared.agent("executor"))
    del ours
    theirs.close("out of disk", "failed")
    until(lambda: analyst.json("sessions", theirs.id)["task_state"] == "failed", "the FIN")
    notice = analyst.run("recv", "--wait", "20")
    assert f"{theirs.id}/1  finished (failed)\nout of disk\n" in notice
    assert analyst.run("close", theirs.id, "--failed", "--result", "too bad").startswith("LAST-ACK")
    list(theirs)
    assert theirs.result == ("failed", "too bad")


def test_what_has_ended_says_so_and_what_to_do(analyst: Shell, shared: World) -> None:
    ours, theirs = established(shared.agent("analyst"), shared.agent("executor"))
    ours.close("done")
    for words in (["say", ours.id, "more"], ["close", ours.id, "--result", "other"]):
        complaint = analyst.run(*words, code=3)
        assert ours.id in complaint
        assert "FIN-WAIT" in complaint
    theirs.abort("enough")
    reached(ours, "CLOSED")
    for words in (["say", ours.id, "more"], ["close", ours.id], ["progress", ours.id], ["accept", ours.id]):
        assert "CLOSED" in analyst.run(*words, code=3)
    list(shared.agent("analyst").receive(kinds=None))


@pytest.mark.parametrize("words", [["say", NEVER, "x"], ["accept", NEVER], ["close", NEVER], ["trace", NEVER],
                                   ["abort", NEVER, "--reason", "x"], ["progress", NEVER], ["sessions", NEVER],
                                   ["reject", NEVER, "--reason", "x"]], ids=lambda words: words[0])  # fmt: skip
def test_an_id_that_never_was_exits_with_five(analyst: Shell, words: list[str]) -> None:
    assert NEVER in analyst.run(*words, code=5)
    assert json.loads(analyst.run(*words, "--json", code=5))["code"] == "no_such_session"


def test_what_cannot_be_meant_says_so(analyst: Shell, shared: World) -> None:
    assert "there is no session m-1" in analyst.run("say", "m-1", "x", code=5)
    assert "did you mean executor?" in analyst.run("open", "executer", "x", code=5)
    assert "--retry-after" in analyst.run("reject", "m-1", "--reason", "x", "--retry-after", "5", code=2)
    assert "--open is for the list" in analyst.run("sessions", NEVER, "--open", code=2)
    nobody = shared.cli("chat", "executor")
    assert (nobody.returncode, "needs an agent's name" in nobody.stderr) == (2, True)


def test_a_third_agent_cannot_speak_in_somebody_elses_session(shared: World) -> None:
    ours, theirs = established(shared.agent("analyst"), shared.agent("executor"))
    writer = Shell(shared, "writer")
    for words in (["say", ours.id, "psst"], ["abort", ours.id, "--reason", "mine"], ["close", ours.id]):
        assert ours.id in writer.run(*words, code=5)
    ours.send("still here")
    assert heard(theirs, 1) == ["still here"]
    ours.abort("enough")


# --- looking ----------------------------------------------------------------------------------------------------------


def test_the_list_is_aligned_and_shows_both_words(analyst: Shell, shared: World) -> None:
    ours, _ = established(shared.agent("analyst"), shared.agent("executor"), "first line\nsecond line")
    with opening(shared.agent("writer"), "analyst", "x" * 100) as opened:
        request = offer(shared.agent("analyst"))
        lines = analyst.run("sessions", "--open").splitlines()
        request.reject("no")
        assert opened.exception(20)
    assert f"{ours.id}  -> executor  ESTABLISHED   working    first line..." in lines
    assert f"{request.id}  <- writer    SYN-RECEIVED  submitted  {'x' * 37}..." in lines
    shown = analyst.run("sessions", ours.id)
    assert re.search(r"^task_state +working$", shown, re.MULTILINE)
    ours.abort("enough")


def test_the_ladder_shows_who_said_what_when_and_what_was_acknowledged(analyst: Shell, shared: World) -> None:
    ours, theirs = established(shared.agent("analyst"), shared.agent("executor"))
    ours.send("the auth module")
    theirs.send("which branch?")
    assert heard(theirs, 1) == ["the auth module"]
    until(lambda: not ours.refresh().record.unacked, "the ACK")
    ladder = analyst.run("trace", ours.id)
    arrows = [re.sub(r" +", " ", line[14:]) for line in ladder.splitlines()[4:]]
    assert len(arrows) == 5
    for arrow in (
        r"\|---- SYN 13 B -+>\|",
        r"\|<-+ SYN-ACK ----\|",
        r"\|---- DATA 1 15 B -+>\|",
        r"\|<-+ DATA 1 13 B ----\| not processed yet",
        r"\|<-+ ACK 1 ----\|",
    ):
        assert any(re.fullmatch(arrow, found) for found in arrows), (arrow, ladder)
    assert "the auth module" not in ladder
    assert "|  the auth module\n" in analyst.run("trace", ours.id, "--text")
    events = [json.loads(line) for line in analyst.run("trace", ours.id, "--json").splitlines()]
    assert [event["kind"] for event in events if event["direction"] == "out"] == ["SYN", "DATA"]
    ours.abort("enough")


def test_a_messages_way_is_drawn_too(analyst: Shell, executor: Shell) -> None:
    analyst.run("send", "executor", "hello", "--key", "greeting-1")
    assert re.search(r"\|---- message -+>\|  stored \(process\)\n", analyst.run("trace", "greeting-1"))
    executor.run("recv", "--keep")
    assert "taken, not acknowledged yet" in analyst.run("trace", "greeting-1", "--text")
    executor.run("reject", "greeting-1", "--reason", "no time")
    assert re.search(r"\|<-+ reject ----\|  no time\n", executor.run("trace", "greeting-1"))
    assert analyst.json("trace", "greeting-1")["stage"] == "rejected"
    analyst.run("send", "executor", "hello", "--key", "greeting-2")
    executor.run("recv")
    assert re.search(r"\|<-+ ack ----\|  flush\n", analyst.run("trace", "greeting-2"))
    assert "greeting-9" in analyst.run("trace", "greeting-9", code=5)


# --- a person ---------------------------------------------------------------------------------------------------------


def test_a_person_talks_line_by_line(analyst: Shell, shared: World) -> None:
    executor = shared.agent("executor")
    with analyst.started("chat", "executor", "a word", stdin=subprocess.PIPE) as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        request = offer(executor)
        assert request.task == "a word"
        session = request.accept()
        chat.stdin.write("hello\n")
        chat.stdin.flush()
        assert heard(session, 1) == ["hello"]
        session.send("good morning")
        assert chat.stdout.readline() == "good morning\n"
        chat.stdin.write("/quit\n")
        chat.stdin.flush()
        assert list(session) == []  # its FIN
        session.send("bye")
        session.close("nice to have met you")
        rest, told = chat.communicate(timeout=20)
        assert (rest, chat.returncode) == ("bye\n", 0)
    assert told == ("-- executor accepted; /quit or ctrl-d closes\n-- executor closed: ok: nice to have met you\n")
    session.wait(20)


def test_a_chat_ends_when_the_peer_ends_it(analyst: Shell, shared: World) -> None:
    executor = shared.agent("executor")
    with analyst.started("chat", "executor", "--json", stdin=subprocess.PIPE) as chat:
        session = offer(executor).accept()
        session.close("cannot help", "failed")
        printed, _ = chat.communicate(timeout=20)
        assert chat.returncode == 3
    assert json.loads(printed)["text"] == "cannot help"
    with analyst.started("chat", "executor", stdin=subprocess.PIPE) as chat:
        session = offer(executor).accept()
        session.abort("fire alarm")
        assert chat.wait(20) == 3  # though its input is open still
        _, told = chat.communicate()
    assert "fire alarm" in told


def test_an_interrupted_chat_is_over_for_both(analyst: Shell, shared: World) -> None:
    with analyst.started("chat", "executor", stdin=subprocess.PIPE) as chat:
        session = offer(shared.agent("executor")).accept()
        assert chat.stderr is not None
        assert "accepted" in chat.stderr.readline()
        os.kill(chat.pid, signal.SIGINT)
        assert chat.wait(20) == 130
    reached(session, "CLOSED")
    assert session.record.cause == "reset"


# --- daemons that die -------------------------------------------------------------------------------------------------


def test_the_shell_goes_on_though_every_daemon_is_killed_between_its_commands(world: World) -> None:
    world.up("analyst", "executor")
    analyst, executor = Shell(world, "analyst"), Shell(world, "executor")

    def kill_both() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: kill(world, name), ("analyst", "executor")))
        world.up("analyst", "executor")

    session = analyst.run("open", "executor", "review", "--wait", "0").strip()
    kill_both()
    assert executor.json("recv", "--wait", "20")["session"] == session
    executor.run("accept", session)
    kill_both()
    assert analyst.json("recv", "--wait", "20")["kind"] == "accepted"
    analyst.run("say", session, "one")
    kill_both()
    assert executor.json("recv", "--wait", "20")["text"] == "one"
    executor.run("close", session, "--result", "done")
    kill_both()
    assert analyst.json("recv", "--wait", "20")["text"] == "done"
    analyst.run("close", session)
    kill_both()
    assert executor.json("recv", "--wait", "20")["kind"] == "finished"
    for shell in (analyst, executor):
        until(lambda shell=shell: shell.json("sessions", session)["cause"] == "finished", "the end")  # type: ignore[misc]
    assert world.cli("recv", agent="analyst", timeout=PATIENCE_S).stdout == ""
