"""What a case has while it runs: a directory of its own, its sizes, tools, and the processes it starts.

Everything started through it is gone when the case ends, and with it the directory. The clock is here too: `timed` and
its kin are the only places where a latency is taken, so that all systems are measured alike.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, NamedTuple

from .sizes import WARM_UP, Sizes

ROOT = Path(__file__).parents[1]
READY = b"ready!!!"
SILENCE_S = 120.0  # of a helper; the longest work of one takes seconds
START_S = 20.0  # a server that does not answer by then never will


class Samples(NamedTuple):
    """What one case found in one round, in the unit of its work: one number for each message, or a single one."""

    values: list[float]
    note: str = ""  # said beside the row: a count that an option decides


class Helper:
    """Another process of ours: a role in some module. It says eight bytes at a time; a line on stdin lets it go on."""

    def __init__(self, process: "subprocess.Popen[bytes]", role: str) -> None:
        assert process.stdout is not None
        self._process = process
        self._out = process.stdout.fileno()
        self._role = role

    @property
    def pid(self) -> int:
        return self._process.pid

    def await_ready(self) -> None:
        if self._read() != READY:
            raise RuntimeError(f"{self._role} did not start")

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def told(self) -> int:
        """The next number it tells: nanoseconds on everybody's monotonic clock."""
        return int.from_bytes(self._read(), "little")

    def _read(self) -> bytes:
        data = b""
        while len(data) < 8:
            if not select.select([self._out], [], [], SILENCE_S)[0]:
                raise RuntimeError(f"{self._role} says nothing")
            more = os.read(self._out, 8 - len(data))
            if not more:
                raise RuntimeError(f"{self._role} ended early")
            data += more
        return data


class Bench:
    """One run of one case. `shared` outlives it: what is expensive to make is made once for all rounds."""

    def __init__(self, folder: Path, shared: Path, sizes: Sizes, tools: dict[str, str]) -> None:
        self.folder = folder
        self.shared = shared
        self.sizes = sizes
        self._tools = tools
        self._processes: list[subprocess.Popen[bytes]] = []

    def tool(self, name: str) -> str:
        """The path of a program that a peer needs; the runner has it, or would not have started this case."""
        return self._tools[name]

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def helper(self, role: str, *arguments: str) -> Helper:
        """Starts `module:function` as a process of its own, and returns when it is ready."""
        helper = self.helper_unready(role, *arguments)
        helper.await_ready()
        return helper

    def helper_unready(self, role: str, *arguments: str) -> Helper:
        process = self.start(
            [sys.executable, "-m", "benchmarks.helper", role, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return Helper(process, role)

    def server(self, *argv: str, address: str | int) -> int:
        """Starts somebody's server, and returns its pid when it takes connections: at a path, or a loopback port."""
        with open(self.path("server.log"), "ab") as log:
            process = self.start(list(argv), stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                words = Path(self.path("server.log")).read_text(errors="replace").strip().splitlines()
                raise RuntimeError(f"{argv[0]} did not start: {words[-1] if words else 'no word of it'}")
            time.sleep(0.005)
        return process.pid

    def start(
        self,
        argv: list[str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: IO[bytes] | None = None,
        environment: dict[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """A process in the case's own group; `close` ends it."""
        process: subprocess.Popen[bytes] = subprocess.Popen(
            argv, cwd=ROOT, stdin=stdin, stdout=stdout, stderr=stderr, env=environment
        )  # fmt: skip
        self._processes.append(process)
        return process

    def stop(self, pid: int) -> None:
        """Ends one of them in order, and waits for it."""
        process = next(p for p in self._processes if p.pid == pid)
        process.send_signal(signal.SIGTERM)
        process.wait(START_S)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


# --- the clock --------------------------------------------------------------------------------------------------------


def timed(once: Callable[[], object], count: int) -> Samples:
    """Microseconds of each call."""
    for _ in range(min(WARM_UP, count)):
        once()
    clock, found = time.perf_counter_ns, []
    for _ in range(count):
        began = clock()
        once()
        found.append(clock() - began)
    return microseconds(found)


async def timed_await(once: Callable[[], Awaitable[object]], count: int) -> Samples:
    """The same for asyncio."""
    for _ in range(min(WARM_UP, count)):
        await once()
    clock, found = time.perf_counter_ns, []
    for _ in range(count):
        began = clock()
        await once()
        found.append(clock() - began)
    return microseconds(found)


def timed_elsewhere(send: Callable[[], object], receiver: Helper, count: int, idle_s: float) -> Samples:
    """Microseconds until the receiver's own look at the clock, which it tells after it has done its part."""
    found = []
    for _ in range(count + 1):
        time.sleep(idle_s)
        began = time.monotonic_ns()
        send()
        found.append(receiver.told() - began)
    return microseconds(found[1:])


def flood(senders: list[Helper], messages: int, consumer: Helper | None = None) -> Samples:
    """Messages a second of all senders together, from the first's start to the last's end.

    A sender waits for `go`, then tells when it began and when its last message was acknowledged. With a consumer,
    until it has told that it has the last of them.
    """
    for sender in senders:
        sender.await_ready()
    for sender in senders:
        sender.go()
    spans = [(sender.told(), sender.told()) for sender in senders]
    ends = [end for _, end in spans]
    if consumer is not None:
        ends.append(consumer.told())
    return Samples([messages * len(senders) / ((max(ends) - min(began for began, _ in spans)) / 1e9)])


def microseconds(found: list[int]) -> Samples:
    return Samples([ns / 1000 for ns in found])


# --- where servers are ------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A loopback port that nobody had a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def answers(address: str | int) -> bool:
    family = socket.AF_INET if isinstance(address, int) else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(("127.0.0.1", address) if isinstance(address, int) else address)
        except OSError:
            return False
        return True
