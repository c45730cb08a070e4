"""How long a message takes, beside what raw Python sockets take for the same bytes in the same minute.

    python -m benchmarks.latency [--rounds 7] [--messages 1000] [--cpu pinned,unpinned] [--json FILE]

Every round starts fresh daemons and fresh processes and runs all cases in random order. A case's p50 is the median of
its rounds' p50; p99 and p99.9 are over all rounds; a ratio is taken within a round, to that round's raw connect-and-
echo, and then the median. Read `benchmarks/README.md` before believing a number.
"""

import argparse
import json
import os
import random
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from backchannel import Agent
from backchannel.client import calls, wire
from backchannel.client.drive import run
from backchannel.transport.paths import Places

TEXT = "x" * 256
WARM_UP = 50
IDLE_S = 0.002  # between one-way messages: everybody sleeps when the next one comes
COLD_S = 0.015  # beyond the daemon's log flush, and long enough for the caches to be somebody else's
IDLE_SHARE = 10  # so many times fewer messages where each waits for IDLE_S
BASE = "raw connect"
ROOT = Path(__file__).parents[1]


class Figures(NamedTuple):
    """One case in one cpu mode. Microseconds; `ratio` and `tail_ratio` to BASE (p50 within a round; p99.9 pooled)."""

    case: str
    p50: float
    p99: float
    p999: float
    ratio: float
    tail_ratio: float
    messages: int


# --- cases: each returns nanoseconds, one a message -------------------------------------------------------------------


def raw_connect(world: "World", count: int) -> list[int]:
    """socket, connect, send, receive the echo, close."""
    path, data = world.echo_path, TEXT.encode()

    def once() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(path)
            sock.sendall(data)
            sock.recv(65536)

    return timed(once, count)


def raw_kept(world: "World", count: int) -> list[int]:
    """Send and receive the echo over one connection."""
    data = TEXT.encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(world.echo_path)

        def once() -> None:
            sock.sendall(data)
            sock.recv(65536)

        return timed(once, count)


def raw_one_way(world: "World", count: int) -> list[int]:
    """socket, connect, send, until another process has the bytes and has looked at the clock."""
    return timed_elsewhere(lambda: raw_send(world), world.clock, count, IDLE_S)


def raw_one_way_cold(world: "World", count: int) -> list[int]:
    """The same after a longer sleep."""
    return timed_elsewhere(lambda: raw_send(world), world.clock, count, COLD_S)


def raw_send(world: "World") -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(world.clock_path)
        sock.sendall(TEXT.encode())


def send_new(world: "World", count: int) -> list[int]:
    """Acknowledged send, durable over every kill, each over a new connection; nobody receives."""
    caller = wire.Caller("alice", world.places)

    def once() -> None:
        run(calls.push(caller, "sink", TEXT))
        caller.close()

    return timed(once, count)


def send_kept(world: "World", count: int) -> list[int]:
    """The same as a program sees it: `Agent.send`, which keeps its connection for a moment."""
    with world.agent("alice") as alice:
        return timed(lambda: alice.send("sink", TEXT), count)


def one_way(world: "World", count: int) -> list[int]:
    """`Agent.send` until the text is in the hands of another process; everything idle between messages."""
    with world.agent("alice") as alice:
        return timed_elsewhere(lambda: alice.send("reader", TEXT), world.reader, count, IDLE_S)


def one_way_cold(world: "World", count: int) -> list[int]:
    """The same after a longer sleep."""
    with world.agent("alice") as alice:
        return timed_elsewhere(lambda: alice.send("reader", TEXT), world.reader, count, COLD_S)


def round_trip(world: "World", count: int) -> list[int]:
    """A text to another agent's process, and one back: two mailboxes, four wake-ups."""
    anew = copy_context()  # each is a conversation of its own: without it the loop guard would end ours after 16 hops
    with world.agent("alice") as alice:
        answers = alice.receive(wait=30)
        found = []
        for i in range(WARM_UP + count):
            began = time.perf_counter_ns()
            anew.run(alice.send, "replier", TEXT)
            answer = next(answers)
            ended = time.perf_counter_ns()
            assert answer.text == TEXT
            answer.ack()
            if i >= WARM_UP:
                found.append(ended - began)
        return found


CASES: dict[str, Callable[["World", int], list[int]]] = {
    BASE: raw_connect,
    "raw kept": raw_kept,
    "raw one-way": raw_one_way,
    "raw one-way, cold": raw_one_way_cold,
    "send, new connection": send_new,
    "send, kept": send_kept,
    "one-way": one_way,
    "one-way, cold": one_way_cold,
    "round trip": round_trip,
}


def timed(once: Callable[[], object], count: int) -> list[int]:
    for _ in range(WARM_UP):
        once()
    clock, found = time.perf_counter_ns, []
    for _ in range(count):
        began = clock()
        once()
        found.append(clock() - began)
    return found


def timed_elsewhere(
    once: Callable[[], object], helper: "subprocess.Popen[bytes]", count: int, idle_s: float
) -> list[int]:
    """Until the helper's own look at the clock, which it tells after it has done its part."""
    assert helper.stdout is not None
    found = []
    for _ in range(-(-count // IDLE_SHARE) + 1):
        time.sleep(idle_s)
        began = time.monotonic_ns()
        once()
        arrived = int.from_bytes(os.read(helper.stdout.fileno(), 8), "little")
        found.append(arrived - began)
    return found[1:]


# --- the other processes ----------------------------------------------------------------------------------------------


def echo(path: str) -> None:
    """The server that a patient programmer writes with epoll: many at a time, each read at once."""
    listener = listen(path)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    links: dict[int, socket.socket] = {}

    def serve(link: socket.socket) -> None:
        try:
            data = link.recv(65536)
        except BlockingIOError:
            return
        if data:
            link.send(data)
        else:
            del links[link.fileno()]
            link.close()

    say_ready()
    while True:
        for fd, _ in epoll.poll():
            if fd != listener.fileno():
                serve(links[fd])
                continue
            try:
                link, _ = listener.accept()
            except BlockingIOError:
                continue
            link.setblocking(False)
            links[link.fileno()] = link
            epoll.register(link, select.EPOLLIN)
            serve(link)


def clock(path: str) -> None:
    listener = listen(path)
    listener.setblocking(True)
    say_ready()
    while True:
        link, _ = listener.accept()
        with link:
            link.recv(65536)
            say_now(time.monotonic_ns())


def reader(name: str) -> None:
    with Agent(name) as agent:
        say_ready()
        for delivery in agent.receive(wait=None):
            assert delivery.text == TEXT
            now = time.monotonic_ns()
            delivery.ack()
            say_now(now)


def replier(name: str) -> None:
    with Agent(name) as agent:
        say_ready()
        for delivery in agent.receive(wait=None):
            agent.send("alice", delivery.text)
            delivery.ack()


ROLES = {"echo": echo, "clock": clock, "reader": reader, "replier": replier}


def listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(512)
    listener.setblocking(False)
    return listener


def say_ready() -> None:
    os.write(1, b"ready!!!")


def say_now(now: int) -> None:
    os.write(1, now.to_bytes(8, "little"))


class World:
    """Fresh daemons and helpers in a directory of their own."""

    def __init__(self, folder: str) -> None:
        self.places = Places(folder + "/run", folder + "/state")
        self.echo_path = folder + "/echo.sock"
        self.clock_path = folder + "/clock.sock"
        self._environment = {
            **os.environ, "BACKCHANNEL_DIR": self.places.socket_dir, "BACKCHANNEL_STATE": self.places.state_dir
        }  # fmt: skip
        self.helpers: list[subprocess.Popen[bytes]] = []
        self.agent("alice").close()
        self.agent("sink").close()
        self._help("echo", self.echo_path)
        self.clock = self._help("clock", self.clock_path)
        self.reader = self._help("reader", "reader")
        self._help("replier", "replier")

    def agent(self, name: str) -> Agent:
        return Agent(name, places=self.places)

    def _help(self, role: str, argument: str) -> "subprocess.Popen[bytes]":
        helper = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.latency", "--role", role, argument],
            cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.helpers.append(helper)
        assert helper.stdout is not None
        if os.read(helper.stdout.fileno(), 8) != b"ready!!!":
            raise RuntimeError(f"the {role} did not start")
        return helper

    def close(self) -> None:
        for helper in self.helpers:
            helper.kill()
            helper.wait()
            assert helper.stdout is not None
            helper.stdout.close()
        caller = wire.Caller(None, self.places)
        for name in self.places.registered():
            run(calls.stop(caller, name))
        caller.close()


@contextmanager
def world() -> Iterator[World]:
    folder = tempfile.mkdtemp(prefix="bench-")
    made = None
    try:
        made = World(folder)
        yield made
    finally:
        if made is not None:
            made.close()
        shutil.rmtree(folder)


# --- rounds and tables ------------------------------------------------------------------------------------------------


def measure(cases: list[str], rounds: int, messages: int, *, pinned: bool) -> list[Figures]:
    """All rounds of one cpu mode."""
    everywhere = os.sched_getaffinity(0)
    samples: dict[str, list[list[int]]] = {case: [] for case in cases}
    if pinned:
        os.sched_setaffinity(0, {max(everywhere)})  # daemons and helpers inherit it
    try:
        for _ in range(rounds):
            with world() as fresh:
                for case in random.sample(cases, len(cases)):
                    samples[case].append(sorted(CASES[case](fresh, messages)))
    finally:
        os.sched_setaffinity(0, everywhere)
    base = samples[BASE]
    return [figures(case, found, base) for case, found in samples.items()]


def figures(case: str, found: list[list[int]], base: list[list[int]]) -> Figures:
    """`found` and `base` hold a sorted list for each round."""
    pooled, base_pooled = sorted(chain(*found)), sorted(chain(*base))
    return Figures(
        case,
        statistics.median(at(one, 0.5) for one in found) / 1000,
        at(pooled, 0.99) / 1000,
        at(pooled, 0.999) / 1000,
        statistics.median(at(one, 0.5) / at(raw, 0.5) for one, raw in zip(found, base, strict=True)),
        at(pooled, 0.999) / at(base_pooled, 0.999),
        len(pooled),
    )


def at(ordered: list[int], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(mode: str, rows: list[Figures]) -> str:
    lines = [f"{mode + ', us':22} {'p50':>8} {'p99':>8} {'p99.9':>8}  {'x raw':>6} {'p99.9 x':>8} {'n':>7}"]
    lines += [
        f"{r.case:22} {r.p50:8.1f} {r.p99:8.1f} {r.p999:8.1f}  {r.ratio:6.2f} {r.tail_ratio:8.2f} {r.messages:7}"
        for r in rows
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks.latency", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=1000, help="of each case in each round")
    parser.add_argument("--cpu", default="pinned,unpinned", help="pinned, unpinned or both")
    parser.add_argument("--only", action="append", choices=list(CASES), help="this case (may be repeated)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--role", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.role:
        ROLES[options.role[0]](options.role[1])
    cases = [case for case in CASES if case == BASE or not options.only or case in options.only]
    found: dict[str, Any] = {"cpus": os.cpu_count(), "python": sys.version.split()[0], "rounds": options.rounds}
    for mode in options.cpu.split(","):
        rows = measure(cases, options.rounds, options.messages, pinned=mode == "pinned")
        print(table(mode, rows), flush=True)
        found[mode] = {row.case: row._asdict() for row in rows}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    main()
