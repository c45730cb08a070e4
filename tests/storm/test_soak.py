"""Hours of ordinary work, with a death every half minute: nothing grows, nothing leaks, nothing gets slower.

Two of the agents and their daemons are never killed, so that what they need can be watched; the other two are, and
everybody talks with everybody. SOAK_MINUTES says for how long. What is measured beside it, an echo over raw sockets,
tells the machine's moods from ours.
"""

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from backchannel import Agent
from backchannel.client import calls, wire
from backchannel.client.drive import run
from backchannel.transport.dial import Socket, connect
from backchannel.transport.paths import Places, register
from backchannel.transport.start import record

from ..world import eventually
from .storm import ROOT, daemons, seed

WATCHED, KILLED = ("ada", "bob"), ("cyd", "dan")
NAMES = (*WATCHED, *KILLED)
KILL_EVERY_S = 30.0
LOOK_EVERY_S = 0.5
REST_S = 120.0
MIB = 1 << 20
RSS_NOISE = 2 * MIB  # a page of SQLite's cache here, an arena of the allocator there
FDS_NOISE = 24
WAL_BYTES_MAX = 96 * MIB  # the loop checkpoints at 64
ROW_BYTES_MAX = 2500  # of the file, for each message and frame it holds; their texts are 250 on average
TOMBSTONE_BYTES = 5000  # of memory, for a session that is over; 10,000 of them are remembered
SLOWER_MAX = 1.2
ECHO = """
import socket, sys
door = socket.socket(socket.AF_UNIX)
door.bind(sys.argv[1])
door.listen()
while True:
    there, _ = door.accept()
    while data := there.recv(65536):
        there.sendall(data)
"""


class Sample(NamedTuple):
    """What one look found."""

    at: float
    rss: int  # of the watched daemons, as the rest
    fds: int
    wal_bytes: int
    over: int  # sessions that ended
    send_s: float
    echo_s: float


class Soak:
    def __init__(self, folder: Path, dice: random.Random) -> None:
        self._folder = folder
        self._places = Places(str(folder / "run"), str(folder / "state"))
        self._dice = dice
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kills = 0
        os.makedirs(self._places.state_dir, mode=0o700)
        (folder / "state" / "config.toml").write_text("deliveries_max = 1000\n")
        for name in NAMES:
            register(self._places, name)
            record(self._places, name)

    def start(self, name: str) -> None:
        others = ",".join(other for other in NAMES if other != name)
        environment = {
            **os.environ,
            "BACKCHANNEL_DIR": self._places.socket_dir,
            "BACKCHANNEL_STATE": self._places.state_dir,
        }
        with open(self._folder / f"{name}.err", "ab") as errors:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.storm.walker", name, others, str(self._folder)],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip

    def blow(self, seconds: float) -> list[Sample]:
        """Looks again and again, and kills now and then."""
        for name in NAMES:
            self.start(name)
        eventually(lambda: all(len(daemons(self._places, name)) == 1 for name in NAMES), "everybody is up", 60)
        self._pids = {name: daemons(self._places, name)[0] for name in WATCHED}
        samples, began = [], time.monotonic()
        next_kill = began + KILL_EVERY_S
        with Agent("eve", places=self._places) as eve, self._echo() as echo:
            while (now := time.monotonic()) < began + seconds:
                samples.append(self._look(now - began, eve, echo))
                if now > next_kill:
                    next_kill += KILL_EVERY_S
                    self._kill()
                time.sleep(max(0.0, now + LOOK_EVERY_S - time.monotonic()))
                for name, process in self._processes.items():
                    assert process.poll() is None, (self._folder / f"{name}.err").read_text()[-2000:]
        return samples

    def _look(self, at: float, eve: Agent, echo: Socket) -> Sample:
        caller = eve._caller
        began = time.monotonic()
        eve.send(self._dice.choice(WATCHED), "how are you?")
        sent = time.monotonic()
        echo.sendall(b"how are you?")
        echo.recv(100)
        echoed = time.monotonic()
        rss = fds = wal_bytes = over = 0
        for name, pid in self._pids.items():
            rss += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            fds += len(os.listdir(f"/proc/{pid}/fd"))
            wal_bytes += os.path.getsize(self._places.state(name, "mailbox.db-wal"))
            over += run(calls.status(caller, name))["sessions"].get("CLOSED", 0)
        return Sample(at, rss, fds, wal_bytes, over, sent - began, echoed - sent)

    @contextmanager
    def _echo(self) -> Iterator[Socket]:
        path = str(self._folder / "echo")
        process = subprocess.Popen([sys.executable, "-c", ECHO, path])
        try:
            eventually(lambda: os.path.exists(path), "the echo is there")
            with closing(connect(path, 10.0)) as sock:
                yield sock
        finally:
            process.kill()
            process.wait()

    def _kill(self) -> None:
        name = self._dice.choice(KILLED)
        if self._dice.random() < 0.5:
            self._processes[name].kill()
            self._processes[name].wait()
            self.start(name)
        else:
            for pid in daemons(self._places, name):
                os.kill(pid, 9)
        self.kills += 1

    def rest(self) -> dict[str, int]:
        """Everybody closes what is open. How many messages and frames each mailbox holds when nothing waits."""
        (self._folder / "enough").touch()
        with closing(wire.Caller(None, self._places)) as caller:
            eventually(lambda: all(self._is_at_rest(caller, name) for name in NAMES), "all is at rest", REST_S)
            (self._folder / "over").touch()
            for process in self._processes.values():
                assert process.wait(30) == 0
            for name in NAMES:
                assert run(calls.running(caller, name, "audit"))["wrong"] == []
            return {name: run(calls.status(caller, name))["counters"]["total"] for name in NAMES}

    def _is_at_rest(self, caller: wire.Caller, name: str) -> bool:
        status = run(calls.status(caller, name))
        return not status["outbox"] and not status["backlog"] and set(status["sessions"]) <= {"CLOSED"}

    def stop(self) -> dict[str, int]:
        """The size of each file once its daemon has ended."""
        with closing(wire.Caller(None, self._places)) as caller:
            for name in (*NAMES, "eve"):
                run(calls.stop(caller, name))
        return {name: os.path.getsize(self._places.state(name, "mailbox.db")) for name in NAMES}

    def end(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        for name in (*NAMES, "eve"):
            for pid in daemons(self._places, name):
                os.kill(pid, 9)


def percentile(part: list[Sample], what: str, percent: int) -> float:
    return float(statistics.quantiles([getattr(sample, what) for sample in part], n=100)[percent - 1])


def rise(early: list[Sample], late: list[Sample], percent: int) -> float:
    """By what factor a send became slower, where an echo did not."""
    sends, echoes = ([percentile(part, what, percent) for part in (early, late)] for what in ("send_s", "echo_s"))
    return (sends[1] / sends[0]) / max(1.0, echoes[1] / echoes[0])


@pytest.mark.night
@pytest.mark.timeout(0)
def test_nothing_grows_in_hours_of_work(tmp_path: Path) -> None:
    chosen, minutes = seed(), float(os.environ.get("SOAK_MINUTES") or 10)
    print(f"STORM_SEED={chosen} in {tmp_path}, {minutes:g} minutes")
    soak = Soak(tmp_path, random.Random(chosen))
    try:
        samples = soak.blow(minutes * 60)
        totals = soak.rest()
        sizes = soak.stop()
    finally:
        soak.end()
    third = len(samples) // 3
    early, late = samples[third : 2 * third], samples[2 * third :]  # the first third is for warming up
    hours = (late[-1].at - early[0].at) / 3600
    slope = statistics.linear_regression([s.at / 3600 for s in early + late], [s.rss / MIB for s in early + late]).slope
    rss = [statistics.median(s.rss for s in part) for part in (early, late)]
    fds = [max(s.fds for s in part) for part in (early, late)]
    sends, echoes = ([percentile(part, what, 99) for part in (early, late)] for what in ("send_s", "echo_s"))
    middles = [percentile(part, "send_s", 50) for part in (early, late)]
    over = late[-1].over - early[0].over
    wal_bytes = max(s.wal_bytes for s in samples)
    print(
        f"{soak.kills} kills; {sum(totals.values())} messages; of the two daemons that lived: RSS {rss[0] / MIB:.1f} to"
        f" {rss[1] / MIB:.1f} MiB, {slope:.2f} MiB/h with {over} sessions more"
        f" to remember; at most {fds[0]}, then {fds[1]} descriptors; WAL at most"
        f" {wal_bytes / MIB:.1f} MiB; files { ({name: round(size / MIB, 1) for name, size in sizes.items()}) } MiB;"
        f" a send p50 {middles[0] * 1e3:.2f}, then {middles[1] * 1e3:.2f} ms, p99 {sends[0] * 1e3:.1f}, then"
        f" {sends[1] * 1e3:.1f} ms; an echo p99 {echoes[0] * 1e3:.1f}, then"
        f" {echoes[1] * 1e3:.1f} ms"
    )
    assert rss[1] - rss[0] < RSS_NOISE + hours * MIB + over * TOMBSTONE_BYTES
    assert fds[1] <= fds[0] + FDS_NOISE
    assert wal_bytes < len(WATCHED) * WAL_BYTES_MAX
    for name, size in sizes.items():
        assert size < 2 * totals[name] * ROW_BYTES_MAX + 4 * MIB, f"{name} has {totals[name]} messages in {size} bytes"
    # On a busy machine the worst of some hundred sends says little; what gets slower does so in the middle too.
    assert min(rise(early, late, 50), rise(early, late, 99)) < SLOWER_MAX
