"""What anyone permitted may ask of an agent's daemon: push a text, and know what became of it.

Identity is proved here (the kernel's uid, the sender's key), loops are refused here, and what does not fit is refused
before anything is written. A repetition of what is stored is always answered truthfully.
"""

from _operator import _compare_digest as compare_digest  # hmac has it from there, and loads OpenSSL: 3.7 MB
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import BackchannelError, LocalProtocolError, NotPermitted, Refused
from ..mailbox.mailbox import State
from ..mailbox.outbox import Row
from ..protocol import frame
from ..protocol.envelope import SESSION_KINDS, from_push, sender_key, shown_sender
from ..protocol.names import AgentName, check_own_id
from ..protocol.receipt import WAITABLE, Stage
from ..protocol.sessionwire import Lineage
from . import guard
from .callers import Answer, Caller, Watcher
from .log import logger

if TYPE_CHECKING:
    from .host import Host

WAITS_MAX = 128  # requests of others that wait for a stage
WAITS_OF_ANOTHER_UID = 32  # of these, for each uid but our own and root
TELLINGS_BURST, TELLINGS_A_MINUTE = 20.0, 1.0  # loops of one sender that we and others are told of
NOTICES_MAX = 1000  # of our own, unread: who reads none of those reads no more of them
# So much may be written between two looks at the free disk, of a small reserve an 8th ...
RESERVE_CHECK_BYTES = 1 << 20
RESERVE_CHECK_S = 0.25  # ... or so much time pass
LOG_BYTES = 16 << 10  # a push writes about so much to the log beside its text: pages of tables and indexes


class Inbox:
    """The methods of the inbox, bound to their host."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._traces = guard.Traces()
        self._told = guard.Once()
        self._tellings = guard.Pairs(TELLINGS_BURST, TELLINGS_A_MINUTE)
        self.unchecked_bytes = RESERVE_CHECK_BYTES
        self._checked_at = 0.0
        self._shown: dict[str, tuple[float, str]] = {}  # who showed which key, and in the pass of which time

    def push(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> None:
        push, extra = frame.parse_push(request)
        host = self._host
        self.check_addressee(push.to)
        sender = sender_key(self.prove(push.sender, push.auth, caller, now), caller.peer)
        message_id = check_own_id(push.id) if push.id is not None else host.new_id(wall)
        envelope = from_push(push, extra, sender, caller.peer, message_id, wall, host.config.durability)
        refusal = self._loop_refusal(push, sender)
        if refusal is None and not self.has_room(envelope.body_bytes, now):
            refusal = host.disk_full()
        if refusal is not None and host.mailbox.find(message_id, sender) is None:  # what is stored is told truthfully
            if refusal.code == "loop":
                self._tell_of_loop(
                    Lineage(push.hops, push.trace_id, tuple(push.path or ())), sender, refusal.message, now, wall
                )
            raise refusal
        state, duplicate = host.store(envelope, now, wall)
        if not duplicate and push.hops and push.trace_id is not None:
            self._traces.count(push.trace_id)
        power = "power" in (state.durability, envelope.durability)
        line = host.receipt_line(
            request_id, state, duplicate=duplicate, stage=None if duplicate else Stage.STORED, power=power
        )
        host.staged.append(Answer(caller, line, after_flush=power))

    def receipt(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: frame.Find = frame.parse(frame.Find, request)
        sent = self._sent_by_us(caller, params.id, params.sender)
        if isinstance(sent, Row):
            return self._host.queued_line(request_id, sent)
        if sent is not None:
            return frame.answer(request_id, sent)
        return self._host.receipt_line(request_id, self._stored(caller, params.id, params.sender), with_reply=True)

    def wait(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes | None:
        params: frame.Wait = frame.parse(frame.Wait, request)
        if params.stage not in WAITABLE:
            raise LocalProtocolError(
                f"stage {params.stage!r} cannot be waited for", code="bad_params", hint=f"use {', '.join(WAITABLE)}"
            )
        if not 0 <= params.timeout <= frame.WAIT_S_MAX:
            raise LocalProtocolError(
                f"timeout {params.timeout} is out of range", code="bad_params", hint="use 0 to a year, in seconds"
            )
        wanted = Stage(params.stage)
        number = None
        sent = self._sent_by_us(caller, params.id, params.sender)
        if isinstance(sent, Row):
            if params.timeout == 0:
                return self._host.queued_line(request_id, sent)
        elif sent is not None:
            return frame.answer(request_id, sent)
        else:
            state = self._stored(caller, params.id, params.sender)
            number = state.msg_no
            if state.stage.reached(wanted) or params.timeout == 0:
                return self._host.receipt_line(request_id, state, with_reply=True)
        if len(self._host.watchers) >= WAITS_MAX or self._has_its_waits(caller):
            raise again()
        self._host.watchers.append(Watcher(caller, request_id, params.id, number, wanted, now + params.timeout))
        return None

    def cancel(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: frame.Find = frame.parse(frame.Find, request)
        if isinstance(self._sent_by_us(caller, params.id, params.sender), Row):
            raise Refused(
                f"message {params.id} is still queued in the outbox of {self._host.name}",
                code="queued",
                hint="it can be cancelled once its target has it, and nobody took it",
            )
        state = self._stored(caller, params.id, params.sender)
        if state.kind in SESSION_KINDS:
            raise LocalProtocolError(
                f"{state.id} belongs to a session, which is ended as a whole",
                code="bad_params",
                hint=f"its other agent may: backchannel abort {state.session} --reason R",
            )
        self._host.mailbox.cancel(state, wall)
        return self._host.receipt_line(request_id, self._host.mailbox.get_by_number(state.msg_no))

    def ping(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        return frame.answer(
            request_id,
            {
                "agent": self._host.name,
                "protocol": frame.PROTOCOL,
                "version": __version__,
                "mailbox_id": self._host.mailbox.mailbox_id,
                "backlog": self._host.mailbox.counters.unacked,
                "receiving": self._host.is_receiving,
                "paused": self._host.mailbox.paused,
            },
        )

    def check_addressee(self, to: str) -> None:
        """Raises `LocalProtocolError` for what was carried to the wrong door."""
        if to != self._host.name:
            AgentName(to)
            raise LocalProtocolError(
                f"this is the inbox of {self._host.name}, not of {to}", code="bad_params", hint=f"connect to {to}'s"
            )

    def prove(self, name: str | None, auth: str | None, caller: Caller, now: float) -> str | None:
        """Who pushes: an agent of our user that shows its key, one of another's by the kernel's word, or nobody in
        particular. Raises `NotPermitted`."""
        if name is None:
            return None
        sender = name if name in self._shown else str(AgentName(name))
        if self._host.is_stranger(caller):
            if not self._is_owner(caller.peer.uid, sender):
                raise NotPermitted(
                    f"uid {caller.peer.uid} may not speak as {sender}: it owns no such agent",
                    hint="leave `from` out to push as @user",
                )
            return sender
        at, key = self._shown.get(sender, (0.0, None))
        if at != now or not _is_shown(key, auth):  # a batch comes in one pass, and its key's file is looked at once
            key = self._host.key_of(sender)
        if key is None and self._is_owner(caller.peer.uid, sender):  # root's own agent
            return sender
        if key is None:
            raise NotPermitted(f"there is no agent {sender} to speak for", hint=f"register it: backchannel up {sender}")
        if not _is_shown(key, auth):
            why = "no key was shown" if auth is None else "the key shown is not its key"
            raise NotPermitted(
                f"only {sender} itself may speak as {sender}: {why}", hint="leave `from` out to push as @user"
            )
        self._shown[sender] = (now, key)
        return sender

    def _loop_refusal(self, push: frame.Push, sender: str) -> BackchannelError | None:
        """What stops a loop: too many hops, too many of one trace, or a model that goes past its own daemon."""
        if push.kind != "message":
            if push.outbox and not sender.startswith("@"):
                return None  # a notice of an agent's daemon; nobody answers it
            return NotPermitted(f"only an agent's daemon says {push.kind!r}", hint="push a message")
        if not push.outbox and not sender.startswith("@") and self._host.is_model_driven(sender):
            return NotPermitted(
                f"{sender} is driven by a model and sends only through its own daemon",
                code="via_outbox",
                hint="use the library or the command line, which do that",
            )
        return self._loop_in(push)

    def guard_offer(self, peer: str, lineage: Lineage, now: float, wall: float) -> None:
        """As for a message: an offer that is a loop is refused, and everybody in it is told. Raises `Refused`."""
        if (refusal := self._loop_in(lineage)) is not None:
            self._tell_of_loop(lineage, peer, refusal.message, now, wall)
            raise refusal

    def count_offer(self, lineage: Lineage) -> None:
        """One more of its trace is stored."""
        if lineage.hops and lineage.trace_id is not None:
            self._traces.count(lineage.trace_id)

    def _loop_in(self, lineage: Lineage | frame.Push) -> BackchannelError | None:
        if lineage.hops == 0:
            return None
        if lineage.hops > guard.HOPS_MAX:
            return guard.too_many_hops(lineage.hops, self._host.name)
        if lineage.trace_id is not None and self._traces.is_full(lineage.trace_id):
            return guard.too_many_messages(lineage.trace_id, self._host.name)
        return None

    def _tell_of_loop(self, lineage: Lineage, sender: str, text: str, now: float, wall: float) -> None:
        """The sender is told by the refusal; we and the others it went through by a notice, once a trace.

        A trace is the sender's own word, and no limit of the mailbox holds for our notices: so he gets only so many.
        """
        if not self._told.add(lineage.trace_id or f"without a trace, from {sender}"):
            return
        is_allowed, _ = self._tellings.take(sender, now)
        unread = self._host.mailbox.counters.by_sender.get(self._host.name)
        if not is_allowed or (unread is not None and unread.stored >= NOTICES_MAX):
            return
        logger.warning("%s: a loop was stopped (trace %s, from %s)", self._host.name, lineage.trace_id, sender)
        headers = {"from": shown_sender(sender)}
        if lineage.trace_id is not None:
            headers["trace_id"] = lineage.trace_id
        self._host.notice("loop", text, wall, now=now, headers=headers)
        known = self._host.registered()
        for name in dict.fromkeys(lineage.path):
            if name not in (self._host.name, sender) and name in known:
                self._host.notify(name, "loop", text, self._host.new_id(wall), wall, headers=headers)

    def has_room(self, size: int, now: float) -> bool:
        self.unchecked_bytes += size + LOG_BYTES
        reserve = self._host.config.reserve_bytes
        if self.unchecked_bytes < min(RESERVE_CHECK_BYTES, reserve >> 3) and now - self._checked_at < RESERVE_CHECK_S:
            return True
        # What stands in the log needs its place in the file too, before the log can be used anew.
        if self._host.free_bytes() - self._host.mailbox.wal_bytes < reserve:
            self.unchecked_bytes = RESERVE_CHECK_BYTES
            return False
        self.unchecked_bytes = 0
        self._checked_at = now
        return True

    def _has_its_waits(self, caller: Caller) -> bool:
        """Whether another uid has as many places as one of them may take from the rest."""
        if not self._host.is_stranger(caller):
            return False
        theirs = sum(watcher.caller.peer.uid == caller.peer.uid for watcher in self._host.watchers)
        return theirs >= WAITS_OF_ANOTHER_UID

    def _is_owner(self, uid: int, name: str) -> bool:
        policy = self._host.policy()
        return policy is not None and policy.owners.get(name) == uid

    def _stored(self, caller: Caller, message_id: str, sender: str | None) -> State:
        """A message of the mailbox: anybody's for our own user, but only his own for another."""
        uid = caller.peer.uid if self._host.is_stranger(caller) else None
        return self._host.mailbox.get(message_id, sender, uid)

    def _sent_by_us(self, caller: Caller, message_id: str, sender: str | None) -> Row | dict[str, Any] | None:
        """A message of our own that its target does not have: still in the outbox, or refused for good.

        Somebody else's message may bear the same id; without a `sender` what came to us goes before what we sent.
        """
        if sender not in (None, self._host.name) or not (self._host.outbox.waiting or self._host.undelivered):
            return None
        if self._host.is_stranger(caller):
            return None
        if sender is None and self._host.mailbox.has(message_id):
            return None
        return self._host.outbox.find(message_id) or self._host.undelivered.get(message_id)


def _is_shown(key: str | None, auth: str | None) -> bool:
    return key is not None and auth is not None and auth.isascii() and compare_digest(key, auth)


def again() -> BackchannelError:
    return BackchannelError("too many are waiting already", code="again", hint="ask again in a moment", retry=True)
