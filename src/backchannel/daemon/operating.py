"""What whoever runs an agent asks of its daemon: is it well, how is it doing.

Nothing here touches mail. `check` measures what a receipt rests on by doing it: one small row is written and committed
as a message would be. It is nobody's message, so no agent is woken and no count moves.
"""

from typing import TYPE_CHECKING

from .. import __version__
from ..errors import BackchannelError, LocalProtocolError, OverLimit
from ..mailbox.audit import audit
from ..mailbox.backup import Copied, Copying, default_path
from ..mailbox.database import VERSION
from ..mailbox.mailbox import Handed
from ..protocol import frame
from .callers import Answer, Caller
from .histogram import Histogram

if TYPE_CHECKING:
    from .host import Host


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
        self._copying: tuple[Copying, Caller, bytes, float] | None = None
        self.to_start: Copying | None = None  # a backup that the loop is to run beside itself

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
