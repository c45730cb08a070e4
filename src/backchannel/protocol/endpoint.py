"""All sessions of one agent: who gets a frame, and what is known beyond a single session.

That is: the SYN numbers (which offers are new), the bounds (how many offers may wait), the tombstones, and
which sessions must be saved. The host's pass is always the same, and one transaction:

    effects = endpoint.receive(...)          any number of calls: carry out their effects as rows
    changes = endpoint.changes()             write what it holds, COMMIT
    sayings = endpoint.committed(changes.pass_number, now)      only now: answers and frames leave

It decides nothing about a session's course; `session.py` does.
"""

from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from backchannel.errors import LocalProtocolError
from backchannel.protocol.effects import Answer, Effect, Forget, Leave, Saying, Strike
from backchannel.protocol.session import Local, Session, Snapshot
from backchannel.protocol.sessionframe import Data, Limits, Rst, SessionFrame, Syn, SynNumber
from backchannel.protocol.states import Outcome, State
from backchannel.protocol.synnumbers import SynNumbers

OFFERS_PER_PEER = 32
"""Offers of one peer that may wait for our agent: what a person could still look through."""
OFFERS = 256
"""Offers of all peers together."""
TOMBSTONES = 10_000
"""Closed sessions kept for people to look up; the oldest go first."""
MAILBOXES = 4_096
"""Peers' mailboxes, and epochs of them, whose SYN numbers are kept; the one longest silent goes first."""


class EndpointSnapshot(Struct, frozen=True):
    """What outlives the single session: our own next SYN number, and those seen of each peer's mailbox."""

    next_number: int = 1
    numbers: tuple[tuple[tuple[str, int], SynNumbers], ...] = ()
    """By mailbox and epoch."""


class Changes(Struct, frozen=True):
    """What one pass has to write in its transaction. `endpoint` is None when it is as it was."""

    pass_number: int
    sessions: tuple[Snapshot, ...]
    endpoint: EndpointSnapshot | None


class Endpoint:
    def __init__(self, local: Local, snapshot: EndpointSnapshot | None = None) -> None:
        saved = snapshot or EndpointSnapshot()
        self.local = local
        self._next_number = saved.next_number
        self._numbers = dict(saved.numbers)
        self._unsaved = False
        self._sessions: dict[str, Session] = {}
        self._offers: dict[str, str] = {}  # session -> peer
        self._tombstones: dict[str, None] = {}  # in the order of their ends
        self._touched: list[Session] = []  # in this pass; ones that only answer, or were forgotten, among them
        self._pass_number = 0
        self._uncommitted: deque[tuple[int, list[tuple[Session, int]]]] = deque()
        self._timers: list[tuple[float, str]] = []  # a heap
        self._wakes: dict[str, float] = {}  # each session's earliest entry in it

    @classmethod
    def restore(
        cls,
        local: Local,
        snapshot: EndpointSnapshot | None,
        sessions: Iterable[Snapshot],
        now: float,
        *,
        shift: float = 0.0,
    ) -> "Endpoint":
        """The endpoint as it was saved; open sessions are about to PROBE. For `shift` see `Session.restore`."""
        endpoint = cls(local, snapshot)
        for saved in sessions:
            endpoint._keep(Session.restore(local, saved, now, shift=shift))
        if not shift:
            endpoint._touched.clear()  # after a boot, all are to be saved by the new clock
        return endpoint

    # -- the own agent ---------------------------------------------------------------------------------------

    def open(self, session_id: str, peer: str, task: str, limits: Limits, now: float) -> list[Effect]:
        """Offer `peer` a new session. `session_id` is random and never used before."""
        if session_id in self._sessions:
            raise LocalProtocolError(
                f"session {session_id} exists", code="session_state", hint="open one with a new id"
            )
        session = Session(self.local, Snapshot(session_id, peer))
        number = SynNumber(self.local.epoch, self._next_number)
        self._next_number += 1
        self._unsaved = True
        effects = session.open(number, task, limits, now)
        return effects + self._keep(session)

    def accept(self, session_id: str, now: float, limits: Limits | None = None) -> list[Effect]:
        session = self.session(session_id)
        return session.accept(now, limits) + self._keep(session)

    def reject(self, session_id: str, reason: str, now: float, retry_after: float | None = None) -> list[Effect]:
        session = self.session(session_id)
        return session.reject(reason, now, retry_after) + self._keep(session)

    def send(self, session_id: str, body: str, now: float, *, input_required: bool = False) -> list[Effect]:
        session = self.session(session_id)
        return session.send(body, now, input_required=input_required) + self._keep(session)

    def close(self, session_id: str, now: float, status: str = "ok", result: str = "") -> list[Effect]:
        session = self.session(session_id)
        return session.close(now, status, result) + self._keep(session)

    def ack(self, session_id: str, seq: int, now: float) -> list[Effect]:
        """As `Session.ack`. Mail may outlive the tombstone of its session; then only the mailbox settles it."""
        if session_id not in self._sessions:
            return []
        session = self.session(session_id)
        return session.ack(seq, now) + self._keep(session)

    def abort(self, session_id: str, reason: str, now: float) -> list[Effect]:
        session = self.session(session_id)
        return session.abort(reason, now) + self._keep(session)

    def fail(self, session_id: str, reason: str, now: float) -> list[Effect]:
        """As `Session.fail`. A session that is forgotten has ended already."""
        if session_id not in self._sessions:
            return []
        session = self.session(session_id)
        return session.fail(reason, now) + self._keep(session)

    def progress(self, session_id: str, note: str, now: float) -> list[Effect]:
        session = self.session(session_id)
        return session.progress(note, now) + self._keep(session)

    def probe(self, session_id: str, now: float) -> list[Effect]:
        session = self.session(session_id)
        return session.probe(now) + self._keep(session)

    def session(self, session_id: str) -> Session:
        """The session, to look at. Calls go through the methods above, or nobody would save it."""
        if session_id not in self._sessions:
            raise LocalProtocolError(
                f"there is no session {session_id} here", code="no_such_session", hint="list them: backchannel sessions"
            )
        return self._sessions[session_id]

    def find(self, session_id: str) -> Session | None:
        """As `session`, for who does not know whether there is one."""
        return self._sessions.get(session_id)

    def has_stored(self, frame: Syn | Data) -> bool:
        """Whether it is a repetition of what was taken before: then it needs no room."""
        session = self._sessions.get(frame.session)
        if session is None:
            return False
        return isinstance(frame, Syn) or frame.seq < session.recv_queue.rcv_nxt

    def sessions(self) -> Iterable[Session]:
        """All that are known, tombstones included, to look at."""
        return self._sessions.values()

    def offers(self) -> list[Session]:
        """Those that wait for our agent's answer."""
        return [self._sessions[session_id] for session_id in self._offers]

    @property
    def open_count(self) -> int:
        """How many are not CLOSED."""
        return len(self._sessions) - len(self._tombstones)

    # -- the peers -------------------------------------------------------------------------------------------

    def receive(self, peer: str, frame: SessionFrame, now: float) -> list[Effect]:
        """Take a frame that `peer` is known to have sent."""
        session = self._sessions.get(frame.session) or Session(self.local, Snapshot(frame.session, peer))
        was_unknown = session.state is State.NONE
        if refusal := self._refusal(session, peer, frame):
            effects = session.answer(frame, *refusal)
        else:
            effects = session.receive(frame, now)
        if was_unknown and session.state is not State.NONE:
            self._mark(frame)
        return effects + self._keep(session)

    def _refusal(self, session: Session, peer: str, frame: SessionFrame) -> tuple[Outcome, str, bool] | None:
        """What the single session cannot know: outcome, reason, and whether the frame may come again."""
        if session.peer != peer:
            return Outcome.BAD, "the session is another agent's", False
        if session.state is not State.NONE or not isinstance(frame, Syn):
            return None
        if frame.to_mailbox not in (None, self.local.mailbox):
            return None  # the session says so better
        epoch, number = frame.number
        if not self._numbers.get((frame.from_mailbox, epoch), SynNumbers()).is_new(number):
            return Outcome.CLOSED, "an old SYN", False
        of_peer = sum(1 for offering in self._offers.values() if offering == peer)
        if of_peer >= OFFERS_PER_PEER or len(self._offers) >= OFFERS:
            # For good: an agent that never looks would otherwise be knocked at until the opener's patience ends.
            return Outcome.REFUSED, "too many offers wait for an answer already", False
        return None

    def _mark(self, frame: SessionFrame) -> None:
        """A SYN was taken, or a RST that overtook it: no SYN with this number opens anything again."""
        if isinstance(frame, Syn | Rst) and frame.number is not None:
            self._unsaved = True
            key = (frame.from_mailbox, frame.number.epoch)
            self._numbers[key] = self._numbers.pop(key, SynNumbers()).marked(frame.number.number)
            if len(self._numbers) > MAILBOXES:
                del self._numbers[next(iter(self._numbers))]

    def answered(self, answer: Answer, now: float) -> list[Effect]:
        """Take the answer to a frame of ours."""
        session = self._sessions.get(answer.frame.session)
        if session is None:
            return [Strike(answer.frame, Leave.ENDED)]
        return session.answered(answer, now) + self._keep(session)

    def outgoing(self, frame: SessionFrame) -> SessionFrame | None:
        """A row of the outbox as it is to be pushed today; None while it must wait for a PROBE (`Resume` says when)."""
        session = self._sessions.get(frame.session)
        return session.outgoing(frame) if session else replace(frame, epoch=self.local.epoch)

    def probe_peer(self, peer: str, now: float) -> list[Effect]:
        """PROBE all open sessions with a peer that was away for 30 s: it may have lost them."""
        return [
            effect
            for session in list(self._sessions.values())
            if session.peer == peer and session.state.is_open
            for effect in self.probe(session.id, now)
        ]

    # -- time and the disk -----------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `handle_timer` has something to do next."""
        while self._timers:
            at, session_id = self._timers[0]
            session = self._sessions.get(session_id)
            if session is not None and session.deadline == at:
                return at
            heappop(self._timers)
            if self._wakes.get(session_id) == at:
                del self._wakes[session_id]
                if session is not None:
                    self._set_timer(session)
        return None

    def handle_timer(self, now: float) -> list[Effect]:
        """Do all whose time has come; too early, nothing."""
        effects: list[Effect] = []
        while (at := self.deadline) is not None and at <= now:
            session = self._sessions[self._timers[0][1]]
            effects += session.handle_timer(now)
            effects += self._keep(session)
            if Forget(session.id) in effects:
                self._drop(session.id)
        return effects

    @property
    def is_touched(self) -> bool:
        """Whether this pass has something to write, or to say."""
        return bool(self._touched) or self._unsaved

    def changes(self) -> Changes:
        """End the pass: all that its transaction must write besides the effects' rows."""
        self._pass_number += 1
        touched, self._touched = list(dict.fromkeys(self._touched)), []
        self._uncommitted.append((self._pass_number, [(s, s.version) for s in touched]))
        saved = EndpointSnapshot(self._next_number, tuple(self._numbers.items())) if self._unsaved else None
        self._unsaved = False
        known = tuple(s.snapshot() for s in touched if self._sessions.get(s.id) is s)
        return Changes(self._pass_number, known, saved)

    def committed(self, pass_number: int, now: float) -> list[Saying]:
        """What may be said now that the disk holds the passes up to this one."""
        sayings: list[Saying] = []
        while self._uncommitted and self._uncommitted[0][0] <= pass_number:
            for session, version in self._uncommitted.popleft()[1]:
                sayings += session.committed(version, now)
        return sayings

    # -- below: keeping the indexes --------------------------------------------------------------------------

    def _keep(self, session: Session) -> list[Effect]:
        """Note that a session was touched; the oldest tombstone goes when there are too many."""
        self._touched.append(session)
        if session.state is State.NONE:
            return []
        self._sessions[session.id] = session
        self._set_timer(session)
        if session.state is State.SYN_RECEIVED:
            self._offers[session.id] = session.peer
        else:
            self._offers.pop(session.id, None)
        if session.state is State.CLOSED:
            self._tombstones.setdefault(session.id)
        if len(self._tombstones) <= TOMBSTONES:
            return []
        oldest = next(iter(self._tombstones))
        self._drop(oldest)
        return [Forget(oldest)]

    def _set_timer(self, session: Session) -> None:
        # A deadline that only moved further off (every frame does that) is found out when the old one comes up.
        if session.deadline is not None and session.deadline < self._wakes.get(session.id, inf):
            self._wakes[session.id] = session.deadline
            heappush(self._timers, (session.deadline, session.id))

    def _drop(self, session_id: str) -> None:
        del self._sessions[session_id]
        self._tombstones.pop(session_id, None)
        self._offers.pop(session_id, None)
