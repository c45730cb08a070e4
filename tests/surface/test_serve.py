"""`serve`: any program is an agent, one run for each session, and a crash of either loses no task."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backchannel import Agent, Session
from backchannel.testing import World, command

from .helpers import PATIENCE_S, established, heard, kill, left, opening, until

ECHO = 'read task; echo "task: $task"; while read line; do echo "said: $line"; done; echo over'


@contextmanager
def serving(world: World, *options: str, program: str = ECHO, name: str = "executor") -> Iterator["Served"]:
    """`backchannel serve`, with a shell script as its program."""
    with subprocess.Popen(
        [command(), "serve", name, *options, "--exec", "sh", "-c", program],
        env=world.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Served(process)
        finally:
            process.kill()


class Served:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def end(self, number: int) -> int:
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_S)

    def report(self) -> list[str]:
        """The next line it printed, in words; without the session's id."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().split()[1:]

    def complaint(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.readline()


@pytest.fixture
def analyst(shared: World) -> Agent:
    return shared.agent("analyst")


def finished(session: Session) -> Session:
    return session.close().wait(PATIENCE_S)


def test_a_program_gets_the_task_and_the_texts_and_what_it_prints_is_said(shared: World, analyst: Agent) -> None:
    with serving(shared) as served:
        session = analyst.open("executor", "review", timeout=PATIENCE_S)
        assert served.report() == ["accepted", "analyst", "review"]
        assert heard(session, 1) == ["task: review"]  # at once: a run is a conversation
        session.send("auth.py")
        assert heard(session, 1) == ["said: auth.py"]
        session.send("login.py")
        finished(session)
        assert [data.text for data in session] == ["said: login.py", "over"]
        assert session.result == ("ok", "")
        assert served.report() == ["closed", "ok"]
        assert served.end(signal.SIGTERM) == 0
    assert left(shared.agent("executor"), None) == []


def test_a_program_that_fails_fails_the_task_with_its_last_words(shared: World, analyst: Agent) -> None:
    program = "echo starting; for i in 1 2 3; do echo cannot do $i >&2; done; exit 7"
    with serving(shared, program=program) as served:
        session = analyst.open("executor", "review", timeout=PATIENCE_S)
        finished(session)
        assert [data.text for data in session] == ["starting"]
        assert session.result == ("failed", "cannot do 1\ncannot do 2\ncannot do 3")
        assert session.task_state == "failed"
        assert served.complaint() == "cannot do 1\n"  # the operator sees them too
    for program, result in (("exit 7", "exit status 7"), ("kill -9 $$", "killed by SIGKILL")):
        with serving(shared, program=program):
            assert finished(analyst.open("executor", "review", timeout=PATIENCE_S)).result == ("failed", result)


def test_a_program_that_does_not_read_may_work_all_the_same(shared: World, analyst: Agent) -> None:
    with serving(shared, program="exec <&-; echo done"):
        session = analyst.open("executor", "x" * 200_000, timeout=PATIENCE_S)
        session.send("y" * 200_000)
        assert finished(session).result == ("ok", "")
        assert [data.text for data in session] == ["done"]


def test_with_json_a_text_of_many_lines_is_one_line(shared: World, analyst: Agent) -> None:
    with serving(shared, "--json", program="cat") as served:
        session = analyst.open("executor", "one\ntwo", timeout=PATIENCE_S)
        session.send("three\nfour")
        told = [json.loads(text) for text in heard(session, 2)]
        assert [(line["kind"], line["text"], line["from"]) for line in told] == [
            ("task", "one\ntwo", "analyst"),
            ("data", "three\nfour", "analyst"),
        ]
        finished(session)
        reports = [json.loads(served._process.stdout.readline()) for _ in range(2)]  # type: ignore[union-attr]
        assert [report["event"] for report in reports] == ["accepted", "closed"]
        assert reports[0]["session"] == session.id


def test_a_program_knows_who_asks_and_may_show_progress(shared: World, analyst: Agent) -> None:
    program = f'{command()} progress "$BACKCHANNEL_SESSION" "asked by $BACKCHANNEL_PEER" >&2; cat'
    with serving(shared, program=program):
        session = analyst.open("executor", "review", timeout=PATIENCE_S)
        assert heard(session, 1) == ["review"]
        until(lambda: session.refresh().record.progress == "asked by analyst", "the note")
        finished(session)


def test_more_tasks_than_may_run_wait_as_offers(shared: World, analyst: Agent) -> None:
    with serving(shared, "--max", "2"):
        running = [analyst.open("executor", f"task {n}", timeout=PATIENCE_S) for n in range(2)]
        with opening(analyst, "executor", "task 2") as third:
            until(lambda: analyst.sessions("SYN-SENT"), "the third offer")
            assert heard(running[0], 1) == ["task: task 0"]
            assert not third.done()
            finished(running[0])
            finished(third.result(PATIENCE_S))
        finished(running[1])


@pytest.mark.parametrize("has_said_all", [False, True])
def test_when_the_peer_aborts_the_program_ends(
    shared: World, analyst: Agent, tmp_path: Path, has_said_all: bool
) -> None:
    pid = tmp_path / "pid"
    with serving(shared, program=f"sleep 60 & echo $! > {pid}; echo started; wait") as served:
        session = analyst.open("executor", "review", timeout=PATIENCE_S)
        assert heard(session, 1) == ["started"]
        if has_said_all:
            session.close()
            until(lambda: not session.refresh().record.unacked, "the FIN to be processed")
        session.abort("never mind")
        assert "never mind" in served.complaint()
        until(lambda: not is_running(pid), "the program, and what it started, to end")


def is_running(pid: Path) -> bool:
    try:
        with open(f"/proc/{pid.read_text().strip()}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_is_no_program_is_a_mistake_in_the_call(shared: World) -> None:
    for words in (["--exec", "no-such-program"], ["--exec"], []):
        done = shared.cli("serve", "executor", *words)
        assert done.returncode == 2, done
        assert "--exec" in done.stderr


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_task_whose_serve_died_is_run_again_with_all_that_was_said(
    shared: World, analyst: Agent, number: signal.Signals, tmp_path: Path
) -> None:
    """What the second run prints as the first did is not said twice."""
    runs = tmp_path / "runs"
    program = f'echo "$BACKCHANNEL_AGAIN" >> {runs}; echo $$ > {tmp_path}/pid; {ECHO}'
    with serving(shared, program=program) as served:
        session = analyst.open("executor", "review", timeout=PATIENCE_S)
        session.send("one")
        assert heard(session, 2) == ["task: review", "said: one"]
        served.end(number)
        until(lambda: not is_running(tmp_path / "pid"), "the program to end with it")
    session.send("two")  # while nobody serves
    with serving(shared, program=program) as served:
        assert served.report() == ["again", "analyst", "review"]
        assert heard(session, 1) == ["said: two"]
        session.send("three")
        finished(session)
        assert [data.text for data in session] == ["said: three", "over"]
    assert runs.read_text() == "\n1\n"


def test_from_the_first_line_that_differs_everything_is_said(shared: World, analyst: Agent) -> None:
    program = 'read task; echo begin; echo "run $BACKCHANNEL_AGAIN"; echo done; cat >/dev/null'
    with serving(shared, program=program) as served:
        session = analyst.open("executor", "review", timeout=PATIENCE_S)
        assert heard(session, 3) == ["begin", "run ", "done"]
        served.end(signal.SIGKILL)
    with serving(shared, program=program):
        assert heard(session, 2) == ["run 1", "done"]
        finished(session)


def test_a_task_that_waits_survives_serve(shared: World, analyst: Agent) -> None:
    with serving(shared) as served:
        running = analyst.open("executor", "first", timeout=PATIENCE_S)
        with opening(analyst, "executor", "second") as second:
            until(lambda: analyst.sessions("SYN-SENT"), "the second offer")
            served.end(signal.SIGKILL)
            with serving(shared) as again:
                assert again.report() == ["again", "analyst", "first"]
                finished(running)
                finished(second.result(PATIENCE_S))


def test_a_second_serve_leaves_alone_what_the_first_is_at(shared: World, analyst: Agent) -> None:
    with serving(shared):
        session = analyst.open("executor", "first", timeout=PATIENCE_S)
        assert heard(session, 1) == ["task: first"]
        with serving(shared) as second:
            other = analyst.open("executor", "second", timeout=PATIENCE_S)
            assert second.report() == ["accepted", "analyst", "second"]
            finished(other)
        session.send("still here")
        assert heard(session, 1) == ["said: still here"]
        finished(session)


def test_what_the_agent_opened_itself_is_none_of_serves_business(shared: World, analyst: Agent) -> None:
    executor = shared.agent("executor")
    theirs, ours = established(executor, analyst, "the other way round")
    with serving(shared) as served:
        session = analyst.open("executor", "review", timeout=PATIENCE_S)
        assert served.report() == ["accepted", "analyst", "review"]
        finished(session)
    ours.send("hello")
    assert heard(theirs, 1) == ["hello"]
    theirs.abort("enough")


def test_a_result_that_was_not_said_yet_is_said_by_the_next_serve(shared: World, analyst: Agent) -> None:
    """The peer has closed, all was read, and `serve` dies before the program ends."""
    slow = "cat > /dev/null; echo working; sleep 60"
    with serving(shared, program=slow) as served:
        session = analyst.open("executor", "review", timeout=PATIENCE_S).close()
        assert heard(session, 1) == ["working"]
        served.end(signal.SIGKILL)
    with serving(shared, program="cat > /dev/null; echo working; echo better"):
        session.wait(PATIENCE_S)
        assert [data.text for data in session] == ["better"]
        assert session.result.is_ok


@pytest.mark.parametrize("victim", ["analyst", "executor"])
def test_a_daemon_that_is_killed_is_not_noticed(world: World, victim: str) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    with serving(world):
        session = analyst.open("executor", "review", timeout=PATIENCE_S)
        for text in ("one", "two"):
            kill(world, victim)
            session.send(text)
        kill(world, victim)
        assert heard(session, 3) == ["task: review", "said: one", "said: two"]
        assert finished(session).result == ("ok", "")


def test_serve_ends_when_its_agent_is_taken_down(world: World) -> None:
    world.up("executor")
    with serving(world) as served:
        until(lambda: json.loads(world.cli("agents", "--json").stdout)["online"], "the daemon")
        world.cli("down", "executor")
        assert served._process.wait(PATIENCE_S) == 5


def test_an_offer_that_was_withdrawn_meanwhile_costs_nothing(shared: World, analyst: Agent) -> None:
    with serving(shared):
        running = analyst.open("executor", "first", timeout=PATIENCE_S)
        with opening(analyst, "executor", "impatient", timeout=0.2) as gone:
            assert gone.exception(PATIENCE_S) is not None
        finished(running)
        finished(analyst.open("executor", "next", timeout=PATIENCE_S))
