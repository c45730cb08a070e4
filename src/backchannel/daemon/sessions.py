"""The sessions of one agent in its daemon: carries out what the machine says, and keeps to its order.

Effects become rows in the open transaction. `save` writes the sessions they belong to, just before the commit;
`committed` says what may be said after it, and nothing else does. The methods that agents and peers call stand in
`sessioncalls.py`.
"""

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from ..errors import BackchannelError
from ..mailbox.frames import DROPPED, STORED, FrameRow, Frames
from ..mailbox.outbox import Row
from ..mailbox.sessions import Sessions as Store
from ..protocol import fastcodec, frame
from ..protocol.effects import (
    Answer,
    Deliver,
    Effect,
    Enqueue,
    Forget,
    Leave,
    Report,
    Resume,
    Strike,
    StrikeAll,
    Transmit,
)
from ..protocol.endpoint import Endpoint
from ..protocol.envelope import SESSION_DATA, SESSION_KINDS, Envelope, Peer
from ..protocol.events import (
    DataAcknowledged,
    PeerProgressed,
    SessionAccepted,
    SessionClosed,
    SessionOffered,
)
from ..protocol.receipt import Stage
from ..protocol.session import Local, Role
from ..protocol.sessionframe import Data, Fin, FrameId, Probe, SessionFrame
from ..protocol.sessionwire import (
    Lineage,
    answer_body,
    cut_reason,
    decode_answer,
    decode_frame,
    encode_frame,
    is_session_id,
)
from ..protocol.states import Cause, Outcome
from ..protocol.task import task_state
from .callers import Answer as Line
from .callers import Caller
from .courier import Errand, Reply, probed
from .log import logger

if TYPE_CHECKING:
    from .host import Host


ANSWERED = "the offer was answered"
NOTICES = tuple(kind for kind in SESSION_KINDS if kind not in SESSION_DATA)


class Asked:
    """A peer's frame that is not answered yet."""

    __slots__ = ("caller", "request_id", "sender")

    def __init__(self, caller: Caller, request_id: bytes, sender: str) -> None:
        self.caller = caller
        self.request_id = request_id
        self.sender = sender


class Sessions:
    """The endpoint of one agent, with its disk and its outbox."""

    def __init__(self, host: "Host", now: float) -> None:
        self._host = host
        self.store = Store(host.mailbox)
        self.frames = Frames(host.mailbox)
        self.local = Local(host.mailbox.mailbox_id, host.mailbox.epoch)
        self._shift = host.mailbox.clock_shift  # until what it shifts is on disk
        self._asked: dict[FrameId, deque[Asked]] = {}
        self.endpoint = self._restored(now)
        self.changed: set[str] = set()  # in this pass, for those who wait for news
        self._queued_last: tuple[bytes, SessionFrame, Lineage] | None = None  # mostly it is what is pushed next

    # --- a pass -------------------------------------------------------------------------------------------------------

    def carry_out(
        self,
        effects: list[Effect],
        now: float,
        wall: float,
        *,
        peer: Peer | None = None,
        lineage: Lineage | None = None,
        say_id: str | None = None,
    ) -> None:
        """Writes what a call of the machine brought about. `peer` is who pushed the frame that caused it, `lineage`
        what a SYN brought or is to bring, `say_id` the caller's key of a DATA."""
        for effect in effects:
            match effect:
                case Enqueue(peer=target, frame=sent):
                    params = encode_frame(target, sent, lineage)
                    self._queued_last = params, sent, lineage or Lineage()
                    self.frames.add(target, *sent.id, params, wall, say_id if isinstance(sent, Data) else None)
                    self._note_sent(sent)
                case Strike(frame=name, why=why):
                    has_it = why in (Leave.RECEIPTED, Leave.ACKED)
                    self.frames.settle(*name, STORED if has_it else DROPPED, wall)
                case StrikeAll(session=session):
                    self.frames.drop_all(session)
                case Deliver():
                    self._deliver(effect, now, wall, peer)
                case Report(event=event):
                    self._report(event, now, wall, lineage)
                case Forget(session=session):
                    for kind in NOTICES:  # nobody took them in a week: they would lie there for ever
                        self.withdraw(session, kind, "the session is forgotten", wall)
                    self.store.forget(session)
                    self.frames.forget(session)

    def save(self, wall: float) -> int | None:
        """Writes the sessions that this pass touched; the number `committed` wants, or None if none was."""
        if not self.endpoint.is_touched:
            return None
        changes = self.endpoint.changes()
        self.store.save(changes, wall, by_new_clock=bool(self._shift))
        self.changed.update(snapshot.id for snapshot in changes.sessions)
        return changes.pass_number

    def committed(self, pass_number: int, now: float) -> None:
        """The transaction is on disk: answers go to those who asked, PROBEs to the courier."""
        self._shift = 0.0
        courier = self._host.courier
        for saying in self.endpoint.committed(pass_number, now):
            match saying:
                case Answer(frame=name):
                    asked = self._asked[name].popleft()
                    if not self._asked[name]:
                        del self._asked[name]
                    line = frame.answer(asked.request_id, answer_body(saying, asked.sender))
                    is_promise = saying.outcome in (Outcome.STORED, Outcome.DUP)
                    power = is_promise and self._host.config.durability == "power"
                    self._host.staged.append(Line(asked.caller, line, after_flush=power))
                case Transmit(peer=target, frame=Probe() as probe):
                    courier.probe(probe.session, target, encode_frame(target, probe))
                case Transmit() | Resume():
                    pass  # the courier carries what is queued, and is woken below
        for session in self.changed:
            if (waiting := self.frames.waiting.get(session)) is not None:
                courier.wake(session, waiting[0])

    def roll_back(self, now: float) -> None:
        """Nothing of this pass happened: back to what is on disk."""
        self._asked.clear()  # `changed` stays: what a request before this one did alone is still news
        self.frames.reload()
        self.endpoint = self._restored(now)

    def _restored(self, now: float) -> Endpoint:
        saved, snapshots = self.store.load()
        return Endpoint.restore(self.local, saved, snapshots, now, shift=self._shift)

    # --- the peers ----------------------------------------------------------------------------------------------------

    def ask(self, name: FrameId, asked: Asked) -> None:
        """Somebody waits for the answer to this frame. Frames of one name are answered in the order they came."""
        self._asked.setdefault(name, deque()).append(asked)

    def asking(self) -> list[Caller]:
        """Who waits for an answer that this pass did not give, because it failed."""
        return [asked.caller for queue in self._asked.values() for asked in queue]

    def prepare(self, row: FrameRow) -> bytes | None:
        """The params of a queued frame as they are to be pushed today; None while it must wait for a PROBE."""
        if self._queued_last is not None and self._queued_last[0] == row.params:
            _, sent, lineage = self._queued_last
        else:
            sent, lineage = decode_frame(row.params)
        outgoing = self.endpoint.outgoing(sent)
        if outgoing is None:
            return None
        return row.params if outgoing == sent else encode_frame(row.target, outgoing, lineage)

    def answered(self, errand: Errand, reply: Reply, now: float, wall: float) -> bool:
        """A peer's daemon answered a frame or a PROBE of ours. Returns whether the row has left the outbox."""
        answer = self._read(errand, reply)
        if answer is not None:
            self.carry_out(self.endpoint.answered(answer, now), now, wall)
        return not (isinstance(errand.row, FrameRow) and self.frames.is_queued(errand.row.row_no))

    def probe_peer(self, target: str, now: float, wall: float) -> None:
        """A peer is back after a while: does it still have our sessions?"""
        self.carry_out(self.endpoint.probe_peer(target, now), now, wall)

    def _read(self, errand: Errand, reply: Reply) -> Answer | None:
        if reply.is_result:
            try:
                return decode_answer(reply.result)
            except BackchannelError as error:
                logger.warning("%s: %s answered wrongly: %s", self._host.name, errand.target, error)
                return None
        if reply.retry or isinstance(errand.row, Row):
            return None
        row = errand.row
        name = FrameId(row.session, row.kind, row.number) if row else FrameId(probed(errand.lane) or "", "PROBE", 0)
        session = self.endpoint.find(name.session)
        # No mailbox speaks here, only a door: it is answered as the peer we know, for good.
        mailbox = session.mailbox if session is not None and session.mailbox is not None else ""
        theirs = session.trust.theirs if session is not None and session.trust is not None else None
        return Answer(name, Outcome.REFUSED, mailbox, theirs or 0, cut_reason(reply.message))

    # --- our own agent's mail -----------------------------------------------------------------------------------------

    def acked(self, session: str, message_id: str, now: float, wall: float) -> None:
        """Our agent has processed a DATA or the FIN; the peer's is told."""
        seq = int(message_id.rpartition("/")[2])
        self.carry_out(self.endpoint.ack(session, seq, now), now, wall)

    def poisoned(self, now: float, wall: float) -> None:
        """Sessions with a text that nobody survives come to an end."""
        for session in self._host.mailbox.poisoned:
            self.carry_out(self.endpoint.fail(session, "poison", now), now, wall)
        self._host.mailbox.poisoned.clear()

    def is_exhausted(self, session_id: str) -> bool:
        """Whether no mail of this session can come any more."""
        session = self.endpoint.find(session_id)
        if session is None:
            return is_session_id(session_id)  # any other name is only a tag on somebody's messages
        queue = session.recv_queue
        is_read = queue.fin is not None and queue.acked > queue.fin
        return (is_read or not session.state.is_open) and not self.store.has_mail(session_id)

    def by_state(self) -> dict[str, int]:
        """How many sessions are in which state."""
        return dict(Counter(session.state.value for session in self.endpoint.sessions()))

    def record(self, session_id: str, now: float) -> dict[str, Any]:
        """All that is known of a session, for whoever asks."""
        session = self.endpoint.session(session_id)
        about = self.store.about(session_id)
        is_acceptor = session.role is Role.ACCEPTOR
        status, result = (about.status, about.result) if is_acceptor else (about.peer_status, about.peer_result)
        queue, limits, deadline = session.send_queue, session.limits, session.timers.deadline
        is_waiting = bool(about.is_waiting) and session.state.is_open
        return {
            "id": session_id,
            "peer": session.peer,
            "role": session.role.value if session.role else None,
            "state": session.state.value,
            "cause": session.cause.value if session.cause else None,
            "reason": session.reason,
            "retry_after": about.retry_after,
            "task_state": task_state(
                session.state, session.cause, session.role, session.reason, status, is_waiting=is_waiting
            ),
            "task": about.task,
            "status": status,
            "result": result,
            "peer_status": about.peer_status,
            "peer_result": about.peer_result,
            "version": session.version,
            "max_messages": limits.max_messages,
            "max_bytes": limits.max_bytes,
            "deadline": None if deadline is None else max(0.0, deadline - now),
            "idle_timeout": limits.idle_timeout,
            "messages": session.messages,
            "bytes": session.octets,
            "unread": max(0, session.recv_queue.rcv_nxt - session.recv_queue.acked),
            "unacked": queue.snd_nxt - queue.snd_una if queue.snd_nxt else 0,
            "window": session.room,
            "stored_upto": queue.receipted,
            "acked_upto": queue.snd_una,
            "stalled": self._host.courier.stalled(session_id, session.peer),
            "hops": about.hops,
            "trace_id": about.trace_id,
            "path": about.path.split(",") if about.path else [],
            "opened_at": about.opened_at,
            "ended_at": about.ended_at,
            "progress": about.progress,
            "progress_at": about.progress_at,
            "input_required": is_waiting,
        }

    # --- below: effects as rows ---------------------------------------------------------------------------------------

    def _note_sent(self, sent: object) -> None:
        match sent:
            case Fin(session=session, status=status, result=result):
                self.store.finished(session, status, result)
            case Data(session=session, input_required=input_required):
                if self.endpoint.session(session).role is Role.ACCEPTOR:
                    self.store.set_waiting(session, input_required)
                else:
                    self.store.set_waiting(session, False)

    def _deliver(self, effect: Deliver, now: float, wall: float, peer: Peer | None) -> None:
        message_id = f"{effect.session}/{effect.seq}"
        session = self.endpoint.session(effect.session)
        match effect.frame:
            case Data(body=body, input_required=input_required):
                self.store.set_waiting(session.id, input_required and session.role is Role.INITIATOR)
                headers = {"input_required": "true"} if input_required else {}
                self._put(session.id, session.peer, "data", message_id, body, headers, now, wall, peer)
            case Fin(status=status, result=result):
                self.store.peer_finished(session.id, status, result)
                self._put(session.id, session.peer, "finished", message_id, result, {"status": status}, now, wall, peer)

    def _report(self, event: object, now: float, wall: float, lineage: Lineage | None) -> None:
        match event:
            case SessionOffered(session=session, peer=peer, task=task):
                assert lineage is not None, "a SYN says where it comes from"
                self.store.begin(session, peer, Role.ACCEPTOR, task, lineage, wall)
                self._put(session, peer, "offer", f"{session}/offer", task, {}, now, wall)
            case SessionAccepted(session=session, peer=peer):
                self._put(session, peer, "accepted", f"{session}/accepted", "", {}, now, wall)
                self._tell(session, wall)
            case DataAcknowledged(session=session, acked=acked):
                self.frames.acknowledged(session, acked, wall)
            case PeerProgressed(session=session, note=note):
                self.store.progressed(session, note, wall)
            case SessionClosed():
                self._closed(event, now, wall)

    def _closed(self, event: SessionClosed, now: float, wall: float) -> None:
        if not self.store.has(event.session):
            return  # a RST came before its SYN, or long after: our agent never heard of it
        role = self.endpoint.session(event.session).role
        assert role is not None, "what is closed was open"
        self.store.ended(event.session, role, event.cause, event.retry_after, wall)
        is_acceptor = role is Role.ACCEPTOR
        if is_acceptor and self.withdraw(event.session, "offer", event.reason or ANSWERED, wall):
            return  # it came and went before our agent looked
        if event.cause is Cause.REJECTED and not is_acceptor:
            headers = {} if event.retry_after is None else {"retry_after": f"{event.retry_after:g}"}
            name = f"{event.session}/rejected"
            self._put(event.session, event.peer, "rejected", name, event.reason, headers, now, wall)
            self._tell(event.session, wall)
        elif event.cause in (Cause.RESET, Cause.EXPIRED):
            logger.info("%s: session %s with %s: %s", self._host.name, event.session, event.peer, event.cause.value)
            name, headers = f"{event.session}/reset", {"cause": event.cause.value}
            self._put(event.session, event.peer, "reset", name, event.reason, headers, now, wall)
            self._tell(event.session, wall)

    def _tell(self, session: str, wall: float) -> None:
        """A notice was put. Who waits for this news is told by its answer, so that is acknowledged as it comes."""
        if self._host.session_calls.will_tell(self.endpoint.session(session)):
            self.was_told(session, wall)

    def was_told(self, session: str, wall: float) -> None:
        """Our agent knows how its offer ended: notices of it that nobody took are acknowledged."""
        peer = self.endpoint.session(session).peer
        for kind in ("accepted", "rejected", "reset"):
            state = self._host.mailbox.find(f"{session}/{kind}", peer)
            if state is not None and state.stage is Stage.STORED:
                self._host.mailbox.ack(state, "ack", wall)

    def withdraw(self, session: str, kind: str, reason: str, wall: float) -> bool:
        """A notice has become pointless. True if there was one, and nobody had taken it."""
        peer = self.store.peer(session)
        return peer is not None and self._host.mailbox.withdraw(f"{session}/{kind}", peer, reason, wall)

    def _put(
        self,
        session: str,
        sender: str,
        kind: str,
        message_id: str,
        text: str,
        headers: dict[str, str],
        now: float,
        wall: float,
        peer: Peer | None = None,
    ) -> None:
        lineage = self.store.lineage(session)
        by = peer or self._host.own_peer
        path = lineage.path if lineage.path[-1:] == (sender,) else (*lineage.path, sender)
        envelope = Envelope(
            message_id, sender, kind, fastcodec.encode(text), by.uid, by.gid, by.pid, wall,
            headers=fastcodec.encode(headers) if headers else None, session=session,
            trace_id=lineage.trace_id or session, hops=lineage.hops, durability=self._host.config.durability,
            path=",".join(path),
        )  # fmt: skip
        try:
            self._host.store(envelope, now, wall, is_own=True)
        except BackchannelError as error:
            # Nobody's fault but ours: the machine has taken it already. The pass is undone, and answered as a mistake.
            raise RuntimeError(f"mail of session {session} does not go in: {error}") from error
