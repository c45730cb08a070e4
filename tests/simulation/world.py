"""The machine: a clock, links between daemons, and what befalls all of them; first unkind, then kind.

Nothing waits and nothing is asynchronous: what happens next lies in a heap by its time, and the seed decided it.
A step is one input that a host took: a request, an errand's outcome, a closed connection, a due timer, or a start.
"""

import shutil
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from backchannel.daemon.config import Config
from backchannel.daemon.courier import RETRY_MAX_S
from backchannel.errors import OverLimit
from backchannel.protocol import frame, sendqueue, session
from backchannel.protocol.timers import KEEPALIVE

from . import disk
from .agents import LOOK_S, Agent
from .daemon import Daemon, Link
from .faults import Faults
from .invariants import Checks
from .truth import Truth, Violation

WALL = 1_700_000_000.0
NAMES = ("analyst", "executor", "writer")
GHOST = "ghost"  # a registered name whose daemon never runs, and which may be removed
ERRAND_S = 10.0
OLD_COPY_S = 600.0
WINDOW = 5  # instead of 1,000, so that it is ever full
LEASE_S = 20.0
STEPS = 200

LIVENESS_S = OLD_COPY_S + KEEPALIVE + 120.0 + 3 * 1.5 * RETRY_MAX_S + LEASE_S + 2 * LOOK_S
"""Until all must have ended once everybody is willing. An end whose peer lost the session, and that itself has nothing
to send, learns it from the keepalive only (600 s), which the last old copy of what the peer said puts off. Then the
issue's 120 s, three full pauses of the courier one behind the other (of the target, of the frame under way, of the
PROBE that sets the rest free), a detached lease, and twice the time after which an agent looks for what to close."""


class World:
    def __init__(self, seed: int, *, steps: int = STEPS, tells: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.steps_max = steps
        self.steps = 0
        self.t = 0.0
        self.booted_at = 0.0
        self.boots = 1
        self.wall_jump = 0.0
        self.wall_slack = 0.0  # by how much times may be wrong because of such jumps
        self.named = 0
        self.requests = 0
        self.under_way = 0
        self.old_copies = 0  # that have not arrived yet
        self.digest = blake2b(digest_size=16)
        self.liveness_s = 0.0
        self._tells = tells
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self.folder = Path(disk.folder())
        self.faults = Faults(self.random)
        self.truth = Truth(self)
        self.checks = Checks(self)
        self._ghost_is_there = True
        names = NAMES[: self.random.choice((2, 2, 3))]
        self.daemons = {name: Daemon(self, name, self._config(name)) for name in names}
        self.at_work = self.daemons[names[0]]  # whose process is running now
        self.endpoint_at_work: object = None
        self.agents = {name: Agent(self, name) for name in names}

    def _config(self, name: str) -> Config:
        settings: dict[str, Any] = {"lease_s": LEASE_S}
        if self.random.random() < 0.25:
            settings["messages_max"] = self.random.choice((4, 12))
        if self.random.random() < 0.15:
            settings["driven_by"] = "model"
        if self.random.random() < 0.15:
            settings["durability"] = "power"
        return Config(settings)

    # --- the two phases -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Both phases. Raises `Violation`."""
        window = sendqueue.WINDOW
        sendqueue.WINDOW = session.WINDOW = WINDOW  # type: ignore[attr-defined]
        try:
            self._be_unkind()
            self._be_kind()
            self.checks.at_rest()
            if self.old_copies:
                self._let_old_copies_come()
                self.checks.at_rest()
        finally:
            sendqueue.WINDOW = session.WINDOW = window  # type: ignore[attr-defined]
            self.close()

    def _be_unkind(self) -> None:
        for daemon in self.daemons.values():
            daemon.start()
        for agent in self.agents.values():
            agent.begin()
        while self.steps < self.steps_max and self._next():
            pass

    def _be_kind(self) -> None:
        self.note("--- faults stop ---")
        self.faults.is_on = False
        self._ghost_is_there = False
        began = self.t
        for daemon in self.daemons.values():
            daemon.find_room()
            daemon.start()
        for agent in self.agents.values():
            agent.turn_willing()
        self._come_to_rest()
        self.liveness_s = self.t - began

    def _let_old_copies_come(self) -> None:
        """What the links still hold of old may arrive for the first time: then that too comes to its end."""
        self.note("--- old copies come ---")
        while self.old_copies and self._next():
            pass
        self._come_to_rest()

    def _come_to_rest(self) -> None:
        look_at, until = self.t, self.t + LIVENESS_S
        while True:
            if self.t >= look_at:
                if not self.checks.unrest():
                    return
                look_at = self.t + 0.2
            if self.t > until:
                raise Violation(f"no rest after {LIVENESS_S:.0f} s: {'; '.join(self.checks.unrest())} (liveness)")
            if not self._next():
                raise Violation(f"nothing happens any more, but {'; '.join(self.checks.unrest())} (liveness)")

    def close(self) -> None:
        for daemon in self.daemons.values():
            if daemon.host is not None:
                daemon.host.mailbox.db.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- time and the trace -------------------------------------------------------------------------------------------

    def at(self, delay: float, action: Callable[[], object]) -> None:
        heappush(self._events, (self.t + delay, next(self._order), action))

    def _next(self) -> bool:
        if not self._events:
            return False
        self.t, _, action = heappop(self._events)
        action()
        return True

    @property
    def wall(self) -> float:
        return WALL + self.t + self.wall_jump

    def step(self, what: str) -> None:
        self.steps += 1
        self.note(what)

    def note(self, what: str) -> None:
        self.digest.update(b"%f" % self.t + what.encode())
        if self._tells is not None:
            self._tells(f"{self.t:10.4f}  {what}")

    def note_line(self, what: str, line: bytes) -> None:
        line = line.replace(disk.OWN_PID, b"")
        self.digest.update(line)
        if self._tells is not None:
            self._tells(f"{self.t:10.4f}  {what}{line.decode().rstrip()}")

    # --- who is there -------------------------------------------------------------------------------------------------

    def registered(self) -> list[str]:
        return sorted([*self.daemons, *([GHOST] if self._ghost_is_there else [])])

    def key_of(self, name: str) -> str | None:
        daemon = self.daemons.get(name)
        return daemon.key if daemon is not None else None

    def is_model_driven(self, name: str) -> bool:
        daemon = self.daemons.get(name)
        return daemon is not None and daemon.config.driven_by == "model"

    def addressees(self, name: str, *, itself: bool = True) -> list[str]:
        """To whom an agent may write; the likelier ones several times."""
        others = [other for other in self.daemons if other != name] * 6
        return [*others, *([name] if itself else []), *([GHOST] if self._ghost_is_there else [])]

    def obstacle(self, target: str) -> str:
        """Why no connection to it can be made now, or ""."""
        daemon = self.daemons.get(target)
        if daemon is None or daemon.host is None:
            return "nobody there"
        return "connection refused" if self.faults.strikes("connection refused") else ""

    # --- links --------------------------------------------------------------------------------------------------------

    def carry(self, target: str, line: bytes, done: Callable[[bytes, str], None]) -> None:
        """Takes a line to a daemon's inbox. `done` is called once, with the answer or with why there is none."""
        Trip(self, self.daemons[target], line, done)

    # --- what befalls everybody ---------------------------------------------------------------------------------------

    def meet_fate(self, daemon: Daemon) -> None:
        faults = self.faults
        if faults.strikes("wall clock jumps"):
            self.wall_jump = self.random.uniform(-50.0, 50.0)
            self.wall_slack = 200.0
        if self._ghost_is_there and faults.strikes("agent removed"):
            self._ghost_is_there = False
            self.note("the ghost is removed")
        if faults.strikes("database lost"):
            daemon.lose_database()
            self.at(self.random.choice((0.01, 1.0, 40.0)), daemon.start)
        elif faults.strikes("reboot"):
            self._go_down(lambda d: d.stop())
        elif faults.strikes("power cut"):
            self._go_down(lambda d: d.cut_power(loses=False))
        elif any(d.has_snapshot for d in self.daemons.values()) and faults.strikes("power cut, commits lost"):
            self._go_down(lambda d: d.cut_power(loses=True))

    def _go_down(self, how: Callable[[Daemon], None]) -> None:
        for agent in self.agents.values():
            for process in list(agent.processes):
                process.die()
        for daemon in self.daemons.values():
            how(daemon)
        self.boots += 1
        self.booted_at = self.t + self.random.choice((0.5, 30.0))
        for daemon in self.daemons.values():
            self.at(self.booted_at - self.t + self.random.choice((0.1, 3.0)), daemon.start)


class Trip(Link):
    """One line on its way to an inbox, and its answer on the way back."""

    __slots__ = ("_daemon", "_done", "_line", "_world")

    def __init__(self, world: World, daemon: Daemon, line: bytes, done: Callable[[bytes, str], None] | None) -> None:
        super().__init__()
        self._world = world
        self._daemon = daemon
        self._line = line
        self._done = done
        if done is None:
            return
        world.under_way += 1
        faults, chance = world.faults, world.random
        if faults.strikes("request repeated"):
            old = Trip(world, daemon, line, None)
            world.old_copies += 1
            world.at(chance.choice((0.001, 0.1, 5.0, 60.0, OLD_COPY_S)) * chance.random(), old._arrive_again)
        if faults.strikes("request lost"):
            world.at(0.001, partial(self._end, b"", "it closed the connection"))
        elif faults.strikes("request hangs"):
            world.at(ERRAND_S, partial(self._end, b"", "it did not answer in time"))
        elif faults.strikes("busy"):
            world.at(0.001, partial(self._end, BUSY, ""))
        elif faults.strikes("request late"):
            world.at(chance.uniform(0.5, 15.0), self._arrive)
            world.at(ERRAND_S, self._lose_patience)
        else:
            world.at(chance.uniform(0.0002, 0.003), self._arrive)

    def _arrive(self) -> None:
        if not self._daemon.receive(self, self._line):
            self._end(b"", "it closed the connection")

    def _arrive_again(self) -> None:
        self._world.old_copies -= 1
        self._daemon.receive(self, self._line)

    def _lose_patience(self) -> None:
        self._daemon.hang_up(self)
        self._end(b"", "it did not answer in time")

    def answered(self, answer: dict[str, Any], line: bytes, passed: int) -> None:
        faults, chance = self._world.faults, self._world.random
        if self._done is None:
            return
        if faults.strikes("answer lost"):
            self._world.at(0.001, partial(self._end, b"", "it closed the connection"))
        elif faults.strikes("answer late"):
            self._world.at(chance.uniform(0.5, 9.0), partial(self._end, line, ""))
        else:
            self._world.at(chance.uniform(0.0002, 0.003), partial(self._end, line, ""))

    def cut(self) -> None:
        self._world.at(0.001, partial(self._end, b"", "it closed the connection"))

    def _end(self, line: bytes, why: str) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._world.under_way -= 1
            done(line, why)


BUSY = frame.answer_error(b"1", OverLimit("no place is free", code="busy", hint="try again", retry=True))
