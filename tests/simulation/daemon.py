"""One agent's daemon as a process: what comes in is taken in passes, and it may die at any statement.

It does with the host what `daemon/server.py` does, in the same order: inputs, timers, `finish`, answers, errands.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from backchannel.daemon.callers import Answer, Caller
from backchannel.daemon.config import Config
from backchannel.daemon.courier import Errand
from backchannel.daemon.host import Host, StorageFailed
from backchannel.mailbox.mailbox import Mailbox
from backchannel.protocol.envelope import Peer
from backchannel.protocol.names import AgentName

from . import disk
from .truth import Violation

if TYPE_CHECKING:
    from .world import World

UID = 1000
CLOCK_AT_BOOT = 100.0
STATEMENTS_MAX = 6  # most passes write that many at most
SPINS_MAX = 100  # passes after which the next is due at once: more is a busy loop
PAGES_MAX = 1_073_741_823  # SQLite's default

decode = msgspec.json.decode


class Link(Caller):
    """A connection into a daemon, one call at a time. Whoever made it overrides the two methods."""

    __slots__ = ("call",)

    def __init__(self, *, is_control: bool = False) -> None:
        super().__init__(Peer(UID, UID, 4711), is_control=is_control)
        self.call: tuple[str, dict[str, Any]] | None = None

    def answered(self, answer: dict[str, Any], line: bytes, passed: int) -> None:
        """The daemon answered, in its pass `passed`."""

    def cut(self) -> None:
        """The daemon is gone."""


class Daemon:
    def __init__(self, world: "World", name: str, config: Config) -> None:
        self.world = world
        self.name = name
        self.config = config
        self.key = name.encode().hex().ljust(64, "0")
        self.files = disk.Files(world.folder / name)
        self.host: Host | None = None
        self.links: dict[Link, None] = {}
        self.takes: Counter[str] = Counter()  # how often each take_id was asked for
        self.claims: dict[str, tuple[Link, int]] = {}  # by what is claimed: over which connection, since which pass
        self.started = 0  # how often; names one process
        self.passes = 0  # of all its processes
        self.era = 0  # how often something was lost
        self.losses: list[tuple[int, int, bool]] = []  # passes (after, up to) that are gone; whether by a power cut
        self.free_bytes = 1 << 40
        self._snapshot_pass = 0
        self._in: list[tuple[Any, ...]] = []
        self._wake_at: float | None = None
        self._is_called = False
        self._spins = 0
        self._torn_at: int | None = None
        self._is_limited = False

    # --- its life -----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self.world.t - self.world.booted_at + CLOCK_AT_BOOT

    def start(self) -> None:
        world, c = self.world, self.config
        if self.host is not None:
            return
        world.step(f"{self.name} starts")
        world.at_work = self
        self.started += 1
        chance = Random(world.random.getrandbits(64))
        if world.faults.may("killed on the way up"):
            disk.Counting.fuse = disk.Fuse(world.random.randint(1, 4), disk.kill)
        fuse = disk.Counting.fuse
        try:
            with disk.counting():
                mailbox = Mailbox.open(
                    self.files.path,
                    now=self.now,
                    wall=world.wall,
                    boot_id=f"boot-{world.boots}",
                    random=chance.randbytes,
                    messages_max=c.messages_max,
                    bytes_max=c.bytes_max,
                    deliveries_max=c.deliveries_max,
                    detached_s=c.lease_s,
                )
        except disk.Killed:
            world.note(f"{self.name} is killed on the way up")
            world.faults.fired("killed on the way up")
            self.files.abandon()
            world.at(world.random.uniform(0.01, 2.0), self.start)
            return
        finally:
            disk.Counting.fuse = None
        assert fuse is None or not fuse.fired
        self.files.snapshot = None  # a start ends with a flush
        self.host = Host(
            AgentName(self.name),
            mailbox,
            c,
            now=self.now,
            uid=UID,
            key_of=world.key_of,
            is_model_driven=world.is_model_driven,
            registered=world.registered,
            random=chance.randbytes,
            free_bytes=lambda: self.free_bytes,
        )
        world.checks.after_start(self)
        self._call()

    def stop(self) -> None:
        """SIGTERM: what is under way is cut, the file is closed in order."""
        if self.host is not None:
            self.world.note(f"{self.name} stops")
            self.host.mailbox.close(self.world.wall, self.now)
            self._gone()
            self.files.abandon()  # a statement that Python has not let go of may still hold it
            self.files.snapshot = None

    def die(self, why: str) -> None:
        """SIGKILL, or the like: the files are as they are at this instant."""
        if self.host is not None:
            self.world.note(f"{self.name} dies: {why}")
            db = self.host.mailbox.db
            self._gone()
            self.files.abandon(db, torn_at=self._torn_at)
            self._torn_at = None

    def cut_power(self, *, loses: bool) -> None:
        """The machine went dark. `loses`: what no flush brought to the disk is gone."""
        self.die("power cut")
        if loses and self.files.snapshot is not None:
            self.files.go_back()
            self._lost(self._snapshot_pass, by_power=True)

    def lose_database(self) -> None:
        self.die("its file is being removed")
        self.files.snapshot = None
        self.files.lose()
        self._lost(-1, by_power=False)

    def is_lost(self, passed: int, *, was_flushed: bool = False) -> bool:
        """Whether what was promised in that pass went down with the disk. What was flushed survives a power cut."""
        return any(after < passed <= upto and not (was_flushed and by_power) for after, upto, by_power in self.losses)

    @property
    def has_snapshot(self) -> bool:
        return self.files.snapshot is not None

    def _lost(self, after: int, *, by_power: bool) -> None:
        self.world.note(f"{self.name} lost its passes {after + 1} to {self.passes}")
        self.losses.append((after, self.passes, by_power))
        self.era += 1
        self.world.truth.disturb(self.name)

    def _gone(self) -> None:
        self.host = None
        self._in.clear()
        self._wake_at = None
        links, self.links = self.links, {}
        for link in links:
            link.cut()

    # --- what comes in ------------------------------------------------------------------------------------------------

    def receive(self, link: Link, line: bytes) -> bool:
        """A request; False if nobody is there to read it."""
        if self.host is None:
            return False
        request = decode(line)
        assert link.call is None
        link.call = (request["method"], request["params"])
        if request["method"] == "take":
            self.takes[request["params"]["take_id"]] += 1
        self.links[link] = None
        self._in.append(("request", link, line))
        self._call()
        return True

    def hang_up(self, link: Link) -> None:
        if self.host is not None and self.links.pop(link, 0) is None and (link.is_control or link.call):
            self._in.append(("closed", link))
            self._call()

    def errand_done(self, started: int, errand: Errand, line: bytes, why: str, is_final: bool = False) -> None:
        if self.host is not None and self.started == started:
            self._in.append(("errand", errand, line, why, is_final))
            self._call()

    def _call(self) -> None:
        """A pass is due soon; what comes until then is taken in it too."""
        if not self._is_called:
            self._is_called = True
            self.world.at(self.world.random.choice((0.0, 0.0, 0.0005, 0.02)), self._pass)

    # --- a pass -------------------------------------------------------------------------------------------------------

    def _pass(self) -> None:
        self._is_called = False
        if self.host is None:
            return
        self.passes += 1
        self.world.at_work = self
        self.world.endpoint_at_work = self.host.sessions.endpoint
        host, faults = self.host, self.world.faults
        fuse = self._fuse(host)
        try:
            self._take_in(host)
            answers = host.finish(self.now, self.world.wall)
        except disk.Killed:
            self.die(f"killed at {fuse.fired if fuse else '?'}")
            self._start_again()
            return
        except StorageFailed as failed:
            if fuse is None or not fuse.fired:
                raise Violation(f"{self.name}: the disk is said to have failed: {failed}") from failed
            self.die("the disk failed, status 74")
            self._start_again()
            return
        finally:
            if isinstance(host.mailbox.db, disk.Counting):
                host.mailbox.db.fuse = None
        if self._is_limited and host._own_retry is not None:
            faults.fired("disk full for real")
        if faults.strikes("killed after the commit"):
            self.die("killed after the commit")
            self._start_again()
            return
        if len(answers) > 1 and faults.strikes("killed between answers"):
            self._route(host, answers[: self.world.random.randrange(1, len(answers))])
            self.die("killed between answers")
            self._start_again()
            return
        self._route(host, answers)
        self.world.checks.after_pass(self, is_deep=bool(fuse is not None and fuse.fired))
        if self.host is host:
            self._send_couriers(host)
            self._meet_fate(host)
        if self.host is host:
            self._sleep(host)

    def _take_in(self, host: Host) -> None:
        wall = self.world.wall
        inputs, self._in = self._in, []
        for what, *given in inputs:
            if what == "request":
                link, line = given
                self.world.step(f"{self.name} <- {line.decode()}")
                host.receive(link, line, self.now, wall)
            elif what == "closed":
                self.world.step(f"{self.name}: a connection closes")
                host.closed(given[0], self.now, wall)
            else:
                errand, line, why, is_final = given
                self.world.step(f"{self.name}: an errand to {errand.target} is back: {why or line.decode()}")
                if why:
                    host.errand_failed(errand, why, self.now, wall, is_final=is_final)
                else:
                    host.errand_answered(errand, line, self.now, wall)
        deadline = host.deadline
        if deadline is not None and deadline <= self.now:
            self.world.step(f"{self.name}: a timer")
            host.handle_timer(self.now, wall)

    def _fuse(self, host: Host) -> disk.Fuse | None:
        """What will go wrong on the disk in this pass."""
        faults, chance = self.world.faults, self.world.random
        if not faults.is_on:
            return None
        left = chance.randint(1, STATEMENTS_MAX)
        fuse: disk.Fuse | None = None
        fuses: tuple[tuple[str, Callable[[], disk.Fuse]], ...] = (
            ("killed in a pass", lambda: disk.Fuse(left, disk.kill)),
            ("killed at the commit", lambda: disk.Fuse(chance.choice((1, 1, 2)), disk.kill, only="COMMIT")),
            ("killed while committing", lambda: disk.Fuse(1, partial(self._tear, host), only="COMMIT")),
            ("disk full", lambda: disk.Fuse(left, disk.is_full)),
            ("disk full, rolled back", lambda: disk.Fuse(left, disk.is_full_and_rolls_back)),
            ("disk full for all", lambda: disk.Fuse(left, disk.is_full, sticky=True)),
            ("disk fails", lambda: disk.Fuse(left, disk.fails)),
        )
        for point, make in fuses:
            if faults.may(point):
                fuse = make()
                fuse.on_fire = partial(self._burnt, point)
                break
        assert isinstance(host.mailbox.db, disk.Counting)
        host.mailbox.db.fuse = fuse
        return fuse

    def _burnt(self, point: str) -> None:
        self.world.faults.fired(point)
        self.world.note(f"{self.name}: {point}")

    def _tear(self, host: Host, db: sqlite3.Connection, _statement: str) -> None:
        before = self.files.wal_bytes()
        sqlite3.Cursor(db).execute("COMMIT")
        after = self.files.wal_bytes()
        if after > before:  # else the log was begun anew, and its size tells nothing
            self._torn_at = self.world.random.randrange(before, after)
        raise disk.Killed

    def _route(self, host: Host, answers: list[Answer]) -> None:
        for answer in answers:
            link = answer.caller
            assert isinstance(link, Link)
            link.pending -= 1
            if answer.after_flush:
                self.files.snapshot = None
            if link not in self.links:  # it hung up; nobody reads this
                if link.call is not None and link.call[0] == "commit":
                    self.world.checks.commit_forgotten(self, link.call[1])
                if link.call is not None and link.call[0] == "claim":  # it took the place of an older one, and fell
                    self.claims.pop(link.call[1].get("session") or link.call[1]["reply_to"], None)
                continue
            if link.pending or link.call is None:
                raise Violation(f"{self.name}: a connection with all answers out counts {link.pending} as pending")
            (method, params), link.call = link.call, None
            if not link.is_control:
                del self.links[link]
            said = decode(answer.line)
            self.world.note_line(f"{self.name} -> ", answer.line)
            self.world.truth.answered(self, link, method, params, said)
            if method == "commit":
                self.world.checks.commit_answered(self, params, well="result" in said)
            link.answered(said, answer.line, self.passes)
            if self.host is not host:
                return

    def _send_couriers(self, host: Host) -> None:
        deadline = host.courier.deadline
        if deadline is None or deadline > self.now:
            return
        for errand in host.courier.due(self.now):
            if why := self.world.obstacle(errand.target):
                is_final = errand.target not in self.world.registered()
                host.errand_failed(errand, why, self.now, self.world.wall, is_final=is_final)
                self.world.note(f"{self.name}: {errand.target} cannot be reached: {why}")
                if is_final:
                    self._call()
            else:
                self.world.carry(errand.target, errand.line, partial(self._carried, self.started, errand))
        host.courier.to_report(self.now)

    def _carried(self, started: int, errand: Errand, line: bytes, why: str) -> None:
        self.errand_done(started, errand, line, why)

    def _meet_fate(self, host: Host) -> None:
        """What befalls a daemon between its passes."""
        faults, chance, world = self.world.faults, self.world.random, self.world
        if not faults.is_on:
            return
        if chance.random() < 0.1:
            self.files.take_snapshot()
            self._snapshot_pass = self.passes
        if faults.strikes("log moved into the file"):
            self.files.snapshot = None
            try:
                host.mailbox.checkpoint()
            except sqlite3.Error:
                if not self._is_limited:
                    raise
        if faults.strikes("reserve used up"):
            self.free_bytes = 1 << 20
            world.at(chance.uniform(0.1, 5.0), self.find_room)
        if faults.may("disk full for real"):
            pages = host.mailbox.db.execute("PRAGMA page_count").fetchone()[0]
            host.mailbox.db.execute(f"PRAGMA max_page_count={pages}").fetchone()
            self._is_limited = True
            world.at(chance.uniform(0.1, 5.0), self.find_room)
        if faults.strikes("stopped"):
            self.stop()
            self._start_again()
        world.meet_fate(self)

    def find_room(self) -> None:
        """Somebody cleared the disk."""
        self.free_bytes = 1 << 40
        if self._is_limited and self.host is not None:
            self.host.mailbox.db.execute(f"PRAGMA max_page_count={PAGES_MAX}").fetchone()
        self._is_limited = False

    def _start_again(self) -> None:
        self.world.at(self.world.random.choice((0.01, 0.2, 1.0, 6.0, 40.0)), self.start)

    def _sleep(self, host: Host) -> None:
        deadlines = [at for at in (host.deadline, host.courier.deadline) if at is not None]
        if not deadlines:
            self._wake_at = None
            return
        pause = min(deadlines) - self.now
        at = self.world.t + (pause + 1e-6 if pause > 0 else 0.0)  # never a rounding too early
        self._spins = self._spins + 1 if pause <= 0 else 0
        if self._spins > SPINS_MAX:
            raise Violation(f"{self.name} runs in circles: its deadline is now, whatever it does")
        if self._wake_at is None or at < self._wake_at or self._wake_at <= self.world.t:
            self._wake_at = at
            self.world.at(at - self.world.t, partial(self._wake, self.started, at))

    def _wake(self, started: int, at: float) -> None:
        if self.started == started and self._wake_at == at and self.host is not None:
            self._wake_at = None
            self._call()
