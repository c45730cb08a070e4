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
from backchannel.transport.paths import INBOX, Places, check_private

from .history import KINDS, History, Row
from .journal import parse

NAMES = ("ada", "bob", "cyd")
PREFETCH = {"ada": 1, "bob": 1, "cyd": 5}
SOMETHING_BYTES = 2000  # of its journal: some ten steps
EARLY = 0.2  # of the kills do not wait until the victim has come to something; more, and a busy machine never does
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
        self._journals_before: dict[str, int] = {}  # their sizes when each agent was started
        self._sockets_before: dict[str, int] = {}  # their inodes when each daemon was killed
        check_private(self.places.state_dir, make=True)
        # By chance a message may be in five hands that die. That is another test; here nothing may end but by its ack.
        (folder / "state" / "config.toml").write_text("deliveries_max = 1000\n")

    # --- what a storm is made of --------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Starts an agent."""
        raise NotImplementedError

    def kill_agent(self, name: str) -> bool:
        """SIGKILL, and another one. False if there is none any more."""
        raise NotImplementedError

    def kill_daemon(self, name: str) -> bool:
        """SIGKILL; who needs it starts another one. False if there is none now."""
        raise NotImplementedError

    def ended(self) -> dict[str, int]:
        """Agents that ended by themselves, and their status."""
        raise NotImplementedError

    # --- and what it does ---------------------------------------------------------------------------------------------

    def kill_some(self, kills: int) -> Kills:
        """Until it were so many, or nobody is busy any more."""
        agents = daemons = 0
        while agents + daemons < kills and len(self.ended_well()) < len(NAMES):
            time.sleep(self._dice.uniform(0.050, 0.110))
            name = self._dice.choice(NAMES)
            is_early = self._dice.random() < EARLY
            if self._dice.random() < 0.5:
                if (is_early or self._has_begun(name)) and self.kill_agent(name):
                    agents += 1
                    self._journals_before[name] = self._journal_bytes(name)
            elif is_early or self._serves(name):
                self._sockets_before[name] = self._socket_inode(name)
                daemons += self.kill_daemon(name)
        return Kills(agents, daemons)

    def wait_for_all(self, patience_s: float) -> None:
        """Until every agent has ended by itself."""
        deadline = time.monotonic() + patience_s
        while len(self.ended_well()) < len(NAMES):
            assert time.monotonic() < deadline, f"after {patience_s:g} s only {self.ended()} have ended"
            time.sleep(0.05)

    def ended_well(self) -> set[str]:
        for name, status in self.ended().items():
            assert status == 0, f"{name} failed: {(self.folder / f'{name}.err').read_text()[-2000:]}"
        return set(self.ended())

    def audit(self, caller: wire.Caller) -> list[str]:
        """What does not add up, by the daemons' own word."""
        accounts = {name: run(calls.running(caller, name, "audit")) for name in NAMES}
        return [f"{name}: {sentence}" for name in NAMES for sentence in accounts[name]["wrong"]]

    def journal(self, name: str) -> str:
        return str(self.folder / f"{name}.journal")

    def environment(self) -> dict[str, str]:
        return {
            **os.environ, "BACKCHANNEL_DIR": self.places.socket_dir, "BACKCHANNEL_STATE": self.places.state_dir
        }  # fmt: skip

    def _has_begun(self, name: str) -> bool:
        """Whether the agent has come to something since its start."""
        return self._journal_bytes(name) > self._journals_before.get(name, 0) + SOMETHING_BYTES

    def _serves(self, name: str) -> bool:
        """Whether the daemon is another than the one that was killed."""
        return self._socket_inode(name) != self._sockets_before.get(name)

    def _journal_bytes(self, name: str) -> int:
        try:
            return os.path.getsize(self.journal(name))
        except FileNotFoundError:
            return 0

    def _socket_inode(self, name: str) -> int:
        try:
            return os.stat(f"{self.places.sockets(name)}/{INBOX}").st_ino
        except FileNotFoundError:
            return 0


class Outcome(NamedTuple):
    history: History
    kills: Kills
    seconds: float
    wrong: list[str]  # what the audit found


class MessageStorm(Storm):
    """Each sends `count` messages to each other one. Agents and daemons are started as users start them."""

    def __init__(self, folder: Path, seed: int, count: int, *, drain_s: float) -> None:
        super().__init__(folder, seed)
        self._count = count
        self._drain_s = drain_s
        self._agents: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        others = ",".join(other for other in NAMES if other != name)
        with open(self.folder / f"{name}.err", "ab") as errors:
            self._agents[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.storm.agent", name, others, str(self._count), str(PREFETCH[name]),
                 self.journal(name)],
                cwd=ROOT, env=self.environment(), stdin=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip

    def kill_agent(self, name: str) -> bool:
        agent = self._agents[name]
        if agent.poll() is not None:
            return False
        agent.kill()
        agent.wait()
        self.start(name)
        return True

    def kill_daemon(self, name: str) -> bool:
        is_killed = False
        for pid in daemons(self.places, name):
            try:
                os.kill(pid, signal.SIGKILL)
                is_killed = True
            except ProcessLookupError:
                pass  # of two that were started it was the second, and left by itself
        return is_killed

    def ended(self) -> dict[str, int]:
        return {name: status for name, agent in self._agents.items() if (status := agent.poll()) is not None}

    def end(self) -> None:
        for agent in self._agents.values():
            agent.kill()
            agent.wait()
        for name in NAMES:
            self.kill_daemon(name)

    def blow(self, kills: int) -> Outcome:
        """Runs until everything is sent and received; the first `kills` kills of it under fire."""
        began = time.monotonic()
        try:
            for name in NAMES:
                self.start(name)
            killed = self.kill_some(kills)
            self.wait_for_all(self._drain_s)
            seconds = time.monotonic() - began
            caller = wire.Caller(None, self.places)
            history, wrong = self._collect(caller)
            caller.close()
            return Outcome(history, killed, seconds, wrong)
        finally:
            self.end()

    def _collect(self, caller: wire.Caller) -> tuple[History, list[str]]:
        counters = {name: run(calls.status(caller, name))["counters"] for name in NAMES}
        wrong = self.audit(caller)
        rows = []
        for name in NAMES:
            assert run(calls.stop(caller, name))
            rows += rows_of(self.places, name)
        journals = {name: parse(Path(self.journal(name)).read_bytes(), KINDS) for name in NAMES}
        return History(journals, rows, counters), wrong


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
