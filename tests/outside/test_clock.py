"""A wall clock that jumps: it is for display. No ttl, lease, wait or session notices; nothing spins.

The daemon runs under libfaketime, which gives it another time of day; the clock that counts seconds stays the true one.
"""

import glob
import select
import time
from pathlib import Path

import pytest

from ..inside import NOW, WALL, Bench, close_all
from ..world import Daemon, Link, World, eventually, result, stays

LIBRARY = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), "")
HOUR, YEARS = 3600, 10 * 365 * 86400
JUMPS = [HOUR, -HOUR, YEARS, -YEARS, 0, YEARS, HOUR, -YEARS, -HOUR, 0]


class Clock:
    """The daemon's time of day, in our hands."""

    def __init__(self, world: World) -> None:
        self._file = world.root / "clock"
        self.env = {
            "LD_PRELOAD": LIBRARY,
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
        }
        self.set(0)

    def set(self, seconds: int) -> None:
        """From now on the time of day is so far from the true one."""
        self._write(f"{seconds:+d}")

    def stop(self) -> None:
        """It stands still."""
        self._write("2031-01-01 00:00:00")

    def _write(self, said: str) -> None:
        fresh = self._file.with_name("clock.new")
        fresh.write_text(said + "\n")
        fresh.rename(self._file)


@pytest.fixture
def clock(world: World) -> Clock:
    if not LIBRARY:
        pytest.skip("libfaketime is not here (apt install faketime)")
    return Clock(world)


def time_of_day(world: World) -> float:
    """What the daemon's messages say it is."""
    receipt = world.push("bob", "what time is it?", priority="low")
    (found,) = [
        entry
        for entry in world.call("bob", "peek", {"max": 1000}, "control")["messages"]
        if entry["message"]["id"] == receipt["id"]
    ]
    stamped: float = found["message"]["sent_at"]
    world.call("bob", "cancel", {"id": receipt["id"]})
    return stamped


@pytest.mark.parametrize(
    "rounds", [pytest.param(1, marks=pytest.mark.proof), pytest.param(20, marks=pytest.mark.night)]
)
@pytest.mark.timeout(300)
def test_a_jump_ends_no_ttl_no_lease_and_no_wait(world: World, clock: Clock, rounds: int) -> None:
    daemon = world.start("bob", env=clock.env)
    stored = [world.push("bob", f"ttl {ttl}", ttl=ttl)["id"] for ttl in (600.0, 86400.0)]
    detached = world.push("bob", "leased, detached", priority="urgent")["id"]
    held = world.push("bob", "leased, held", priority="urgent")["id"]
    assert [message["id"] for message in world.take("bob")] == [detached]
    control = world.control("bob")
    assert [message["id"] for message in control.call("take")["messages"]] == [held]
    waiting = world.link("bob")
    waiting.ask("wait", {"id": held, "stage": "acked", "timeout": 600})
    taking = world.control("bob")
    taking.ask("take", {"reply_to": "nobody", "wait": 600})
    for jump in JUMPS * rounds:
        clock.set(jump)
        eventually(lambda jump=jump: abs(time_of_day(world) - time.time() - jump) < 60, "a jump")  # type: ignore[misc]
        assert_nothing_ended(world, daemon, stored, [detached, held], [waiting, taking])
    clock.stop()
    assert_nothing_ended(world, daemon, stored, [detached, held], [waiting, taking])
    control.call("ack", {"id": held, "delivery": 1})
    assert result(waiting.answer())["stage"] == "acked"


def assert_nothing_ended(
    world: World, daemon: Daemon, stored: list[str], taken: list[str], waiting: list[Link]
) -> None:
    cpu = daemon.cpu_s()
    assert stays(lambda: daemon.is_running, during=0.15)
    assert daemon.cpu_s() - cpu < 0.12, "it sleeps"
    for ids, stage in ((stored, "stored"), (taken, "taken")):
        assert {world.receipt("bob", message_id)["stage"] for message_id in ids} == {stage}
    assert not select.select([link.sock for link in waiting], [], [], 0)[0], "who waits is not answered"


@pytest.mark.proof
@pytest.mark.parametrize("jump", [YEARS, -YEARS])
def test_what_is_due_comes_in_its_time_whatever_the_clock_says(world: World, clock: Clock, jump: int) -> None:
    world.start("bob", env=clock.env)
    expiring = world.push("bob", "soon over", ttl=1.0)["id"]
    begin = time.monotonic()
    clock.set(jump)
    waiting = world.control("bob")
    waiting.ask("take", {"reply_to": "nobody", "wait": 1.0})
    assert result(waiting.answer())["messages"] == []
    assert time.monotonic() - begin > 0.9
    eventually(lambda: world.receipt("bob", expiring)["stage"] == "expired")
    assert time.monotonic() - begin > 0.9


@pytest.mark.proof
@pytest.mark.parametrize("jump", [YEARS, -YEARS])
def test_a_restart_under_another_clock_ends_nothing(world: World, clock: Clock, jump: int) -> None:
    daemon = world.start("bob", env=clock.env)
    kept = world.push("bob", "ttl of an hour", ttl=3600.0)["id"]
    leased = world.push("bob", "leased", priority="urgent")["id"]
    assert [message["id"] for message in world.take("bob")] == [leased]
    daemon.kill()
    clock.set(jump)
    daemon = world.start("bob", env=clock.env)
    assert world.receipt("bob", kept)["stage"] == "stored"
    assert world.receipt("bob", leased)["stage"] == "taken"
    assert daemon.stop() == 0
    clock.set(0)
    world.start("bob", env=clock.env)
    assert world.receipt("bob", kept)["stage"] == "stored"
    assert world.push("bob", "and on")["msg_no"] == 3


@pytest.mark.proof
def test_a_session_outlives_a_clock_that_jumps(world: World, clock: Clock) -> None:
    world.start("alice", "bob", env=clock.env)
    alice, bob = world.agent("alice"), world.agent("bob")
    opened = world.call("alice", "open", {"to": "bob", "text": "review it", "idle_timeout": 600.0}, "control")["id"]
    request = next(iter(bob.requests(wait=20)))
    accepted = request.accept()
    session = alice.session(opened)
    eventually(lambda: session.refresh().state == "ESTABLISHED")
    for jump in JUMPS:
        clock.set(jump)
        world.call("alice", "say", {"session": opened, "text": f"{jump}"}, "control")
    got = []
    for data in accepted.receive(wait=20):
        data.ack()
        got.append(data.text)
        if len(got) == len(JUMPS):
            break
    assert got == [f"{jump}" for jump in JUMPS]
    assert session.refresh().state == "ESTABLISHED"
    accepted.close("ok")
    session.close()


# --- on the bench, at our word ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", JUMPS)
def test_on_the_bench_no_jump_moves_a_deadline(tmp_path: Path, jump: int) -> None:
    bench = Bench(tmp_path / "mailbox.db")
    bench.push("m-1", ttl=100)
    agent = bench.control()
    bench.push("m-2", priority="urgent")
    bench.call(agent, "take", detached=True)
    deadline = bench.host.deadline
    bench.wall_at_boot = WALL - NOW + jump
    assert bench.host.deadline == deadline
    assert bench.advance(99) == {}
    assert bench.call(bench.connect(), "receipt", id="m-1")["stage"] == "stored"
    assert bench.call(bench.connect(), "receipt", id="m-2")["stage"] == "taken"
    bench.advance(2)
    assert bench.call(bench.connect(), "receipt", id="m-1")["stage"] == "expired"
    bench.advance(300)
    assert bench.call(bench.connect(), "receipt", id="m-2")["stage"] == "stored"
    close_all()
