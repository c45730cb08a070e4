"""What an agent does with its mail: take it, settle it, and ask how things stand.

Taking is a lease and a commit; a token (id, delivery) names one handing-out, so that who was too slow is told so.
"""

from typing import TYPE_CHECKING

from msgspec import structs

from .. import __version__
from ..errors import LocalProtocolError
from ..mailbox.database import VERSION
from ..mailbox.mailbox import Lease, State
from ..protocol import frame
from ..protocol.envelope import KINDS, SESSION_DATA, SESSION_KINDS
from ..protocol.names import check_id, is_name, make_id
from ..protocol.receipt import Stage
from ..protocol.sessionwire import is_session_id
from .callers import Caller, Taker

if TYPE_CHECKING:
    from .host import Host

TAKE_MAX = 1000  # deliveries in one answer
REASON_CHARS_MAX = 1000
VERSION_CHARS_MAX = 100
EVIDENCE = ("ack", "flush", "turn")
_TAKEN_KINDS = (*KINDS, *SESSION_KINDS)


class Taking:
    """The methods of taking and settling, bound to their host."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self.adapters: dict[Caller, frame.Adapter] = {}  # by the connection on which they take
        self.active_at: float | None = None  # when the agent last came, settled something, or went (Unix time)

    def take(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes | None:
        params: frame.Take = frame.parse(frame.Take, request)
        if not 1 <= params.max <= TAKE_MAX:
            raise LocalProtocolError(
                f"max {params.max} is out of range", code="bad_params", hint=f"use 1 to {TAKE_MAX}"
            )
        if params.wait is not None and not 0 <= params.wait <= frame.WAIT_S_MAX:
            raise LocalProtocolError(
                f"wait {params.wait} is out of range", code="bad_params", hint="use 0 to a year, in seconds, or null"
            )
        for kind in params.kinds or ():
            if kind not in _TAKEN_KINDS:
                raise LocalProtocolError(
                    f"kind {kind[:40]!a} is unknown",
                    code="bad_params",
                    hint=f"use {', '.join(_TAKEN_KINDS)}",
                )
        if params.adapter is not None:
            self._attach(caller, params.adapter)
        if not self._host.takers and not self._host.mailbox.leased:
            self.active_at = wall
        take_id = check_id(params.take_id) if params.take_id else make_id("t", int(wall * 1000), self._host.random(10))
        for older in self._host.takers:
            if older.lease.take_id == take_id:  # its answer would go nowhere: the wait goes on over this connection
                older.count, older.deadline = 0, now
        lease = self._host.mailbox.leases.get(take_id) or Lease(take_id, detached=params.detached, deadline=None)
        lease.holder = None if lease.detached else caller
        lease.deadline = now + self._host.config.lease_s if lease.detached else None
        until = None if params.wait is None else now + params.wait
        taker = Taker(caller, request_id, params, lease, until)
        # With messages in it, it was asked for before: the answer was lost, or the connection.
        if lease.messages or params.resume or (params.wait == 0 and not self._host.mailbox.counters.stored):
            taker.handed = self._host.mailbox.handed_again(lease)
            return self._host.taken(taker)
        self._host.takers.append(taker)
        return None

    def _attach(self, caller: Caller, adapter: frame.Adapter) -> None:
        if not is_name(adapter.name) or len(adapter.version) > VERSION_CHARS_MAX or adapter.evidence not in EVIDENCE:
            raise LocalProtocolError(
                f"adapter {adapter.name[:40]!a} is out of range",
                code="bad_params",
                hint=f"a name, a version of up to {VERSION_CHARS_MAX} characters, evidence {', '.join(EVIDENCE)}",
            )
        self.adapters[caller] = adapter

    def let_go(self, caller: Caller, wall: float) -> None:
        """A connection of the agent's is gone."""
        if self.adapters.pop(caller, None) is not None or self._host.is_held_by(caller):
            self.active_at = wall

    def settling(self, state: State, wall: float) -> None:
        """The agent has its word on a message: it is there, and we know how long it took."""
        self.active_at = wall
        self._host.operating.settled(state.msg_no, wall)

    @property
    def presence(self) -> str:
        """Whether the agent is there, by the connections it holds; a lease that outlives its connection proves nothing.

        `working`: mail is in its hands. `idle`: it waits for some, or an adapter of it is attached. `away`: nobody is
        connected.
        """
        if any(lease.holder is not None for lease in self._host.mailbox.leases.values()):
            return "working"
        return "idle" if self._host.takers or self.adapters else "away"

    def ack(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: frame.Ack = frame.parse(frame.Ack, request)
        if params.evidence not in EVIDENCE:
            raise LocalProtocolError(
                f"evidence {params.evidence!r} is unknown", code="bad_params", hint=f"use {', '.join(EVIDENCE)}"
            )
        state = self.found(params)
        if is_repeated(params, state, Stage.ACKED, Stage.DONE):
            return self._host.receipt_line(request_id, state, duplicate=True)
        state.check_current(params.delivery)
        self.acked(state, params.evidence, now, wall)
        return self._host.receipt_line(request_id, state, stage=Stage.ACKED)

    def acked(self, state: State, evidence: str, now: float, wall: float) -> None:
        """The agent has it. What a peer said in a session is acknowledged to the peer too."""
        self.settling(state, wall)
        self._host.mailbox.ack(state, evidence, wall)
        if state.kind in SESSION_DATA and state.session is not None:
            self._host.sessions.acked(state.session, state.id, now, wall)

    def reject(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: frame.Reject = frame.parse(frame.Reject, request)
        if not 0 < len(params.reason) <= REASON_CHARS_MAX:
            raise LocalProtocolError(
                f"a reject has a reason of 1 to {REASON_CHARS_MAX} characters, not {len(params.reason)}",
                code="bad_params",
                hint="say why, in a line or two",
            )
        if is_session_id(params.id):
            return self._host.session_calls.reject(request_id, params.id, params.reason, params.retry_after, now, wall)
        state = self.found(params)
        if is_repeated(params, state, Stage.REJECTED) and state.reason == params.reason:
            return self._host.receipt_line(request_id, state, duplicate=True)
        state.check_current(params.delivery)
        if state.kind in SESSION_DATA:
            raise LocalProtocolError(
                f"{state.id} was said in a session, which has no reject",
                code="bad_params",
                hint=f"ack it and answer, or end the session: backchannel abort {state.session} --reason R",
            )
        self.settling(state, wall)
        self._host.mailbox.reject(state, params.reason, wall)
        state.reason = params.reason
        return self._host.receipt_line(request_id, state, stage=Stage.REJECTED)

    def release(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: frame.Release = frame.parse(frame.Release, request)
        state = self.delivery(params)
        self.active_at = wall
        self._host.mailbox.release(state, wall, unseen=params.unseen)
        return self._host.receipt_line(request_id, self._host.mailbox.get_by_number(state.msg_no))

    def renew(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: frame.Renew = frame.parse(frame.Renew, request)
        if params.session is not None:
            return self._host.session_calls.progress(request_id, params.session, params.note, now, wall)
        if params.id is None:
            raise LocalProtocolError("renew what?", code="bad_params", hint="name an id, or a session")
        state = self.delivery(frame.Token(params.id, params.delivery, params.sender))
        leased = self._host.mailbox.leased.get(state.msg_no)
        if leased is not None:
            self.renew_lease(leased.take, now)
        return self._host.receipt_line(request_id, state)

    def renew_lease(self, lease: Lease, now: float) -> None:
        """A detached lease begins anew; a held one needs no such thing."""
        if lease.detached:
            lease.deadline = now + self._host.config.lease_s

    def status(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        return frame.answer(
            request_id,
            {
                "agent": self._host.name,
                "version": __version__,
                "mailbox_id": self._host.mailbox.mailbox_id,
                "epoch": self._host.mailbox.epoch,
                "backlog": self._host.mailbox.counters.unacked,
                "receiving": self._host.is_receiving,
                "presence": self.presence,
                "since": self.active_at,
                "adapters": [structs.asdict(adapter) for adapter in self.adapters.values()],
                "paused": self._host.mailbox.paused,
                "outbox": len(self._host.outbox) + len(self._host.sessions.frames),
                "sessions": self._host.sessions.by_state(),
                "unreachable": {
                    name: {"for_s": round(seconds, 1), "why": why}
                    for name, (seconds, why) in self._host.courier.unreachable(now).items()
                },
                "too_fast_to": self._host.own_calls.pairs.tripped(),
                "oldest_unacked": self._host.mailbox.oldest_unacked(),
                "refused": sum(self._host.refusals.values()),
                "schema": VERSION,
                "free_bytes": self._host.free_bytes(),
                "reserve_bytes": self._host.config.reserve_bytes,
                "storage_low": not self._host.has_room(0, now),
                "counters": self._host.mailbox.counters.sums(),
            },
        )

    def stop(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        self._host.stopping = True
        return frame.answer(request_id, {"agent": self._host.name, "stopping": True})

    def found(self, params: frame.Token) -> State:
        """The message that is named. Raises as `Mailbox.get`."""
        return self._host.mailbox.get(params.id, params.sender)

    def delivery(self, params: frame.Token) -> State:
        """The same, if the delivery that is named is the current one. Raises as `State.check_current` too."""
        state = self.found(params)
        state.check_current(params.delivery)
        return state


def is_repeated(params: frame.Token, state: State, *stages: Stage) -> bool:
    """Whether this delivery was settled like that already: the answer was lost, and it asks again."""
    return state.stage in stages and state.delivery == params.delivery
