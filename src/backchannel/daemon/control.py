"""What an agent may ask of its own daemon beyond taking and settling: commit, claims, pause, and looking around.

A commit is one transaction: it is checked whole before anything is written, so a foreign delivery or an unknown target
costs nothing that stands beside it.
"""

import sqlite3
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from ..errors import BackchannelError, LocalProtocolError, PeerAbsent, Refused
from ..mailbox.mailbox import State
from ..protocol import fastcodec, frame
from ..protocol.codec import INTEGER_MAX
from ..protocol.envelope import (
    DURABILITIES,
    KINDS,
    PATH_MAX,
    PRIORITIES,
    SESSION_KINDS,
    Envelope,
    shown_sender,
    to_delivery,
)
from ..protocol.names import USER, AgentName, check_id, check_own_id, closest
from ..protocol.receipt import Stage
from ..protocol.sessionwire import Lineage, check_session_id
from . import guard
from .callers import Answer, Caller
from .taking import EVIDENCE, is_repeated

if TYPE_CHECKING:
    from .host import Host

COUNTED_KEPT = 1000  # a repetition comes within seconds, and no pair sends as many in that time
EVENTS_KEPT = 1000
EVENTS_AN_ANSWER = 500
EVENTS_WANTED_S = 60.0  # after a tap, events are recorded so long for the next one
LOOK_MAX = 1000
LOOK_ROWS_MAX = 5000  # looked at for one answer: some milliseconds, and the asker comes back
LOOK_BYTES_MAX = 1 << 20  # of texts in one answer; who wants more asks again behind the last
STAGES = tuple(stage.value for stage in Stage if stage is not Stage.QUEUED)  # of what is in a mailbox
TEXT_FIELD = 3  # of an envelope's fields


class Control:
    """These methods, bound to their host."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self.pairs = guard.Pairs()
        self._counted: dict[tuple[str, str], None] = {}  # the last that passed the rate, oldest first
        self.inheritance = guard.Inheritance()
        self.events = Events()
        self.tappers: list[Tapper] = []
        self.claims: dict[str, Caller] = {}  # of answers
        self.session_claims: dict[str, Caller] = {}

    # --- commit -------------------------------------------------------------------------------------------------------

    def commit(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: frame.Commit = frame.parse(frame.Commit, request)
        acks, replies = self._check_deliveries(params)
        sends = [self._checked_send(send, now, wall) for send in params.sends]
        answers = [self._checked_reply(reply, state, wall) for reply, state, _ in replies]
        new_answers = [
            push for (_, _, _, push), (_, _, is_new) in zip(answers, replies, strict=True) if push and is_new
        ]
        self._check_ids([*sends, *new_answers])
        host = self._host
        host.session_calls.check(params.says, params.closes, now, wall)
        if sends or answers or params.says:
            if not host.has_room(len(bytes(request.params)), now):  # acks alone must fit until the end
                raise host.disk_full()
            host.outbox.admit(len(sends) + len(answers))
        for send in sends:
            self.check_rate(send["to"], send["id"], now, wall)
        host.session_calls.check_rates(params.says, now, wall)
        for ack, state in acks:
            host.taking.acked(state, ack.evidence, now, wall)
        said, closed = host.session_calls.do(params.says, params.closes, now, wall)
        results = []
        for (state, reply_id, text, push), (_, _, is_new) in zip(answers, replies, strict=True):
            if is_new:
                host.taking.settling(state, wall)
                host.mailbox.answer(state, reply_id, None if push else text, wall)
            if push and is_new:
                host.outbox.add(shown_sender(state.sender), reply_id, fastcodec.encode(push), wall)
            receipt = queued(reply_id, shown_sender(state.sender), host.name)
            if not push:  # an @user finds the answer with the question: it lies where it is looked for already
                receipt |= {
                    "stage": Stage.STORED.value,
                    "durability": state.durability,
                    "mailbox_id": host.mailbox.mailbox_id,
                    "msg_no": state.msg_no,
                }
            results.append(receipt)
        for push in sends:
            host.outbox.add(push["to"], push["id"], fastcodec.encode(push), wall)
            results.append(queued(push["id"], push["to"], host.name))
        return frame.answer(request_id, {"sends": results, "says": said, "closes": closed})

    def _check_deliveries(
        self, params: frame.Commit
    ) -> tuple[list[tuple[frame.Ack, State]], list[tuple[frame.Reply, State, bool]]]:
        seen: set[int] = set()
        acks, replies = [], []
        for ack in params.acks:
            if ack.evidence not in EVIDENCE:
                raise _bad(f"evidence {ack.evidence!r} is unknown", f"use {', '.join(EVIDENCE)}")
            state = self._host.taking.found(ack)
            if not is_repeated(ack, state, Stage.ACKED, Stage.DONE):
                state.check_current(ack.delivery)
                acks.append((ack, self._once(state, seen)))
        for reply in params.replies:
            state, is_new = self.answerable(reply)
            replies.append((reply, self._once(state, seen), is_new))
        return acks, replies

    @staticmethod
    def _once(state: State, seen: set[int]) -> State:
        if state.msg_no in seen:
            raise _bad(f"message {state.id} is named twice", "settle each delivery once")
        seen.add(state.msg_no)
        return state

    def answerable(self, reply: frame.Reply) -> tuple[State, bool]:
        """The message a reply answers, and whether the reply is new: it may have been committed before, and its
        receipt lost. Raises `Refused`."""
        state = self._host.mailbox.get(reply.id, reply.sender)
        if state.kind in SESSION_KINDS:
            raise _bad(f"{state.id} belongs to a session", f"answer in it: backchannel say {state.session} TEXT")
        if state.stage is Stage.DONE and reply.reply_id is not None and state.reply_id == reply.reply_id:
            return state, False
        if state.stage is Stage.ACKED and reply.delivery in (None, state.delivery):
            return state, True  # an ack said "I have it"; the answer may come later
        if state.stage is Stage.DONE:
            raise Refused(
                f"message {reply.id} was answered already (by {state.reply_id})",
                code="ended",
                hint="send a new message instead",
            )
        state.check_current(reply.delivery)
        return state, True

    def _checked_reply(
        self, reply: frame.Reply, state: State, wall: float
    ) -> tuple[State, str, bytes, dict[str, Any] | None]:
        """What a reply needs: the message, the answer's id, its text, and the push (None: an @user has no mailbox)."""
        text = frame.parse_text(reply.text)
        reply_id = check_own_id(reply.reply_id) if reply.reply_id is not None else self._host.new_id(wall)
        name = shown_sender(state.sender)
        if name == USER:
            return state, reply_id, text, None
        self.require_target(name)
        hops, trace_id = state.hops + 1, state.trace_id or state.id
        push = _push(
            name, text, reply_id, wall, headers=reply.headers, reply_to=state.id, trace_id=trace_id, hops=hops,
            path=[*state.path, self._host.name],
        )  # fmt: skip
        return state, reply_id, text, push

    def _checked_send(self, send: frame.Send, now: float, wall: float) -> dict[str, Any]:
        target = str(AgentName(send.to))
        text = frame.parse_text(send.text)
        if send.priority not in PRIORITIES:
            raise _bad(f"priority {send.priority!r} is out of range", f"use {', '.join(PRIORITIES)}")
        if send.ttl is not None and not 0 < send.ttl <= frame.TTL_S_MAX:
            raise _bad(f"ttl {send.ttl} is out of range", f"use more than 0 and at most {frame.TTL_S_MAX:.0f} seconds")
        if send.durability not in (None, *DURABILITIES):
            raise _bad(f"durability {send.durability!r} is out of range", f"use {' or '.join(DURABILITIES)}")
        message_id = check_own_id(send.id) if send.id is not None else self._host.new_id(wall)
        for reference in (send.reply_to, send.trace_id):
            if reference is not None:
                check_id(reference)
        if not 0 <= send.hops <= INTEGER_MAX:
            raise _bad(f"hops {send.hops} is out of range", "use 0 or more")
        if send.path is not None and len([AgentName(name) for name in send.path]) > PATH_MAX:
            raise _bad(f"path {len(send.path)} is out of range", f"use at most {PATH_MAX} names")
        self.require_target(target)
        hops, trace_id, path = self.inherit(Lineage(send.hops, send.trace_id, tuple(send.path or ())), now)
        return _push(
            target, text, message_id, wall, headers=send.headers, priority=send.priority, ttl=send.ttl,
            durability=send.durability, reply_to=send.reply_to, trace_id=trace_id, hops=hops,
            path=list(path) or None, bounce=send.bounce,
        )  # fmt: skip

    def _check_ids(self, sends: list[dict[str, Any]]) -> None:
        """Raises `Refused` (`key_reused`) for an id that carries another text to the same target and is under way."""
        said: dict[tuple[str, str], dict[str, Any]] = {}
        for push in sends:
            key = (push["to"], push["id"])
            row = self._host.outbox.find(push["id"], push["to"]) if self._host.outbox.waiting else None
            before = said.setdefault(key, fastcodec.decode(row.params) if row else push)
            if before is not push and not _is_same(before, push):
                raise Refused(
                    f"id {push['id']} was used before with another text or other headers",
                    code="key_reused",
                    hint="use a new id for a new message",
                )

    def inherit(self, lineage: Lineage, now: float) -> Lineage:
        """What a model sends or opens now continues, though it says nothing. Who names a trace is believed: a program,
        or the adapter that knows what its model acts on."""
        if self._host.config.driven_by != "model" or lineage.trace_id is not None:
            return lineage
        hops, trace_id = max(lineage[:2], self.inheritance.of(now), key=lambda inherited: inherited[0])
        return Lineage(hops, trace_id, lineage.path or (*self.inheritance.path_of(now), self._host.name))

    def check_rate(self, target: str, key: str, now: float, wall: float) -> None:
        """Raises `OverLimit` (`rate`) for a model that sends too fast, and tells both ends when it begins to.

        Comes last of all checks: what is refused for another reason was not sent, and does not count. A repetition
        (the same key) does not either: it is told what became of it.
        """
        if self._host.config.driven_by != "model" or (target, key) in self._counted:
            return
        allowed, tripped = self.pairs.take(target, now)
        if tripped:
            text = f"{self._host.name} sends to {target} faster than a model should; further messages are refused"
            self._host.notice("loop", text, wall, now=now, headers={"peer": target})
            self._host.notify(target, "loop", text, self._host.new_id(wall), wall)
        if not allowed:
            raise guard.too_fast(target)
        self._counted[target, key] = None
        if len(self._counted) > COUNTED_KEPT:
            del self._counted[next(iter(self._counted))]

    def require_target(self, name: str) -> None:
        known = self._host.registered()
        if name not in known:
            nearest = closest(name, known)
            raise PeerAbsent(
                f"there is no agent {name}",
                code="unknown_agent",
                hint=f"did you mean {nearest}?" if nearest else f"make it: backchannel up {name}",
            )

    # --- claims, pause ------------------------------------------------------------------------------------------------

    def claim(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: frame.Claim = frame.parse(frame.Claim, request)
        if (params.reply_to is None) == (params.session is None):
            raise _bad("a claim names one thing", "use reply_to, or session")
        if params.reply_to is not None:
            self.claims[check_id(params.reply_to)] = caller
        else:
            self.claim_session(check_session_id(params.session or ""), caller)
        return frame.answer(request_id, {"reply_to": params.reply_to, "session": params.session})

    def claim_session(self, session: str, caller: Caller) -> None:
        """Raises `Refused` (`taken`)."""
        if self.session_claims.setdefault(session, caller) is not caller:
            raise Refused(
                f"session {session} is held by another process of {self._host.name}",
                code="taken",
                hint="end that one first",
                retry=True,
            )

    def may_have(self, caller: Caller, session: str | None, reply_to: str | None) -> bool:
        """Whether a message may be handed out on this connection: nobody else has claimed it."""
        if session is not None and self.session_claims.get(session, caller) is not caller:
            return False
        return reply_to is None or self.claims.get(reply_to, caller) is caller

    def closed(self, caller: Caller) -> None:
        self.tappers = [t for t in self.tappers if t.caller is not caller]
        for claims in (self.claims, self.session_claims):
            for claimed in [name for name, claimant in claims.items() if claimant is caller]:
                del claims[claimed]

    def pause(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        self._host.mailbox.set_paused(True)
        return frame.answer(request_id, {"agent": self._host.name, "paused": True})

    def resume(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        self._host.mailbox.set_paused(False)
        return frame.answer(request_id, {"agent": self._host.name, "paused": False})

    # --- looking around -----------------------------------------------------------------------------------------------

    def peek(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: frame.Peek = _look(frame.parse(frame.Peek, request))
        mailbox = self._host.mailbox
        _, last = mailbox.numbers()
        begin = max(params.after + 1, mailbox.first_unacked() or last + 1)
        end = min(begin + LOOK_ROWS_MAX, last + 1)
        rows = mailbox.waiting(begin, end, params.max)
        found = (({"stage": stage}, number, delivery, fields) for number, stage, delivery, *fields in rows)
        messages, is_cut = self._page(rows, found, with_text=params.text)
        reached = _number(messages[-1]) if is_cut or len(messages) == params.max else end - 1
        return frame.answer(request_id, {"messages": messages, "next": reached if reached < last else None})

    def log(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        """Looks at so many rows and no more: nobody else's mail waits while somebody reads a long history."""
        params: frame.Log = _look(frame.parse(frame.Log, request))
        first, last = self._host.mailbox.numbers()
        backwards = params.before is not None
        if backwards:
            end = min(params.before or last + 1, last + 1)
            begin = max(end - LOOK_ROWS_MAX, first)
        else:
            begin = max(params.after + 1, first)
            end = min(begin + LOOK_ROWS_MAX, last + 1)
        rows = self._host.mailbox.history(params, begin, end, newest_first=backwards)
        found = (
            (
                {
                    "stage": stage,
                    "reason": reason,
                    "stored_at": stored_at,
                    "ended_at": ended_at,
                    "purged": bool(is_purged),
                },
                number,
                delivery,
                fields,
            )
            for number, stage, reason, stored_at, ended_at, is_purged, delivery, *fields in rows
        )
        messages, is_cut = self._page(rows, found, with_text=params.text)
        is_full = is_cut or len(messages) == params.max
        reached = _number(messages[-1]) if is_full else begin if backwards else end - 1
        more = reached > first if backwards else reached < last
        shown = messages[::-1] if backwards else messages
        return frame.answer(request_id, {"messages": shown, "next": reached if more else None})

    def _page(
        self,
        rows: sqlite3.Cursor,
        found: Iterable[tuple[dict[str, Any], int, int, list[Any]]],
        *,
        with_text: bool,
    ) -> tuple[list[dict[str, Any]], bool]:
        """What is `found` in `rows`, until its texts fill an answer; and whether they did.

        An entry is (about, msg_no, delivery, envelope).
        """
        host = self._host
        messages, size = [], 0
        with closing(rows):
            for about, number, delivery, fields in found:
                entry = to_delivery(Envelope(*fields), host.name, delivery, number, host.mailbox.mailbox_id)
                messages.append({**about, "message": entry if with_text else _without_text(entry)})
                size += len(fields[TEXT_FIELD]) if with_text else 0
                if size > LOOK_BYTES_MAX:
                    return messages, True
        return messages, False

    def tap(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes | None:
        params: frame.Tap = frame.parse(frame.Tap, request)
        if not 0 <= params.wait <= frame.WAIT_S_MAX:
            raise _bad(f"wait {params.wait} is out of range", "use 0 to a year, in seconds")
        self.events.wanted_until = max(self.events.wanted_until, now + params.wait, now + EVENTS_WANTED_S)
        after = self.events.last if params.after is None else params.after
        tapper = Tapper(caller, request_id, after, now + params.wait, with_text=params.text)
        if params.wait == 0 or self.events.after(after):
            return self._tapped(tapper)
        self.tappers.append(tapper)
        return None

    def answer_taps(self, answers: list[Answer], now: float, wall: float) -> None:
        """Records what changed in this pass, and answers those who waited for it, or too long."""
        if now < self.events.wanted_until:
            for number, stage in self._host.mailbox.changed:
                state = self._host.mailbox.get_by_number(number)
                self.events.record(
                    {
                        "at": wall,
                        "id": state.id,
                        "msg_no": number,
                        "from": shown_sender(state.sender),
                        "to": self._host.name,
                        "kind": state.kind,
                        "session": state.session,
                        "trace_id": state.trace_id,
                        "stage": stage,
                        "reason": state.reason,
                    }
                )
        for tapper in list(self.tappers):
            tapper.is_new = False
            if tapper.deadline <= now or self.events.after(tapper.after):
                self.tappers.remove(tapper)
                answers.append(Answer(tapper.caller, self._tapped(tapper)))

    def _tapped(self, tapper: "Tapper") -> bytes:
        events = self.events.after(tapper.after)
        if tapper.with_text:
            events = [{**event, "text": Raw(self._host.mailbox.text(event["msg_no"]))} for event in events]
        last = events[-1]["no"] if events else tapper.after
        return frame.answer(tapper.request_id, {"events": events, "last": last})

    def forget_new(self) -> list[Caller]:
        """The pass failed: those who came to tap in it will ask anew."""
        new_ones = [tapper.caller for tapper in self.tappers if tapper.is_new]
        self.tappers = [tapper for tapper in self.tappers if not tapper.is_new]
        return new_ones

    def config(self, caller: Caller, request: frame.Request, request_id: bytes, now: float, wall: float) -> bytes:
        return frame.answer(request_id, {"settings": self._host.config.shown()})


class Tapper:
    """A `tap` that waits for events."""

    __slots__ = ("after", "caller", "deadline", "is_new", "request_id", "with_text")

    def __init__(self, caller: Caller, request_id: bytes, after: int, deadline: float, *, with_text: bool) -> None:
        self.caller = caller
        self.request_id = request_id
        self.after = after
        self.deadline = deadline
        self.with_text = with_text
        self.is_new = True  # arrived in this pass


class Events:
    """What happened lately, for `tap`: numbered, the last thousand. Recorded only while somebody looks."""

    def __init__(self) -> None:
        self._kept: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self.last = 0
        self.wanted_until = 0.0

    def record(self, event: dict[str, Any]) -> None:
        self.last += 1
        self._kept.append({"no": self.last, **event})

    def after(self, number: int) -> list[dict[str, Any]]:
        return [event for event in self._kept if event["no"] > number][:EVENTS_AN_ANSWER]


def queued(message_id: str, to: str, sender: str) -> dict[str, Any]:
    """The receipt of a message that is in the own daemon's outbox: not `stored` anywhere else yet."""
    return {
        "id": message_id, "to": to, "from": sender, "stage": Stage.QUEUED.value, "reason": None, "durability": None,
        "duplicate": False, "mailbox_id": None, "msg_no": None, "delivery": 0, "evidence": None, "reply_id": None,
    }  # fmt: skip


def _push(to: str, text: bytes, message_id: str, wall: float, **fields: Any) -> dict[str, Any]:
    params = {key: value for key, value in fields.items() if value is not None}
    return {"to": to, "id": message_id, "text": Raw(text), "sent_at": wall, "bounce": True, **params}


def _is_same(before: dict[str, Any], push: dict[str, Any]) -> bool:
    text = before["text"]
    text = fastcodec.decode(bytes(text)) if isinstance(text, Raw) else text
    return bool(text == fastcodec.decode(bytes(push["text"])) and before.get("headers") == push.get("headers"))


def _look(params: Any) -> Any:
    if not 1 <= params.max <= LOOK_MAX:
        raise _bad(f"max {params.max} is out of range", f"use 1 to {LOOK_MAX}")
    for name in ("after", "before"):
        number = getattr(params, name, None) or 0
        if not 0 <= number <= INTEGER_MAX:
            raise _bad(f"{name} {number} is out of range", "use the msg_no of a message")
    for name, words in (("kind", (*KINDS, *SESSION_KINDS)), ("stage", STAGES)):
        word = getattr(params, name, None)
        if word is not None and word not in words:
            raise _bad(f"{name} {word[:40]!a} is unknown", f"use {', '.join(words)}")
    return params


def _number(shown: dict[str, Any]) -> int:
    number: int = shown["message"].msg_no
    return number


def _without_text(entry: Any) -> Any:
    entry.text = Raw(b"null")
    return entry


def _bad(what: str, hint: str) -> BackchannelError:
    return LocalProtocolError(what, code="bad_params", hint=hint)
