"""The storm itself: starts agents, kills them and their daemons by a seeded schedule, and collects what is left.

`Storm` is what both have in common; `MessageStorm` blows over messages, `sessionstorm.SessionStorm` over sessions.
"""

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

from .history import KINDS, History, Row
from .journal import parse

NAMES = ("ada", "bob", "cyd")
PREFETCH = {"ada": 1, "bob": 1, "cyd": 5}
ROOT = Path(__file__).parents[2]


def seed() -> int:
    """Of this run; STORM_SEED repeats another's schedule."""
    return int(os.environ.get("STORM_SEED") or int.from_bytes(os.urandom(4), "little"))


class Kills(NamedTuple):
    agents: int
    daemons: int

    @property
    def sum(self) -> int:
        return self.agents + self.daemons


class Storm:
    """Three agents in a world of their own under `folder`, and somebody who kills them and their daemons."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.places = Places(str(folder / "run"), str(folder / "state"))
        self._dice = random.Random(seed)
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        check_private(self.places.state_dir, make=True)
        # By chance a message may be in five hands that die. That is another test; here nothing may end but by its ack.
        (folder / "state" / "config.toml").write_text("deliveries_max = 1000\n")

    def program(self, name: str) -> list[str]:
        """The module and the arguments of an agent."""
        raise NotImplementedError

    def start_all(self) -> None:
        for name in NAMES:
            self._start(name)

    def kill_some(self, kills: int) -> Kills:
        """Until it were so many, or nobody is busy any more."""
        agents = daemons = 0
        while agents + daemons < kills and self._is_anybody_busy():
            time.sleep(self._dice.uniform(0.050, 0.110))
            name = self._dice.choice(NAMES)
            if self._dice.random() < 0.5:
                agents += self._kill_agent(name)
            else:
                daemons += self._kill_daemon(name)
        return Kills(agents, daemons)

    def wait_for_all(self, patience_s: float) -> None:
        for name, agent in self._agents.items():
            assert agent.wait(patience_s) == 0, f"{name} failed: {self.words(name)}"

    def end(self) -> None:
        for agent in self._agents.values():
            agent.kill()
            agent.wait()
        for name in NAMES:
            self._kill_daemon(name)

    def journal(self, name: str) -> str:
        return str(self.folder / f"{name}.journal")

    def words(self, name: str) -> str:
        return (self.folder / f"{name}.err").read_text()[-2000:]

    def _start(self, name: str) -> None:
        environment = {
            **os.environ,
            "BACKCHANNEL_DIR": self.places.socket_dir,
            "BACKCHANNEL_STATE": self.places.state_dir,
        }
        with open(self.folder / f"{name}.err", "ab") as errors:
            self._agents[name] = subprocess.Popen(
                [sys.executable, "-m", *self.program(name)],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip

    def _is_anybody_busy(self) -> bool:
        for name, agent in self._agents.items():
            assert not agent.poll(), f"{name} failed: {self.words(name)}"
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
        is_killed = False
        for pid in daemons(self.places, name):
            try:
                os.kill(pid, signal.SIGKILL)
                is_killed = True
            except ProcessLookupError:
                pass  # of two that were started it was the second, and left by itself
        return is_killed


class Outcome(NamedTuple):
    history: History
    kills: Kills
    seconds: float


class MessageStorm(Storm):
    """Each sends `count` messages to each other one."""

    def __init__(self, folder: Path, seed: int, count: int, *, drain_s: float) -> None:
        super().__init__(folder, seed)
        self._count = count
        self._drain_s = drain_s

    def program(self, name: str) -> list[str]:
        others = ",".join(other for other in NAMES if other != name)
        return ["tests.storm.agent", name, others, str(self._count), str(PREFETCH[name]), self.journal(name)]

    def blow(self, kills: int) -> Outcome:
        """Runs until everything is sent and received; the first `kills` kills of it under fire."""
        began = time.monotonic()
        try:
            self.start_all()
            killed = self.kill_some(kills)
            self.wait_for_all(self._drain_s)
            seconds = time.monotonic() - began
            return Outcome(self._collect(), killed, seconds)
        finally:
            self.end()

    def _collect(self) -> History:
        caller = wire.Caller(None, self.places)
        counters = {name: run(calls.status(caller, name))["counters"] for name in NAMES}
        rows = []
        for name in NAMES:
            assert run(calls.stop(caller, name))
            rows += rows_of(self.places, name)
        caller.close()
        return History({name: parse(Path(self.journal(name)).read_bytes(), KINDS) for name in NAMES}, rows, counters)


def daemons(places: Places, name: str) -> list[int]:
    """The processes that serve NAME of this world, or are about to."""
    wanted = [name.encode(), b"--state", places.state_dir.encode()]
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                argv = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended while we looked
            if wanted in (argv[4:7], argv[3:6]):  # after `-m backchannel.daemon`, or a file that does the same
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
