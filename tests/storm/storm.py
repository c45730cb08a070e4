"""The storm itself: starts agents, kills them and their daemons by a seeded schedule, and collects what they wrote."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from backchannel.client import calls, wire
from backchannel.client.drive import run
from backchannel.transport.paths import Places, check_private

from .history import History, Row, merged

NAMES = ("ada", "bob", "cyd")
PREFETCH = {"ada": 1, "bob": 1, "cyd": 5}
ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    history: History
    agents_killed: int
    daemons_killed: int
    seconds: float


class Storm:
    """Three agents that send `count` messages to each other one, in a world of their own under `folder`."""

    def __init__(self, folder: Path, seed: int, count: int, *, drain_s: float) -> None:
        self.folder = folder
        self.places = Places(str(folder / "run"), str(folder / "state"))
        self._dice = random.Random(seed)
        self._count = count
        self._drain_s = drain_s
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        check_private(self.places.state_dir, make=True)
        # By chance a message may be in five hands that die. That is another test; here nothing may end but by its ack.
        (folder / "state" / "config.toml").write_text("deliveries_max = 1000\n")

    def blow(self, kills: int) -> Outcome:
        """Runs until everything is sent and received; the first `kills` kills of it under fire."""
        began = time.monotonic()
        agents_killed = daemons_killed = 0
        try:
            for name in NAMES:
                self._start(name)
            while agents_killed + daemons_killed < kills and self._is_anybody_busy():
                time.sleep(self._dice.uniform(0.050, 0.110))
                name = self._dice.choice(NAMES)
                if self._dice.random() < 0.5:
                    agents_killed += self._kill_agent(name)
                else:
                    daemons_killed += self._kill_daemon(name)
            for name, agent in self._agents.items():
                assert agent.wait(self._drain_s) == 0, f"{name} failed: {self._words(name)}"
            seconds = time.monotonic() - began
            return Outcome(self._collect(), agents_killed, daemons_killed, seconds)
        finally:
            self._end()

    def _start(self, name: str) -> None:
        others = ",".join(other for other in NAMES if other != name)
        environment = {
            **os.environ,
            "BACKCHANNEL_DIR": self.places.socket_dir,
            "BACKCHANNEL_STATE": self.places.state_dir,
        }
        with open(self.folder / f"{name}.err", "ab") as errors:
            self._agents[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.storm.agent", name, others, str(self._count), str(PREFETCH[name]),
                 self._journal(name)],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip

    def _is_anybody_busy(self) -> bool:
        for name, agent in self._agents.items():
            assert not agent.poll(), f"{name} failed: {self._words(name)}"
        return any(agent.returncode is None for agent in self._agents.values())

    def _kill_agent(self, name: str) -> bool:
        agent = self._agents[name]
        if agent.poll() is not None:
            return False
        agent.kill()
        agent.wait()
        self._start(name)
        return True

    def _kill_daemon(self, name: str) -> bool:
        pids = daemons(self.places, name)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def _collect(self) -> History:
        caller = wire.Caller(None, self.places)
        counters = {name: run(calls.status(caller, name))["counters"] for name in NAMES}
        rows = []
        for name in NAMES:
            assert run(calls.stop(caller, name))
            rows += rows_of(self.places, name)
        caller.close()
        return History(merged((name, Path(self._journal(name)).read_bytes()) for name in NAMES), rows, counters)

    def _end(self) -> None:
        for agent in self._agents.values():
            agent.kill()
            agent.wait()
        for name in NAMES:
            self._kill_daemon(name)

    def _journal(self, name: str) -> str:
        return str(self.folder / f"{name}.journal")

    def _words(self, name: str) -> str:
        return (self.folder / f"{name}.err").read_text()[-2000:]


def daemons(places: Places, name: str) -> list[int]:
    """The processes that serve NAME of this world, or are about to."""
    wanted = [b"backchannel.daemon", name.encode(), b"--state", places.state_dir.encode()]
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                argv = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended while we looked
            if argv[3:7] == wanted:
                found.append(int(entry))
    return found


def rows_of(places: Places, name: str) -> list[Row]:
    """All rows of a mailbox whose daemon has ended."""
    db = sqlite3.connect(f"file:{places.state(name, 'mailbox.db')}?mode=ro", uri=True)
    try:
        rows = db.execute("SELECT sender, id, msg_no, stage, delivery FROM messages").fetchall()
    finally:
        db.close()
    return [Row(name, *row) for row in rows]
