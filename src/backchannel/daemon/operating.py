"""What whoever runs an agent asks of its daemon: is it well, how is it doing; and what keeps its file in bounds.

Nothing here touches mail that is not over. `check` measures what a receipt rests on by doing it: one small row is
written and committed as a message would be. It is nobody's message, so no agent is woken and no count moves.
"""

import sqlite3
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import BackchannelError, LocalProtocolError, OverLimit
from ..mailbox import purge
from ..mailbox.audit import audit
from ..mailbox.backup import Copied, Copying, default_path
from ..mailbox.database import VERSION, release_memory
from ..mailbox.mailbox import Handed
from ..protocol import frame
from ..protocol.codec import INTEGER_MAX
from .callers import Answer, Caller
from .histogram import Histogram

if TYPE_CHECKING:
    from .host import Host

FIRST_LOOK_S = 30.0  # after a start there is other work
LOOK_S = 600.0  # whether the history has grown too large
SWEEP_S = 86400.0  # through all that may have become too old: a day does not matter to a month
IN_VAIN_S = 3600.0  # after one that could not make enough room: what is left may not leave yet
STEP_S = 0.1  # between two steps of a millisecond or two
PURGES_SHOWN = 100
SERIALIZED = 3  # of `sqlite3.threadsafety`: threads may share a connection


class Operating:
    """These methods, bound to their host."""

    def __init__(self, host: "Host", now: float) -> None:
        self._host = host
        self._began = now
        self.commits = Histogram()  # from waking up with the requests until they were committed; the loop observes it
        self.queued = Histogram()  # in our outbox, until the target's daemon had it
        self.waited = Histogram()  # from stored to taken, each time
        self.handled = Histogram()  # from taken to the agent's word: acked, done or rejected

        self.auditors: list[tuple[Caller, bytes]] = []  # who asked in this pass, and the ids of their requests
        self.next_clearing = now + FIRST_LOOK_S  # when retention has something to do
        self._clock: tuple[float, float] | None = None  # (wall, now) at the first look
        self._sweep: Sweep | None = None
        self._next_sweep = 0.0  # by age; seconds since boot
        self._next_for_room = 0.0
        self._copying: tuple[Copying, Caller, bytes, float] | None = None
        self.to_start: Copying | None = None  # a backup that the loop is to run beside itself

    @property
    def is_under_way(self) -> bool:
        """Whether a sweep or a copy has begun and not ended: it would begin anew after a restart."""
        return self._sweep is not None or self._copying is not None

    def handed_out(self, handed: list[Handed], wall: float) -> None:
        """Messages leave for the agent now."""
        for one in handed:
            leased = self._host.mailbox.leased.get(one.msg_no)
            if leased is not None and one.stored_at is not None:
                self.waited.observe(wall - one.stored_at)
                leased.taken_at = wall

    def settled(self, msg_no: int, wall: float) -> None:
        """The agent has its word on a message."""
        leased = self._host.mailbox.leased.get(msg_no)
        if leased is not None and leased.taken_at is not None:
            self.handled.observe(wall - leased.taken_at)

    def check(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> None:
        """One commit, and with `flush` one flush: what `stored` costs here, at both levels."""
        params: frame.Check = frame.parse(frame.Check, request)
        self._host.mailbox.note("checked_at", wall)
        line = frame.answer(request_id, {"agent": self._host.name, "flushed": params.flush})
        self._host.staged.append(Answer(caller, line, after_flush=params.flush))

    def audit(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> None:
        """Answered by `answer_audits`: within a pass the rows of sessions are behind what has happened to them."""
        self.auditors.append((caller, request_id))

    def answer_audits(self, answers: list[Answer]) -> None:
        """Counts every row, as they are committed; nothing else is done meanwhile."""
        host = self._host
        found = audit(host.mailbox, host.sessions.store, host.outbox, host.sessions.frames, is_whole=False)
        answers += [Answer(c, frame.answer(number, {"agent": host.name, **found})) for c, number in self.auditors]
        self.auditors.clear()

    def metrics(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        host = self._host
        mailbox = host.mailbox
        return frame.answer(
            request_id,
            {
                "agent": host.name,
                "version": __version__,
                "started_at": wall - (now - self._began),
                "counters": mailbox.counters.sums(),
                "oldest_unacked": mailbox.oldest_unacked(),
                "durations": {
                    "queued": self.queued.shown(),
                    "waited": self.waited.shown(),
                    "handled": self.handled.shown(),
                    "committed": self.commits.shown(),
                },
                "sessions": host.sessions.by_state(),
                "session_counters": host.sessions.store.counters(),
                "refused": host.refusals,
                "outbox": len(host.outbox) + len(host.sessions.frames),
                "unreachable": len(host.courier.unreachable(now)),
                "commits": mailbox.commits,
                "receiving": host.is_receiving,
                "paused": mailbox.paused,
                "schema": VERSION,
                "file_bytes": mailbox.file_bytes,
                "wal_bytes": mailbox.wal_bytes,
                "free_bytes": host.free_bytes(),
            },
        )

    # --- backup -------------------------------------------------------------------------------------------------------

    def backup(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> None:
        """Answered by `copied`, when the loop has run it."""
        params: frame.Backup = frame.parse(frame.Backup, request)
        mailbox = self._host.mailbox
        if sqlite3.threadsafety != SERIALIZED:
            raise BackchannelError(
                "this Python's SQLite cannot copy beside its work",
                code="storage",
                hint=f"backchannel down {self._host.name}, then again",
            )
        if self._copying is not None:
            raise OverLimit(
                f"a backup of {self._host.name} is under way already", code="busy", hint="wait for it", retry=True
            )
        path = params.path if params.path is not None else default_path(mailbox.path, self._host.name, wall)
        if not path.startswith("/") or "\0" in path or path.endswith("/"):
            raise LocalProtocolError(f"path {path!a} is out of range", code="bad_params", hint="an absolute path")
        copying = Copying(mailbox.db, path, reserve_bytes=self._host.config.reserve_bytes)
        self._copying = (copying, caller, request_id, now)
        self.to_start = copying

    def forget_new(self) -> list[Caller]:
        """The pass failed: who asked for an audit or a backup in it will ask anew."""
        new_ones = [caller for caller, _ in self.auditors]
        self.auditors.clear()
        if self._copying is not None and self.to_start is not None:
            new_ones.append(self._copying[1])
            self._copying = self.to_start = None
        return new_ones

    @property
    def copying(self) -> Copying | None:
        """The backup under way."""
        return self._copying[0] if self._copying is not None else None

    def copied(self, outcome: Copied | BackchannelError, now: float) -> Answer:
        """A backup ended; who asked is told."""
        assert self._copying is not None
        _, caller, request_id, began = self._copying
        self._copying = None
        if isinstance(outcome, BackchannelError):
            return Answer(caller, frame.answer_error(request_id, outcome))
        answer = {"agent": self._host.name, "path": outcome.path, "bytes": outcome.bytes}
        answer |= {"mailbox_id": self._host.mailbox.mailbox_id, "seconds": round(now - began, 3)}
        return Answer(caller, frame.answer(request_id, answer))

    # --- purge --------------------------------------------------------------------------------------------------------

    def purge(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        """One step, so that nobody waits long for it; who asks comes back with `next`."""
        params: frame.Purge = frame.parse(frame.Purge, request)
        if not 0 <= params.older_than <= wall or not 0 <= params.keep <= INTEGER_MAX or params.after < 0:
            raise LocalProtocolError(
                f"older_than {params.older_than:.0f}, keep {params.keep} or after {params.after} is out of range",
                code="bad_params",
                hint=f"use 0 or more, and of older_than no more than since 1970: {wall:.0f}",
            )
        mailbox = self._host.mailbox
        wanted = purge.Wanted(wall - params.older_than, params.keep)
        if params.dry_run:
            done, purge_no = purge.count(mailbox, wanted, params.after + 1, wall), None
        else:
            done = purge.step(mailbox, wanted, params.after + 1, wall)
            purge_no = purge.note(mailbox, params.purge_no, f"@{caller.peer.uid}", wanted, done, wall)
        answer = {"contents": done.contents, "bytes": done.bytes, "rows": done.rows, "purge_no": purge_no}
        return frame.answer(request_id, answer | {"next": None if done.next is None else done.next - 1})

    def purges(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        return frame.answer(request_id, {"purges": purge.records(self._host.mailbox, PURGES_SHOWN)})

    def clear_up(self, now: float, wall: float) -> None:
        """What the settings say about the history, one step at a time. The caller commits, and calls again when
        `next_clearing` has come."""
        self._clock = self._clock or (wall, now)
        # By the clock as it was first read: one that jumps while the daemon lives makes nothing older.
        steady = self._clock[0] + now - self._clock[1]
        mailbox, config = self._host.mailbox, self._host.config
        self.next_clearing = now + LOOK_S  # should the disk be full
        if self._sweep is None:
            self._sweep = self._due(now, steady)
            if self._sweep is None:
                release_memory(mailbox.db)  # of an idle one nothing else would, until its next checkpoint
                return
        sweep = self._sweep
        done = purge.step(mailbox, sweep.wanted, sweep.begin, steady)
        sweep.purge_no = purge.note(mailbox, sweep.purge_no, "retention", sweep.wanted, done, wall)
        is_enough = sweep.is_for_room and purge.finished_bytes(mailbox) <= config.history_bytes_max
        if done.next is None or is_enough:
            self._sweep = None
            if sweep.is_for_room and not is_enough:
                self._next_for_room = now + IN_VAIN_S
            return
        sweep.begin = done.next
        self.next_clearing = now + STEP_S

    def _due(self, now: float, steady: float) -> "Sweep | None":
        """What there is to clear up: too much, or what is too old."""
        mailbox, config = self._host.mailbox, self._host.config
        is_limited = bool(config.history_bytes_max) and self._next_for_room <= now
        if is_limited and purge.finished_bytes(mailbox) > config.history_bytes_max:
            return Sweep(purge.Wanted(steady), is_for_room=True)
        oldest = purge.oldest_stored(mailbox)
        before = steady - config.history_s
        if config.history_s and oldest is not None and oldest < before and self._next_sweep <= now:
            self._next_sweep = now + SWEEP_S
            return Sweep(purge.Wanted(before), is_for_room=False)
        return None


class Sweep:
    """A way through the mailbox, from its oldest message on."""

    def __init__(self, wanted: purge.Wanted, *, is_for_room: bool) -> None:
        self.wanted = wanted
        self.is_for_room = is_for_room
        self.begin = 1
        self.purge_no: int | None = None
