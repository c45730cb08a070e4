"""Looking on without taking part: tap, peek, log, config."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backchannel import Agent
from backchannel.testing import World, command

from .helpers import Refusal, collect, control, established, left, status, texts, until, wire


def lease(world: World, message_id: str) -> None:
    (message,) = control(world, "executor", "take", detached=True, wait=5)["messages"]
    assert message["id"] == message_id


def now_on(world: World) -> int:
    last: int = control(world, "executor", "tap")["last"]
    return last


@pytest.mark.parametrize(
    "words", ["log --since ²h", "log --until 1.2.3d", "log --since yesterday", "log --max 0", "peek --max -1"]
)
def test_an_option_that_means_nothing_is_refused_in_one_line(shared: World, words: str) -> None:
    refused = shared.cli(*words.split(), agent="executor")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1), refused.stderr


# --- tap --------------------------------------------------------------------------------------------------------------


def test_a_tap_shows_what_happens_in_order_and_why(shared: World) -> None:
    last = now_on(shared)
    analyst, executor = shared.agent("analyst"), shared.agent("executor")
    one = analyst.send("executor", "one")
    lease(shared, one.id)
    executor.release(one.id)
    lease(shared, one.id)
    executor.ack(one.id)
    two = analyst.send("executor", "two")
    lease(shared, two.id)
    executor.reject(two.id, "busy")
    three = analyst.send("executor", "three")
    analyst.cancel(three.id)
    events = control(shared, "executor", "tap", after=last)["events"]
    assert [(event["id"], event["stage"]) for event in events] == [
        *((one.id, stage) for stage in ("stored", "taken", "stored", "taken", "acked")),
        *((two.id, stage) for stage in ("stored", "taken", "rejected")),
        *((three.id, stage) for stage in ("stored", "cancelled")),
    ]
    assert [event["no"] for event in events] == list(range(last + 1, last + 11))
    assert (events[7]["reason"], events[7]["from"], events[7]["to"]) == ("busy", "analyst", "executor")
    assert not any("text" in event for event in events)


def test_a_tap_tells_texts_only_when_asked(shared: World) -> None:
    last = now_on(shared)
    shared.agent("analyst").send("executor", "secret")
    assert "secret" not in json.dumps(control(shared, "executor", "tap", after=last))
    (event,) = control(shared, "executor", "tap", after=last, text=True)["events"]
    assert event["text"] == "secret"


def test_a_tap_takes_nothing(shared: World) -> None:
    last = now_on(shared)
    receipt = shared.agent("analyst").send("executor", "hello")
    assert control(shared, "executor", "tap", after=last)["events"]
    assert (receipt.refresh().stage, receipt.delivery) == ("stored", 0)
    assert not status(shared, "executor")["receiving"]
    assert texts(collect(shared.agent("executor"), 1)) == ["hello"]


def test_a_tap_waits_for_the_next_event_and_not_longer(shared: World) -> None:
    last = now_on(shared)
    begun = time.monotonic()
    assert control(shared, "executor", "tap", after=last, wait=0.1)["events"] == []
    assert 0.1 <= time.monotonic() - begun < 5


def test_the_commands_tap_and_follow_show_events_as_they_happen(shared: World) -> None:
    analyst = shared.agent("analyst")
    with (
        output(shared, "tap", "executor", "--json") as quiet,
        output(shared, "tap", "executor", "--text") as loud,
        output(shared, "log", "--follow", "--peer", "analyst", "--json", agent="executor") as followed,
    ):
        for seen in (quiet, loud, followed):
            until(partial(sees_a_new_one, seen, analyst), "the first event")
        other = shared.agent("writer").send("executor", "from another")
        mine = analyst.send("executor", "to be seen")
        for seen in (quiet, loud, followed):
            until(partial(seen.has, mine.id), "the event")
        assert (quiet.has(other.id), followed.has(other.id)) == (True, False)
        assert (quiet.has("to be seen"), loud.has("to be seen"), followed.has("to be seen")) == (False, True, False)
        assert json.loads(quiet.read().splitlines()[0])["to"] == "executor"
    assert mine.refresh().stage == "stored"


def test_a_tap_ends_by_itself_if_told_so(shared: World) -> None:
    ended = shared.cli("tap", "executor", "--for", "0.1")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert shared.cli("tap", "nobody", "--for", "0.1").returncode == 5


def test_a_tap_goes_on_when_the_daemon_was_killed(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    with output(world, "tap", "executor", "--json") as tap:
        until(partial(sees_a_new_one, tap, analyst), "the first event")
        world.kill("executor")
        until(partial(sees_a_new_one, tap, analyst), "an event after it")


def sees_a_new_one(tap: "Output", analyst: Agent) -> bool:
    """Whether a message sent now is shown within a moment; a tap that is only starting misses it."""
    receipt = analyst.send("executor", "are you there?")
    deadline = time.monotonic() + 0.1
    while not tap.has(receipt.id) and time.monotonic() < deadline:
        time.sleep(0.005)
    return tap.has(receipt.id)


class Output:
    """What a command has written so far, to a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> str:
        with open(self._path) as file:
            return file.read()

    def has(self, what: str) -> bool:
        return what in self.read()


@contextmanager
def output(world: World, *args: str, agent: str | None = None) -> Iterator[Output]:
    path = f"{world.directory}/output-{time.monotonic_ns()}"
    with open(path, "w") as file:
        process = subprocess.Popen([command(), *args], env=world.env_of(agent), stdin=subprocess.DEVNULL, stdout=file)
    try:
        yield Output(path)
        assert process.poll() is None, "it ended before it was told to"
    finally:
        process.kill()
        process.wait()


def test_a_tap_of_several_goes_on_when_one_of_them_is_taken_down(world: World) -> None:
    world.up("executor", "writer")
    analyst = world.agent("analyst")
    with output(world, "tap", "executor", "writer", "--text") as tap:
        until(lambda: analyst.send("writer", "first") and tap.has("first"))
        world.cli("down", "executor")
        analyst.send("writer", "second")
        until(lambda: tap.has("second"))


# --- peek and log -----------------------------------------------------------------------------------------------------


def test_peek_shows_what_waits_and_takes_nothing(shared: World) -> None:
    analyst = shared.agent("analyst")
    receipts = [analyst.send("executor", text) for text in ("one", "two", "three")]
    lease(shared, receipts[0].id)
    seen = shared.cli("peek", agent="executor").stdout
    assert [line.split()[2:] for line in seen.splitlines()] == [
        [stage, "analyst", "->", "executor", receipt.id]
        for stage, receipt in zip(("taken", "stored", "stored"), receipts, strict=True)
    ]
    assert "two" not in seen
    shown = shared.cli("peek", "--text", "--json", "--max", "2", agent="executor").stdout
    found = [json.loads(line) for line in shown.splitlines()]
    assert [(message["text"], message["stage"]) for message in found] == [("one", "taken"), ("two", "stored")]
    assert [receipt.refresh().delivery for receipt in receipts] == [1, 0, 0]
    shared.agent("executor").ack(receipts[0].id)


def history(world: World, *args: str) -> list[dict[str, Any]]:
    done = world.cli("log", "--json", *args, agent="executor")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_log_shows_what_came_also_what_is_finished(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    analyst.send("executor", "one")
    collect(executor, 1)
    rejected = analyst.send("executor", "two")
    lease(world, rejected.id)
    executor.reject(rejected.id, "busy")
    world.agent("writer").send("executor", "three")
    world.cli("send", "executor", "four")
    assert [(entry["from"], entry["stage"], entry["reason"]) for entry in history(world)] == [
        ("analyst", "acked", None),
        ("analyst", "rejected", "busy"),
        ("writer", "stored", None),
        ("@user", "stored", None),
    ]
    assert [entry["text"] for entry in history(world)] == [None] * 4
    assert [entry["text"] for entry in history(world, "--text", "--max", "3")] == ["two", "three", "four"]
    told = world.cli("log", "--text", agent="executor").stdout
    assert "(busy)" in told
    assert "    two\n" in told


def test_the_log_of_one_peer(shared: World) -> None:
    shared.agent("analyst").send("executor", "one")
    shared.agent("writer").send("executor", "two")
    shared.cli("send", "executor", "three")
    for peer in ("analyst", "writer", "@user"):
        entries = history(shared, "--peer", peer)
        assert entries, peer
        assert {entry["from"] for entry in entries} == {peer}
    assert history(shared, "--peer", "nobody") == []


def test_the_log_of_some_time(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    stored = []
    for text in ("one", "two", "three"):
        analyst.send("executor", text)
        stored.append(history(world)[-1]["stored_at"])
    second = datetime.fromtimestamp(stored[1]).isoformat()
    between = datetime.fromtimestamp((stored[1] + stored[2]) / 2).isoformat()

    def said(*args: str) -> list[str]:
        return [entry["text"] for entry in history(world, "--text", *args)]

    assert said("--since", "1h") == ["one", "two", "three"]
    assert said("--until", "1h") == []
    assert said("--since", between) == ["three"]
    assert said("--until", between) == ["one", "two"]
    assert said("--since", second, "--until", between) in (["two"], [])  # a time has microseconds, the log more
    wrong = world.cli("log", "--since", "yesterday", agent="executor")
    assert (wrong.returncode, "is no time" in wrong.stderr) == (2, True)


def test_the_log_has_pages_and_nobody_notices(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    analyst.send_many("executor", map(str, range(1200)))
    assert [entry["text"] for entry in history(world, "--text", "--max", "1100")] == [str(n) for n in range(100, 1200)]


def test_the_log_by_kind_stage_session_and_trace(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    first = analyst.send("executor", "one")
    collect(executor, 1)
    analyst.send("executor", "two")
    opener, _ = established(analyst, executor)

    def ids(*args: str) -> list[str]:
        return [entry["id"] for entry in history(world, *args)]

    assert ids("--stage", "acked") == [first.id]
    assert ids("--kind", "offer") == ids("--session", opener.id) == [f"{opener.id}/offer"]
    assert ids("--trace", first.id) == [first.id]
    assert ids("--kind", "offer", "--stage", "stored") == []
    assert len(ids()) == 3
    wrong = world.cli("log", "--kind", "offers", agent="executor")
    assert (wrong.returncode, "use message, bounce, loop" in wrong.stderr) == (2, True)


def test_the_log_of_several_agents_is_one_story(world: World) -> None:
    world.up("executor", "writer")
    analyst = world.agent("analyst")
    for number in range(6):
        analyst.send(("executor", "writer")[number % 2], str(number))
    done = world.cli("log", "executor", "writer", "--text", "--json", "--max", "4")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["2", "3", "4", "5"]


def test_one_answer_of_the_log_looks_at_a_part_of_a_long_history(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    analyst.send_many("executor", (str(n) for n in range(5200)))
    world.agent("writer").send("executor", "the last")
    found = control(world, "executor", "log", peer="writer")
    assert (found["messages"], found["next"]) == ([], 5000)
    found = control(world, "executor", "log", peer="writer", after=5000)
    assert ([entry["message"]["msg_no"] for entry in found["messages"]], found["next"]) == ([5201], None)
    found = control(world, "executor", "log", before=0, peer="nobody")
    assert (found["messages"], found["next"]) == ([], 202)
    assert control(world, "executor", "log", before=202, peer="nobody")["next"] is None
    assert [entry["from"] for entry in history(world, "--peer", "writer")] == ["writer"]


def test_the_log_of_an_empty_mailbox_is_empty(world: World) -> None:
    world.up("executor")
    assert history(world) == []
    assert control(world, "executor", "log", before=0) == {"messages": [], "next": None}
    assert control(world, "executor", "peek") == {"messages": [], "next": None}


def test_following_a_log_keeps_to_its_filters(world: World) -> None:
    world.up("executor")
    analyst, executor = world.agent("analyst"), world.agent("executor")
    with output(world, "log", "--follow", "--stage", "acked", "--json", agent="executor") as followed:

        def is_seen() -> bool:
            receipt = analyst.send("executor", "hello")
            collect(executor, 1)
            return followed.has(receipt.id)

        until(is_seen, "an ack to be shown")
        assert {json.loads(line)["stage"] for line in followed.read().splitlines()} == {"acked"}


def test_looking_needs_the_agents_own_door(shared: World) -> None:
    for method in ("peek", "log", "tap", "config"):
        with pytest.raises(Refusal) as refusal:
            wire(shared, "executor", method, {})
        assert refusal.value.code == "unknown_method"


# --- config -----------------------------------------------------------------------------------------------------------


def test_config_shows_what_is_in_force_and_where_it_comes_from(world: World) -> None:
    Agent("executor").close()
    world.stop("executor")
    everybodys, own = world.paths.state_dir + "/config.toml", world.paths.state("executor", "config.toml")
    with open(everybodys, "w") as file:
        file.write("messages_max = 10\nlease_s = 60\n")
    with open(own, "w") as file:
        file.write("lease_s = 7\n")
    shown = world.cli("config", "show", "--json", agent="executor").stdout
    found = {setting["key"]: setting for setting in map(json.loads, shown.splitlines())}
    assert {key: (found[key]["value"], found[key]["origin"]) for key in ("messages_max", "lease_s", "durability")} == {
        "messages_max": (10, everybodys), "lease_s": (7, own), "durability": ("process", "default")
    }  # fmt: skip
    assert (found["lease_s"]["default"], found["lease_s"]["unit"]) == (300, "seconds")
    lines = world.cli("config", "show", agent="executor").stdout.splitlines()
    assert [line.split() for line in lines if line.startswith("lease_s")] == [["lease_s", "7", "seconds", own]]


def test_a_mistake_in_the_config_is_named_and_nothing_runs_without_it(world: World) -> None:
    Agent("executor").close()
    world.stop("executor")
    own = world.paths.state("executor", "config.toml")
    with open(own, "w") as file:
        file.write("lease = 7\n")
    wrong = world.cli("up", "executor")
    assert wrong.returncode == 5
    assert f"{own} has an unknown setting 'lease'" in wrong.stderr
    with open(own, "w") as file:
        file.write("lease_s = 7\n")
    assert world.cli("up", "executor").returncode == 0
    assert left(Agent("executor")) == []


def test_the_doctor_says_who_could_not_start_and_why(world: World) -> None:
    world.up("executor", "writer")
    world.stop("executor")
    world.stop("writer")
    Path(world.paths.state("executor", "config.toml")).write_text("durabilty = 'power'\n")
    told = world.cli("doctor")
    findings = {line.split()[1].rstrip(":"): line for line in told.stdout.splitlines()}
    assert told.returncode == 1
    assert "cannot start" in findings["executor"]
    assert "durabilty" in findings["executor"]
    assert findings["writer"].startswith("ok")
