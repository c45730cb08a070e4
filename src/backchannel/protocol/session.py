"""One end of one session: RFC 9293's transmission control block (3.3.1), kept by a daemon for its agent.

It is told everything: the call that was made, the frame that came, the answer to a frame of ours, the time.
It returns effects, to be written in ONE transaction with its `snapshot()`. What leaves the machine, receipts
and frames alike, comes out of `committed()` and nowhere else: nothing is said before the disk holds what it
is based on.

What it is not: it holds no frames (the outbox does), no mail (the mailbox does), and knows no other session.
"""

from enum import Enum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from backchannel.errors import LocalProtocolError, OverLimit
from backchannel.protocol.effects import (
    Answer,
    Deliver,
    Effect,
    Enqueue,
    Forget,
    Leave,
    Report,
    Resume,
    Saying,
    Strike,
    StrikeAll,
    Transmit,
)
from backchannel.protocol.events import (
    DataAcknowledged,
    PeerProgressed,
    SessionAccepted,
    SessionClosed,
    SessionOffered,
)
from backchannel.protocol.recvqueue import ReceiveQueue
from backchannel.protocol.sendqueue import WINDOW, SendQueue
from backchannel.protocol.sessionframe import (
    Ack,
    Data,
    Fin,
    FrameId,
    Limits,
    Probe,
    Rej,
    Rst,
    SessionFrame,
    Syn,
    SynAck,
    SynNumber,
    digest,
    seq_of,
)
from backchannel.protocol.states import TABLE, Cause, Input, Outcome, State, Step
from backchannel.protocol.timers import KEEPALIVE, PROBE_AGAIN, TOMBSTONE, Timer, Timers

PROBE_FIRST = "probe_first"
"""Why a frame is refused for now: the two ends do not know of each other's epoch."""


class Local(Struct, frozen=True):
    """Who we are: one mailbox, in one epoch of its file."""

    mailbox: str
    epoch: int


class Role(Enum):
    INITIATOR = "initiator"
    ACCEPTOR = "acceptor"


class Trust(Struct, frozen=True):
    """The epochs in which both ends are known to agree. `theirs` is None until the peer has spoken."""

    mine: int
    theirs: int | None


class Snapshot(Struct, frozen=True):
    """All that a session must not forget, hashable and comparable. `version` grows with every change."""

    id: str
    peer: str
    version: int = 0
    state: State = State.NONE
    role: Role | None = None
    cause: Cause | None = None
    reason: str = ""
    mailbox: str | None = None
    trust: Trust | None = None
    birth: Trust | None = None
    number: SynNumber | None = None
    limits: Limits = Limits()
    messages: int = 0
    octets: int = 0
    send: SendQueue = SendQueue()
    recv: ReceiveQueue = ReceiveQueue()
    timers: Timers = Timers()


class Session:
    """One end of one session. Make it from a `Snapshot`: `Snapshot(id, peer)` is one that nobody has opened yet."""

    def __init__(self, local: Local, snapshot: Snapshot) -> None:
        self.local = local
        self.id = snapshot.id
        self.peer = snapshot.peer
        self.version = snapshot.version
        self.role = snapshot.role
        self.mailbox = snapshot.mailbox  # the peer's, once known
        self.trust = snapshot.trust
        self.birth = snapshot.birth  # the epochs in which each end first had this session
        self.number = snapshot.number
        self.limits = snapshot.limits
        self.messages = snapshot.messages
        self.octets = snapshot.octets
        self.send_queue = snapshot.send
        self.recv_queue = snapshot.recv
        self.timers = snapshot.timers
        self._sayings: list[tuple[int, Saying]] = []
        self._enter(snapshot.state, snapshot.cause, snapshot.reason)

    @classmethod
    def restore(cls, local: Local, snapshot: Snapshot, now: float, *, shift: float = 0.0) -> "Session":
        """The session as it was saved, about to PROBE its peer.

        After a boot the caller's clock starts anew: `shift` is what it shows now, less what it showed at the
        last save.
        """
        session = cls(local, snapshot)
        session.timers = session.timers.shifted(shift)
        if session.trust is not None and session.trust.mine != local.epoch:
            session.send_queue = session.send_queue.doubted()
        session._probe_soon(now)
        return session

    def snapshot(self) -> Snapshot:
        return Snapshot(
            id=self.id,
            peer=self.peer,
            version=self.version,
            state=self.state,
            role=self.role,
            cause=self.cause,
            reason=self.reason,
            mailbox=self.mailbox,
            trust=self.trust,
            birth=self.birth,
            number=self.number,
            limits=self.limits,
            messages=self.messages,
            octets=self.octets,
            send=self.send_queue,
            recv=self.recv_queue,
            timers=replace(self.timers, probe=None),
        )

    @property
    def room(self) -> int:
        """How many more messages may be sent now: the window, or 0 in a state in which nothing can be."""
        if (self.state, Input.SEND) not in TABLE:
            return 0
        return max(0, WINDOW - (self.send_queue.snd_nxt - self.send_queue.snd_una))

    # -- what the own agent asks -----------------------------------------------------------------------------

    def open(self, number: SynNumber, task: str, limits: Limits, now: float) -> list[Effect]:
        """Offer the peer's agent a session: SYN."""
        step = self._permitted(Input.OPEN, "it is open already")
        self.role = Role.INITIATOR
        self.number = number
        self.trust = self.birth = Trust(self.local.epoch, None)
        self._begin(limits, now)
        if limits.accept_timeout is not None:
            self.timers = replace(self.timers, accept=now + limits.accept_timeout)
        self.send_queue = self.send_queue.sent()
        return self._take(step, self._enqueue(Syn(**self._header(), number=number, task=task, limits=limits)))

    def accept(self, now: float, limits: Limits | None = None) -> list[Effect]:
        """Agree to the offered session: SYN-ACK. `limits` of one's own make the opener's narrower, never wider."""
        step = self._permitted(Input.ACCEPT, "only an open offer can be accepted")
        if limits is not None:
            self._begin(self.limits.narrowed(limits), now)
        self.send_queue = self.send_queue.sent()
        return self._take(step, self._enqueue(SynAck(**self._header())))

    def reject(self, reason: str, now: float, retry_after: float | None = None) -> list[Effect]:
        """Decline the offered session: REJ."""
        step = self._permitted(Input.REJECT, "only an open offer can be rejected; abort ends a session")
        self.send_queue = self.send_queue.sent()
        rej = Rej(**self._header(), reason=reason, retry_after=retry_after)
        return self._close(step, reason, now, self._enqueue(rej))

    def send(self, body: str, now: float, *, input_required: bool = False) -> list[Effect]:
        """Send one message: DATA. Raises OverLimit while the window is full.

        A message beyond the session's budget is not sent; it ends the session, and both agents are told why.
        """
        is_offer = self.state in (State.SYN_SENT, State.SYN_RECEIVED)
        hint = "wait until it is accepted" if is_offer else "nothing more can be sent; open a new session"
        step = self._permitted(Input.SEND, hint)
        if self.send_queue.is_full:
            raise OverLimit(
                f"session {self.id} has {self.send_queue.snd_nxt - self.send_queue.snd_una} messages that "
                f"{self.peer} has not processed",
                code="window",
                hint="wait until it acks some",
                retry=True,
            )
        if passed := self._count(body):
            return self._end(Input.TIMEOUT, passed, now)
        data = Data(**self._header(), seq=self.send_queue.snd_nxt, body=body, input_required=input_required)
        self.send_queue = self.send_queue.sent()
        self._stir(now)
        return self._take(step, self._enqueue(data))

    def close(self, now: float, status: str = "ok", result: str = "") -> list[Effect]:
        """Say that all is said, with the result: FIN. The peer may go on sending until it closes too."""
        drained = self.recv_queue.fin is not None and self.recv_queue.acked > self.recv_queue.fin
        step = self._permitted(
            Input.CLOSE_LAST if drained else Input.CLOSE,
            "only an established session can be closed; abort ends it in any state",
        )
        fin = Fin(**self._header(), seq=self.send_queue.snd_nxt, status=status, result=result)
        self.send_queue = self.send_queue.finished()
        self._stir(now)
        return self._take(step, self._enqueue(fin))

    def ack(self, seq: int, now: float) -> list[Effect]:
        """The agent has processed delivery `seq`, and so all before it: ACK, in place of an older one in the
        outbox.

        In a closed session this only settles the mail that was left over.
        """
        is_fin = seq == self.recv_queue.fin
        step = self._permitted(Input.ACKNOWLEDGE_FIN if is_fin else Input.ACKNOWLEDGE, "there is nothing to ack")
        if self.state is State.CLOSED:
            return self._settle_left_over(seq)
        if not self.recv_queue.may_ack(seq):
            raise self._error(f"{seq} cannot be acked", f"ack one of {self._unacked()}")
        self.recv_queue = self.recv_queue.ack(seq)
        effects = self._enqueue_ack()
        self._stir(now)
        return self._close(step, "", now, effects) if step.cause else self._take(step, effects)

    def _settle_left_over(self, seq: int) -> list[Effect]:
        # No refusal here: a tombstone may know less than the mailbox, if it was forgotten and a late RST left another.
        if self.recv_queue.may_ack(seq):
            self.recv_queue = self.recv_queue.ack(seq)
            self._changed()
        return []

    def abort(self, reason: str, now: float) -> list[Effect]:
        """End the session at once: RST. What the peer has stored is still delivered to its agent."""
        self._permitted(Input.ABORT, "it is over")
        return self._end(Input.ABORT, reason, now)

    def fail(self, reason: str, now: float) -> list[Effect]:
        """Our end cannot go on, and not by our agent's wish: RST. The session is reset on both sides."""
        return self._end(Input.LOST, reason, now) if self.state.is_open else []

    def progress(self, note: str, now: float) -> list[Effect]:
        """Our agent is at work, and this far: told to the peer by a PROBE. It keeps the session from idling out."""
        if not self.state.is_open or self.state in (State.SYN_SENT, State.SYN_RECEIVED):
            raise self._error("there is no work to report on", "only an established session makes progress")
        self._stir(now)
        self._changed()
        self._say(Transmit(self.peer, replace(self._counts(), note=note)))
        return []

    # -- what the peer sends ---------------------------------------------------------------------------------

    def receive(self, frame: SessionFrame, now: float) -> list[Effect]:
        """Take one frame. Its receipt comes from `committed`."""
        if objection := self._objection(frame, now):
            return self.answer(frame, *objection)
        self._heard(now)
        if isinstance(frame, Probe):
            return self._receive_probe(frame, now)
        step = TABLE.get((self.state, self._classify(frame)))
        outcome = self._judge(frame, step.outcome) if step else Outcome.BAD
        if step is None or outcome is not Outcome.STORED:
            # The RST that says why may be behind this answer.
            return self.answer(frame, outcome, self.reason if outcome is Outcome.CLOSED else "")
        if isinstance(frame, Data) and (passed := self._count(frame.body)):
            self.answer(frame, Outcome.REFUSED, passed)
            return self._end(Input.TIMEOUT, passed, now)
        if not isinstance(frame, Ack | Rst):
            self.recv_queue = self.recv_queue.store(digest(frame), is_fin=isinstance(frame, Fin))
            self._stir(now)
        effects = self._store(frame, step, now)
        self.answer(frame, Outcome.STORED)
        return effects

    def answer(self, frame: SessionFrame, outcome: Outcome, reason: str = "", retry: bool = False) -> list[Effect]:
        """Give this answer, and let the frame have no effect."""
        self._say(Answer(frame.id, outcome, self.local.mailbox, self.local.epoch, reason, retry))
        return []

    def _objection(self, frame: SessionFrame, now: float) -> tuple[Outcome, str, bool] | None:
        """Why a frame is not even looked up in the table: outcome, reason, and whether it may come again."""
        if frame.to_mailbox != self.local.mailbox and not (
            frame.to_mailbox is None and isinstance(frame, Syn | Rst | Probe)
        ):
            return Outcome.NO_SESSION, "another mailbox", False
        if self.mailbox is not None and frame.from_mailbox != self.mailbox:
            return Outcome.BAD, "from another mailbox", False
        if isinstance(frame, {Role.INITIATOR: Syn, Role.ACCEPTOR: SynAck | Rej, None: ()}[self.role]):
            return Outcome.BAD, f"sent to the {self.role.value if self.role else 'unknown'}", False
        if not self.state.is_open or self.trust is None or isinstance(frame, Syn | Rst):
            return None
        if self.trust.theirs is not None and frame.epoch < self.trust.theirs:
            return Outcome.BAD, "from an epoch that is over", False
        known = self.trust.mine == self.local.epoch == frame.to_epoch and self.trust.theirs in (None, frame.epoch)
        if known or isinstance(frame, Probe):
            return None
        self._probe_soon(now)
        return Outcome.REFUSED, PROBE_FIRST, True

    def _classify(self, frame: SessionFrame) -> Input:
        match frame:
            case Syn():
                return Input.SYN
            case SynAck():
                return Input.SYN_ACK
            case Rej():
                return Input.REJ
            case Data(seq=seq) | Fin(seq=seq) if seq < self.recv_queue.rcv_nxt:
                return Input.OLD
            case Data(seq=seq) | Fin(seq=seq) if seq > self.recv_queue.rcv_nxt:
                return Input.AHEAD
            case Data():
                return Input.DATA
            case Fin():
                return Input.FIN
            case Ack(ack=ack):
                return Input.ACK_FIN if self._covers_fin(ack) else Input.ACK
            case Rst():
                return Input.RST
            case Probe():
                raise AssertionError("a PROBE is in no table")

    def _judge(self, frame: SessionFrame, outcome: Outcome) -> Outcome:
        """The table's answer, unless the frame itself says otherwise: a repeat must be one of what was stored."""
        seq = seq_of(frame)
        if outcome is Outcome.DUP and seq is not None:
            if seq >= self.recv_queue.rcv_nxt:
                return Outcome.CLOSED
            return Outcome.DUP if self.recv_queue.recognises(seq, digest(frame)) else Outcome.BAD
        if outcome is Outcome.STORED and isinstance(frame, Ack) and frame.ack > self.send_queue.snd_nxt:
            return Outcome.BAD
        return outcome

    def _store(self, frame: SessionFrame, step: Step, now: float) -> list[Effect]:
        """What a frame that is taken brings about."""
        match frame:
            case Syn():
                self.role = Role.ACCEPTOR
                self._bind(frame)
                self.number = frame.number
                self._begin(frame.limits, now)
                offer = SessionOffered(self.id, self.peer, frame.task, frame.limits)
                return self._take(step, [Report(offer)])
            case SynAck():
                self._bind(frame)
                self.timers = replace(self.timers, accept=None)
                return self._take(step, [*self._answered_syn(), Report(SessionAccepted(self.id, self.peer))])
            case Rej(reason=reason, retry_after=retry_after):
                self._bind(frame)
                return self._close(step, reason, now, self._answered_syn(), retry_after)
            case Data(seq=seq) | Fin(seq=seq):
                return self._take(step, [Deliver(self.id, seq, frame)])
            case Ack(ack=ack):
                return self._acknowledged(step, ack, now)
            case Rst(reason=reason):
                if self.state is State.NONE:
                    self.role = Role.INITIATOR if frame.number is None else Role.ACCEPTOR
                    self._bind(frame)
                return self._close(step, reason, now, self._strike_all())
            case Probe():
                raise AssertionError("a PROBE is not stored")

    def _acknowledged(self, step: Step, ack: int, now: float) -> list[Effect]:
        struck: list[Effect] = [Strike(self._row(seq), Leave.ACKED) for seq in range(self.send_queue.receipted, ack)]
        if ack > self.send_queue.snd_una:
            struck.append(Report(DataAcknowledged(self.id, ack)))
            self._stir(now)
        self.send_queue = self.send_queue.ack(ack)
        return self._close(step, "", now, struck) if step.cause else self._take(step, struck)

    def _answered_syn(self) -> list[Effect]:
        """The peer's agent answered, so its daemon has our SYN, whatever became of the receipt."""
        if self.send_queue.receipted:
            return []
        self.send_queue = self.send_queue.receipt(0)
        return [Strike(FrameId(self.id, "SYN", 0), Leave.ACKED)]

    def _bind(self, frame: SessionFrame) -> None:
        self.mailbox = frame.from_mailbox
        self.trust = Trust(self.local.epoch, frame.epoch)
        self.birth = Trust(self.birth.mine if self.birth else self.local.epoch, frame.epoch)

    # -- PROBE: do both ends still have the same session? ----------------------------------------------------

    def probe(self, now: float) -> list[Effect]:
        """Ask the peer for its counts. Does nothing where there is nothing to compare yet."""
        self.timers = replace(self.timers, probe=now + PROBE_AGAIN)
        if self._can_probe():
            self._say(Transmit(self.peer, self._counts()))
        return []

    def _can_probe(self) -> bool:
        # Before the SYN has its receipt the peer may rightly not know the session.
        return self.state.is_open and not (self.state is State.SYN_SENT and not self.send_queue.receipted)

    def _counts(self) -> Probe:
        return Probe(
            **self._header(),
            rcv_nxt=self.recv_queue.rcv_nxt,
            acked=self.recv_queue.acked,
            receipted=self.send_queue.receipted,
            began=self.birth.mine if self.birth else self.local.epoch,
        )

    def _receive_probe(self, probe: Probe, now: float) -> list[Effect]:
        if self.state is State.NONE:
            return self.answer(probe, Outcome.NO_SESSION)
        effects = self._compare(probe, now, asked=False) if self.state.is_open else []
        if probe.note and self.state.is_open:
            self._stir(now)
            self._changed()
            effects.append(Report(PeerProgressed(self.id, probe.note)))
        # A finished or rejected session may have its last word under way, which says more than CLOSED would.
        rejected = self.cause is Cause.REJECTED and not self.send_queue.receipted
        if rejected and self.trust is not None and probe.epoch > (self.trust.theirs or 0):
            self.trust = replace(self.trust, theirs=probe.epoch)  # else the REJ would be refused `probe_first` for ever
            self._changed()
        if self.state.is_open or self.cause is Cause.FINISHED or rejected:
            self._say(Answer(probe.id, Outcome.ALIVE, self.local.mailbox, self.local.epoch, probe=self._counts()))
        else:
            self.answer(probe, Outcome.CLOSED, self.reason)
        return effects

    def _compare(self, peer: Probe, now: float, *, asked: bool) -> list[Effect]:
        """Look for a loss of OUR OWN: the peer's counts are older than ours, and counts only grow.

        For a loss of the peer's the comparison would be unsafe (a receipt may have overtaken the PROBE); the
        peer makes it, in the same exchange, from our counts.
        """
        if self._has_lost(peer):
            return self._end(Input.LOST, "power_loss", now)
        assert self.trust is not None
        if self.mailbox is None:  # it has our SYN, whatever became of the receipt: an epoch is one of its mailbox
            self.mailbox = peer.from_mailbox
            self._changed()
        # Only the answer to our own PROBE proves us: from then on the peer knows our epoch, and takes nothing older.
        trust = Trust(self.local.epoch if asked else self.trust.mine, peer.epoch)
        if asked:
            self.send_queue = self.send_queue.proven()
        if trust != self.trust:
            self.trust = trust
            self._changed()
            self._heard(now)
            self._say(Resume(self.id))
        step = TABLE.get((self.state, Input.ACK_FIN if self._covers_fin(peer.acked) else Input.ACK))
        if peer.acked > self.send_queue.snd_una and step and step.outcome is Outcome.STORED:
            return self._acknowledged(step, peer.acked, now)
        return []

    def _has_lost(self, peer: Probe) -> bool:
        assert self.birth is not None
        # A peer that lost all of the session may have it anew, from an old SYN: then its frames are other ones.
        reborn = self.birth.theirs is not None and peer.began > self.birth.theirs
        return reborn or not self.send_queue.can_have_reached(peer.rcv_nxt) or peer.receipted > self.recv_queue.rcv_nxt

    # -- what the peer's daemon answered ---------------------------------------------------------------------

    def answered(self, answer: Answer, now: float) -> list[Effect]:
        """Take the answer to a frame of ours. One that names no frame we wait for is late, and changes nothing."""
        theirs = self.trust.theirs if self.trust else None
        # Epochs of two mailboxes do not compare: one that is new begins again with its first.
        is_late = theirs is not None and answer.mailbox == self.mailbox and answer.epoch < theirs
        if is_late or not self._awaits(answer.frame):
            return []
        self._heard(now)
        match answer.outcome:
            case _ if self.mailbox is not None and answer.mailbox != self.mailbox:
                return self._unwanted(answer.frame, "the peer lost its mailbox", now, tell=False)
            case Outcome.STORED | Outcome.DUP:
                return self._receipted(answer, now)
            case Outcome.ALIVE if answer.probe is not None:
                return self._compare(answer.probe, now, asked=True) if self.state.is_open else []
            case Outcome.REFUSED if answer.retry:
                if answer.reason == PROBE_FIRST:
                    self._probe_soon(now)
                return []
            case Outcome.GAP:
                # It may have been pushed right behind a frame that was not taken: only a PROBE tells that from a loss.
                self._probe_soon(now)
                return []
            case _:
                reason = answer.reason or f"the peer answered {answer.outcome.value}"
                knows = answer.outcome not in (Outcome.NO_SESSION, Outcome.CLOSED)
                return self._unwanted(answer.frame, reason, now, tell=knows)

    def _awaits(self, frame: FrameId) -> bool:
        match frame.kind:
            case "ACK":
                return frame.number == self.recv_queue.ack_row
            case "RST" | "PROBE":
                return True
            case _:
                return self.send_queue.receipted <= frame.number < self.send_queue.snd_nxt

    def _receipted(self, answer: Answer, now: float) -> list[Effect]:
        match answer.frame.kind:
            case "ACK":
                self.recv_queue = replace(self.recv_queue, ack_row=None)
                rows = [answer.frame]
            case "RST":
                rows = [answer.frame]
            case _:
                upto = answer.frame.number + 1
                rows = [self._row(seq) for seq in range(self.send_queue.receipted, upto)]
                self.send_queue = self.send_queue.receipt(answer.frame.number)
        if self.state is State.SYN_SENT:
            self.mailbox = answer.mailbox
            if self.trust != Trust(self.local.epoch, None):
                self._probe_soon(now)
        self._changed()
        return [Strike(row, Leave.RECEIPTED) for row in rows]

    def _unwanted(self, frame: FrameId, reason: str, now: float, *, tell: bool) -> list[Effect]:
        """The peer will never take this frame: an open session ends, a closed one stops repeating it."""
        if self.state.is_open:
            return self._end(Input.LOST, reason, now, tell=tell)
        if frame.kind == "ACK":
            self.recv_queue = replace(self.recv_queue, ack_row=None)
        elif frame.kind == "REJ":  # said in vain: a PROBE is now answered with CLOSED
            self.send_queue = self.send_queue.receipt(0)
        self._changed()
        return [Strike(frame, Leave.ENDED)]

    # -- what time and the disk bring ------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `handle_timer` has something to do next."""
        return self.timers.next

    def handle_timer(self, now: float) -> list[Effect]:
        """Do the most urgent thing whose time has come; too early, nothing."""
        match self.timers.due(now):
            case None:
                return []
            case Timer.PROBE:
                return self.probe(now)
            case Timer.FORGET:
                self.timers = Timers()
                return [Forget(self.id)]
            case timer:
                return self._end(Input.TIMEOUT, timer.value, now)

    def committed(self, version: int, now: float) -> list[Saying]:
        """What may be said now that the disk holds the session as it was in `version`."""
        said = [saying for at, saying in self._sayings if at <= version]
        self._sayings = [(at, saying) for at, saying in self._sayings if at > version]
        return [s for s in said if not isinstance(s, Transmit) or self.may_transmit(s.frame)]

    def outgoing(self, frame: SessionFrame) -> SessionFrame | None:
        """A row of the outbox as it is to be pushed today; None while it must wait for a PROBE."""
        if not self.may_transmit(frame):
            return None
        if isinstance(frame, Syn | Rst | Probe) or self.trust is None:
            return replace(frame, epoch=self.local.epoch)
        return replace(frame, epoch=self.local.epoch, to_epoch=self.trust.theirs)

    def may_transmit(self, frame: SessionFrame) -> bool:
        """Whether a row of the outbox may be pushed: in a new epoch, an open session waits for a PROBE."""
        if not self.state.is_open or isinstance(frame, Syn | Rst | Probe):
            return True
        return self.trust is not None and self.trust.mine == self.local.epoch

    # -- below: computing, no deciding -----------------------------------------------------------------------

    def _enter(self, state: State, cause: Cause | None, reason: str) -> None:
        self.state = state
        self.cause = cause
        self.reason = reason

    def _permitted(self, call: Input, hint: str) -> Step:
        step = TABLE.get((self.state, call))
        if step is None:
            asked = call.value.lower().partition("-")[0]  # CLOSE-LAST is a close as well
            raise self._error(f"{asked} is not possible", hint)
        return step

    def _error(self, problem: str, hint: str) -> LocalProtocolError:
        why = f" ({self.cause.value}{': ' if self.reason else ''}{self.reason})" if self.cause else ""
        message = f"session {self.id} is {self.state.value}{why}: {problem}"
        return LocalProtocolError(message, code="session_state", hint=hint)

    def _unacked(self) -> str:
        first, last = self.recv_queue.acked, self.recv_queue.rcv_nxt - 1
        return f"{first} to {last}" if first <= last else "none; all is acked"

    def _take(self, step: Step, effects: list[Effect], reason: str = "") -> list[Effect]:
        self._enter(step.state, step.cause, reason)
        self._changed()
        for effect in effects:
            if isinstance(effect, Enqueue):
                self._say(Transmit(effect.peer, effect.frame))
        return effects

    def _close(
        self, step: Step, reason: str, now: float, effects: list[Effect], retry_after: float | None = None
    ) -> list[Effect]:
        self.timers = Timers(forget=now + TOMBSTONE)
        self._take(step, effects, reason)
        assert step.cause is not None
        stored, acked = self.send_queue.receipted, self.send_queue.snd_una
        closed = SessionClosed(self.id, self.peer, step.cause, reason, stored, acked, retry_after)
        return [*effects, Report(closed)]

    def _end(self, how: Input, reason: str, now: float, *, tell: bool = True) -> list[Effect]:
        """Over, whatever the state: unsent rows go, and the peer is told unless it was the one who said so."""
        number = self.number if self.role is Role.INITIATOR else None
        rst = self._enqueue(Rst(**self._header(), reason=reason, number=number)) if tell else []
        return self._close(TABLE[self.state, how], reason, now, [*self._strike_all(), *rst])

    def _strike_all(self) -> list[Effect]:
        self.recv_queue = replace(self.recv_queue, ack_row=None)
        return [StrikeAll(self.id, Leave.ENDED)]

    def _enqueue(self, frame: SessionFrame) -> list[Effect]:
        return [Enqueue(self.peer, frame)]

    def _enqueue_ack(self) -> list[Effect]:
        ack = Ack(**self._header(), ack=self.recv_queue.acked)
        older = self.recv_queue.ack_row
        self.recv_queue = replace(self.recv_queue, ack_row=ack.ack)
        struck = [] if older is None else [Strike(FrameId(self.id, "ACK", older), Leave.REPLACED)]
        return [*struck, *self._enqueue(ack)]

    def _say(self, saying: Saying) -> None:
        self._sayings.append((self.version, saying))

    def _changed(self) -> None:
        self.version += 1

    def _header(self) -> dict[str, Any]:
        return {
            "session": self.id,
            "from_mailbox": self.local.mailbox,
            "to_mailbox": self.mailbox,
            "epoch": self.local.epoch,
            "to_epoch": self.trust.theirs if self.trust else None,
        }

    def _row(self, seq: int) -> FrameId:
        if seq == 0:
            kind = "SYN" if self.role is Role.INITIATOR else "REJ" if self.cause is Cause.REJECTED else "SYN-ACK"
        else:
            kind = "FIN" if seq == self.send_queue.fin else "DATA"
        return FrameId(self.id, kind, seq)

    def _covers_fin(self, ack: int) -> bool:
        return self.send_queue.fin is not None and ack > self.send_queue.fin

    def _begin(self, limits: Limits, now: float) -> None:
        self.limits = limits
        if limits.deadline is not None:
            at = now + limits.deadline
            earlier = self.timers.deadline
            self.timers = replace(self.timers, deadline=at if earlier is None else min(at, earlier))
        self._stir(now)
        self._heard(now)

    def _count(self, body: str) -> str:
        """Count one message against the budget, or name the limit that it would pass."""
        octets = len(body.encode())
        if self.limits.max_messages is not None and self.messages + 1 > self.limits.max_messages:
            return "max_messages"
        if self.limits.max_bytes is not None and self.octets + octets > self.limits.max_bytes:
            return "max_bytes"
        self.messages += 1
        self.octets += octets
        return ""

    def _stir(self, now: float) -> None:
        if self.limits.idle_timeout is not None:
            self.timers = replace(self.timers, idle=now + self.limits.idle_timeout)

    def _heard(self, now: float) -> None:
        # Only an answer to our own PROBE proves a new epoch of ours: nothing else the peer says may put that off.
        if self.state is not State.CLOSED and (self.trust is None or self.trust.mine == self.local.epoch):
            self.timers = replace(self.timers, probe=now + KEEPALIVE)

    def _probe_soon(self, now: float) -> None:
        if self._can_probe():
            self.timers = replace(self.timers, probe=now)
