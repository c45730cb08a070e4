"""What is asked about sessions: by peers' daemons (`frame`, `probe`), and by the own agent.

Each call may be repeated by whoever lost the answer: it then finds done what it asks for, and is told so. A refusal
leaves everything as it was.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import BackchannelError, LocalProtocolError, NotPermitted, OverLimit, Refused
from ..protocol import fastcodec, sessionwire
from ..protocol.frame import WAIT_S_MAX, Close, Request, Say, answer, answer_error, parse
from ..protocol.names import AgentName, check_id, make_id
from ..protocol.session import Role, Session
from ..protocol.sessionframe import Data, Syn
from ..protocol.states import Cause, State
from .callers import Answer, Caller
from .inbox import WAITS_MAX, again
from .sessions import ANSWERED, Asked

if TYPE_CHECKING:
    from .host import Host

LIST_MAX = 1000
ANSWER_CHARS_MAX = 1 << 20  # of texts in one answer; who wants more asks again behind the last
EVENTS_AN_ANSWER = 1000
OPEN_MAX = 10_000  # sessions an agent may have open; each costs some kilobytes of memory
FRAME_OF = {
    "offer": "SYN", "accepted": "SYN-ACK", "rejected": "REJ", "data": "DATA", "finished": "FIN", "reset": "RST"
}  # fmt: skip
STATES = [state.value for state in State if state is not State.NONE]
FRAME_BYTES = 2048  # of a line that brings a text to the peer, beside the text


class SessionCalls:
    """These methods, bound to their host."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self.watchers: list[SessionWatcher] = []

    # --- peers' daemons, on the inbox ---------------------------------------------------------------------------------

    def frame(self, caller: Caller, request: Request, request_id: bytes, now: float, wall: float) -> None:
        params, received = sessionwire.parse_frame(request)
        peer = self._peer(params, caller, now)
        sessions = self._host.sessions
        lineage = sessionwire.lineage_of(params)
        if isinstance(received, Syn | Data) and not sessions.endpoint.has_stored(received):
            if isinstance(received, Syn):
                self._host.inbox_calls.guard_offer(peer, lineage, now, wall)
            self._admit(peer, len(params.text.encode()), now)
        effects = sessions.endpoint.receive(peer, received, now)
        if isinstance(received, Syn) and effects:  # it is offered; a repetition is no further message of its trace
            self._host.inbox_calls.count_offer(lineage)
        sessions.carry_out(effects, now, wall, peer=caller.peer, lineage=lineage)
        sessions.ask(received.id, Asked(caller, request_id, peer))

    def probe(self, caller: Caller, request: Request, request_id: bytes, now: float, wall: float) -> None:
        params, received = sessionwire.parse_probe(request)
        peer = self._peer(params, caller, now)
        sessions = self._host.sessions
        effects = sessions.endpoint.receive(peer, received, now)
        sessions.carry_out(effects, now, wall)
        sessions.ask(received.id, Asked(caller, request_id, peer))

    def _peer(self, params: sessionwire.Frame | sessionwire.ProbeFrame, caller: Caller, now: float) -> str:
        self._host.inbox_calls.check_addressee(params.to)
        sender = self._host.inbox_calls.prove(params.sender, params.auth, caller, now)
        if sender is None:
            raise NotPermitted("only an agent has sessions", hint="say who you are, and show the agent's key")
        self._host.courier.heard_from(sender)
        return sender

    def _admit(self, peer: str, size: int, now: float) -> None:
        self._host.mailbox.counters.admit(peer, size)
        self._keep_reserve(size, now)

    def _keep_reserve(self, size: int, now: float) -> None:
        """New texts leave some of the disk free, so that acks, closes and aborts fit until the end."""
        if not self._host.has_room(size, now):
            raise self._host.disk_full()

    # --- the own agent ------------------------------------------------------------------------------------------------

    def open(self, caller: Caller, request: Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: sessionwire.Open = parse(sessionwire.Open, request)
        host, sessions = self._host, self._host.sessions
        target = str(AgentName(params.to))
        session_id = params.session or make_id("s", int(wall * 1000), host.random(10))
        known = sessions.endpoint.find(sessionwire.check_session_id(session_id))
        if known is not None:
            if known.peer != target or sessions.store.about(session_id).task != params.text:
                raise Refused(
                    f"session {session_id} was opened with another agent or task",
                    code="key_reused",
                    hint="open one with a new id",
                )
            return self._record(request_id, session_id, now)
        if target == host.name:
            raise _bad(f"{target} cannot open a session with itself", "name another agent, or send it a message")
        limits = sessionwire.to_limits(params, params.accept_timeout).narrowed(host.config.session_limits)
        lineage = sessionwire.lineage_of(params)
        if host.key_of(target) is None:  # to look through all names takes longer than the rest of an open
            host.own_calls.require_target(target)
        if sessions.endpoint.open_count >= OPEN_MAX:
            raise OverLimit(f"{OPEN_MAX} sessions are open", code="full", hint="close some", retry=True)
        self._keep_reserve(len(params.text.encode()), now)
        lineage = host.own_calls.inherit(lineage, now)
        self._check_size(params.text, len(fastcodec.encode([lineage.trace_id, *lineage.path])))
        host.own_calls.check_rate(target, session_id, now, wall)
        effects = sessions.endpoint.open(session_id, target, params.text, limits, now)
        sessions.store.begin(session_id, target, Role.INITIATOR, params.text, lineage, wall)
        sessions.carry_out(effects, now, wall, lineage=lineage)
        return self._record(request_id, session_id, now)

    def accept(self, caller: Caller, request: Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: sessionwire.Accept = parse(sessionwire.Accept, request)
        sessions = self._host.sessions
        limits = sessionwire.to_limits(params, None).narrowed(self._host.config.session_limits)
        session = sessions.endpoint.session(params.session)
        if params.claim:
            self._host.own_calls.claim_session(params.session, caller)
        if session.role is not Role.ACCEPTOR or session.state in (State.SYN_RECEIVED, State.CLOSED):
            effects = sessions.endpoint.accept(params.session, now, limits)
            sessions.withdraw(params.session, "offer", ANSWERED, wall)
            sessions.carry_out(effects, now, wall)
        return self._record(request_id, params.session, now)

    def reject(
        self, request_id: bytes, session_id: str, reason: str, retry_after: float | None, now: float, wall: float
    ) -> bytes:
        """`reject` of a session's offer; that of a message is `Taking.reject`."""
        sessions = self._host.sessions
        sessionwire.checked_seconds("retry_after", retry_after)
        session = sessions.endpoint.session(session_id)
        is_done = session.role is Role.ACCEPTOR and session.cause is Cause.REJECTED and session.reason == reason
        if not is_done:
            effects = sessions.endpoint.reject(session_id, reason, now, retry_after)
            sessions.carry_out(effects, now, wall)
        return self._record(request_id, session_id, now)

    def say(self, caller: Caller, request: Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: Say = parse(Say, request)
        before = self._said_before(params)
        if before is not None:
            return answer(request_id, self._said(params, before, duplicate=True))
        self._check_size(params.text)
        if not self._is_sure(params.session):
            self._check_say(params, self._rehearsal(), now, wall)
        self._keep_reserve(len(params.text.encode()), now)
        self.check_rates([params], now, wall)
        return answer(request_id, self._say_new(params, now, wall))

    def close(self, caller: Caller, request: Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: Close = parse(Close, request)
        self.check([], [params], now, wall)
        self._close(params, now, wall)
        return self._record(request_id, params.session, now)

    def abort(self, caller: Caller, request: Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: sessionwire.Abort = parse(sessionwire.Abort, request)
        sessions = self._host.sessions
        reason = sessionwire.checked_reason(params.reason) or "aborted"
        if sessions.endpoint.session(params.session).cause is not Cause.ABORTED:
            sessions.carry_out(sessions.endpoint.abort(params.session, reason, now), now, wall)
        return self._record(request_id, params.session, now)

    def progress(self, request_id: bytes, session_id: str, note: str, now: float, wall: float) -> bytes:
        """`renew` of a session: leases of its mail begin anew, and the peer sees how far our agent is."""
        sessions = self._host.sessions
        effects = sessions.endpoint.progress(session_id, sessionwire.checked_note(note) or "working", now)
        sessions.carry_out(effects, now, wall)
        for leased in self._host.mailbox.leased.values():
            if leased.ordered == session_id:
                self._host.taking.renew_lease(leased.take, now)
        return self._record(request_id, session_id, now)

    # --- as a part of `commit`, which checks all before it does any ---------------------------------------------------

    def check(self, says: list[Say], closes: list[Close], now: float, wall: float) -> None:
        """Raises what stands in the way of any of it. Nothing has happened then, but that a session which would pass
        its budget is over: that is what a budget is for."""
        rehearsed = self._check_says(says, now, wall)
        self._check_closes(closes, rehearsed, now)

    def check_rates(self, says: list[Say], now: float, wall: float) -> None:
        """The last check of all. Raises `OverLimit` (`rate`)."""
        for params in says:
            session = self._host.sessions.endpoint.session(params.session)
            key = f"{params.session}/{params.id or self._host.random(10).hex()}"
            self._host.own_calls.check_rate(session.peer, key, now, wall)

    def do(
        self, says: list[Say], closes: list[Close], now: float, wall: float
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What was checked: a receipt for each text, a record for each close."""
        said = [self._say(params, now, wall) for params in says]
        for params in closes:
            self._close(params, now, wall)
        return said, [self._host.sessions.record(params.session, now) for params in closes]

    def _check_says(self, says: list[Say], now: float, wall: float) -> "Rehearsal":
        rehearsed = self._rehearsal()
        for params in says:
            if self._said_before(params) is None:
                self._check_size(params.text)
                self._check_say(params, rehearsed, now, wall)
        return rehearsed

    def _check_say(self, params: Say, rehearsed: "Rehearsal", now: float, wall: float) -> None:
        trial = rehearsed.session(params.session)
        before = trial.state
        trial.send(params.text, now, input_required=params.input_required)
        if before.is_open and not trial.state.is_open:
            raise self._overspent(params, now, wall, trial.reason)

    def _is_sure(self, session_id: str) -> bool:
        """Whether nothing in the machine can refuse one more text: then it is not rehearsed, which takes longer than to
        say it."""
        session = self._host.sessions.endpoint.session(session_id)
        return session.room > 0 and session.limits.max_messages is None and session.limits.max_bytes is None

    def _check_closes(self, closes: list[Close], rehearsed: "Rehearsal", now: float) -> None:
        for params in closes:
            sessionwire.checked_status(params.status)
            self._check_size(params.text)
            if not self._is_closed_so(params):
                rehearsed.session(params.session).close(now, params.status, params.text)

    def _overspent(self, params: Say, now: float, wall: float, limit: str) -> BackchannelError:
        """The text would pass the session's budget. If it does so by itself, that ends the session; if only together
        with what stands before it in the commit, nothing of it happens."""
        sessions = self._host.sessions
        alone = self._rehearsal().session(params.session)
        alone.send(params.text, now, input_required=params.input_required)
        hint = "say less at once"
        if not alone.state.is_open:
            effects = sessions.endpoint.send(params.session, params.text, now, input_required=params.input_required)
            sessions.carry_out(effects, now, wall)
            hint = "the session is over; open a new one"
        return Refused(
            f"the text would pass what session {params.session} was given ({limit})",
            code="budget",
            reason=limit,
            hint=hint,
        )

    def _say(self, params: Say, now: float, wall: float) -> dict[str, Any]:
        before = self._said_before(params)
        if before is not None:
            return self._said(params, before, duplicate=True)
        return self._say_new(params, now, wall)

    def _say_new(self, params: Say, now: float, wall: float) -> dict[str, Any]:
        sessions = self._host.sessions
        session = sessions.endpoint.session(params.session)
        seq = session.send_queue.snd_nxt
        effects = sessions.endpoint.send(params.session, params.text, now, input_required=params.input_required)
        sessions.carry_out(effects, now, wall, say_id=params.id)
        return self._said(params, seq, duplicate=False)

    def _said(self, params: Say, seq: int, *, duplicate: bool) -> dict[str, Any]:
        to = self._host.sessions.endpoint.session(params.session).peer
        return {
            "session": params.session, "seq": seq, "id": f"{params.session}/{seq}", "stage": "queued", "to": to,
            "from": self._host.name, "duplicate": duplicate,
        }  # fmt: skip

    def _said_before(self, params: Say) -> int | None:
        """The number under which this key was said before in the session. Raises `Refused` for another text."""
        if params.id is None:
            return None
        found = self._host.sessions.frames.said(params.session, check_id(params.id))
        if found is None:
            return None
        seq, kept = found
        if fastcodec.decode(kept).get("text", "") != params.text:
            raise Refused(
                f"id {params.id} was used before in session {params.session} with another text",
                code="key_reused",
                hint="use a new id for a new text",
            )
        return seq

    def _close(self, params: Close, now: float, wall: float) -> None:
        sessions = self._host.sessions
        if not self._is_closed_so(params):
            sessions.carry_out(sessions.endpoint.close(params.session, now, params.status, params.text), now, wall)

    def _is_closed_so(self, params: Close) -> bool:
        """Whether we closed it before, with the same words: the answer was lost."""
        session = self._host.sessions.endpoint.session(params.session)
        if session.send_queue.fin is None:
            return False
        about = self._host.sessions.store.about(params.session)
        return (about.status, about.result) == (params.status, params.text)

    def _check_size(self, text: str, beside: int = 0) -> None:
        size = len(fastcodec.encode(text)) + beside
        limit = self._host.config.line_bytes_max - FRAME_BYTES
        if size > limit:
            raise OverLimit(
                f"a text of {size} bytes does not fit into one frame of {limit}",
                code="oversize",
                hint="say it in parts, or raise line_bytes_max at both ends",
            )

    def _rehearsal(self) -> "Rehearsal":
        return Rehearsal(self._host)

    # --- looking ------------------------------------------------------------------------------------------------------

    def sessions(self, caller: Caller, request: Request, request_id: bytes, now: float, wall: float) -> bytes | None:
        params: sessionwire.Sessions = parse(sessionwire.Sessions, request)
        if not 1 <= params.max <= LIST_MAX:
            raise _bad(f"max {params.max} is out of range", f"use 1 to {LIST_MAX}")
        if not 0 <= params.wait <= WAIT_S_MAX:
            raise _bad(f"wait {params.wait} is out of range", "use 0 to a year, in seconds")
        if params.state is not None and params.state not in STATES:
            raise _bad(f"state {params.state[:40]!a} is unknown", f"use {', '.join(STATES)}")
        watcher = SessionWatcher(caller, request_id, params, now + params.wait)
        line = self._news(watcher, now)
        if line is None:
            if len(self.watchers) >= WAITS_MAX:
                raise again()
            self.watchers.append(watcher)
        elif params.told and params.session is not None:
            self._host.sessions.was_told(params.session, wall)
        return line

    def will_tell(self, session: Session) -> bool:
        """Whether somebody waits for just this news, and needs no notice of it."""
        return any(
            watcher.params.told and watcher.params.session == session.id and not _is_known(watcher.params, session)
            for watcher in self.watchers
        )

    def answer_watchers(self, answers: list[Answer], now: float) -> None:
        """Those who wait for news of sessions, after a commit."""
        left = []
        for watcher in self.watchers:
            watcher.is_new = False
            try:
                line = self._news(watcher, now) if self._is_worth_a_look(watcher, now) else None
            except LocalProtocolError as error:  # it was forgotten meanwhile
                line = answer_error(watcher.request_id, error)
            if line is None:
                left.append(watcher)
            else:
                answers.append(Answer(watcher.caller, line))
        self.watchers = left

    def _is_worth_a_look(self, watcher: "SessionWatcher", now: float) -> bool:
        """A list that had nothing to say can only get what changed in this pass. To look through all of it would cost
        every commit some milliseconds where there are many tombstones: each message of an agent that awaits offers."""
        if watcher.params.session is not None or watcher.deadline <= now:
            return True
        sessions = self._host.sessions
        changed = [found for name in sessions.changed if (found := sessions.endpoint.find(name)) is not None]
        return bool(_matching(watcher.params, changed))

    def _news(self, watcher: "SessionWatcher", now: float) -> bytes | None:
        """The answer, if there is something to say or the time is over."""
        params, host = watcher.params, self._host
        is_over = watcher.deadline <= now
        if params.session is not None:
            session = host.sessions.endpoint.find(params.session)
            if session is not None and _is_known(params, session) and not is_over:
                return None
            found = [host.sessions.endpoint.session(params.session)]
        else:
            found = self._found(params)
            if not found and not is_over:
                return None
        records, size = [], 0
        for session in found:
            record = host.sessions.record(session.id, now)
            records.append(record)
            size += sum(len(record[text] or "") for text in ("task", "result", "peer_result"))
            if size > ANSWER_CHARS_MAX:
                break
        told = {"told": True} if params.told and params.session is not None else {}
        return answer(watcher.request_id, {"sessions": records, **told})

    def _found(self, params: sessionwire.Sessions) -> list[Session]:
        endpoint = self._host.sessions.endpoint
        is_of_offers = params.state == State.SYN_RECEIVED.value
        found = _matching(params, endpoint.offers() if is_of_offers else endpoint.sessions())
        # Ids begin with the time. Offers are answered in the order they came, all else is looked at from its end.
        found.sort(key=lambda session: session.id, reverse=not is_of_offers)
        return found[: params.max]

    def trace(self, caller: Caller, request: Request, request_id: bytes, now: float, wall: float) -> bytes:
        params: sessionwire.Trace = parse(sessionwire.Trace, request)
        record = self._host.sessions.record(params.session, now)
        events = [*self._sent(params), *self._received(params)]
        events.sort(key=lambda event: event["at"])
        shown, size = [], 0
        for event in events[max(0, params.after) :][:EVENTS_AN_ANSWER]:
            shown.append(event)
            size += len(event.get("text", ""))
            if size > ANSWER_CHARS_MAX:
                break
        return answer(request_id, {"session": record, "events": shown})

    def _sent(self, params: sessionwire.Trace) -> list[dict[str, Any]]:
        events = []
        for kind, number, kept, stage, sent_at, stored_at, acked_at in self._host.sessions.frames.history(
            params.session
        ):
            said = fastcodec.decode(kept)
            text = said.get("text", said.get("reason", ""))
            events.append(_event("out", kind, number, text, sent_at, stored_at, acked_at, stage, params))
        return events

    def _received(self, params: sessionwire.Trace) -> list[dict[str, Any]]:
        events = []
        for kind, message_id, raw, stage, stored_at, ended_at in self._host.sessions.store.received(params.session):
            if kind not in FRAME_OF:
                continue  # somebody's message that only bears the session's id
            _, _, number = message_id.rpartition("/")
            seq = int(number) if number.isdigit() else 0
            is_acked = kind in ("data", "finished") and stage == "acked"
            text = fastcodec.decode(raw)
            events.append(
                _event(
                    "in", FRAME_OF[kind], seq, text, stored_at, stored_at, ended_at if is_acked else None, stage, params
                )
            )
        return events

    def forget_new(self) -> list[Caller]:
        """The pass failed: those who came to wait in it will ask anew."""
        new_ones = [watcher.caller for watcher in self.watchers if watcher.is_new]
        self.watchers = [watcher for watcher in self.watchers if not watcher.is_new]
        return new_ones

    def closed(self, caller: Caller) -> None:
        self.watchers = [w for w in self.watchers if w.caller is not caller]

    def _record(self, request_id: bytes, session_id: str, now: float) -> bytes:
        return answer(request_id, self._host.sessions.record(session_id, now))


class SessionWatcher:
    """A `sessions` that waits for news."""

    __slots__ = ("caller", "deadline", "is_new", "params", "request_id")

    def __init__(self, caller: Caller, request_id: bytes, params: sessionwire.Sessions, deadline: float) -> None:
        self.caller = caller
        self.request_id = request_id
        self.params = params
        self.deadline = deadline
        self.is_new = True


class Rehearsal:
    """Copies of sessions, to try on them what may be refused."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._copies: dict[str, Session] = {}

    def session(self, session_id: str) -> Session:
        if session_id not in self._copies:
            real = self._host.sessions.endpoint.session(session_id)
            self._copies[session_id] = Session(self._host.sessions.local, real.snapshot())
        return self._copies[session_id]


def _is_known(params: sessionwire.Sessions, session: Session) -> bool:
    """Whether it is no news to who asks for one session."""
    return session.version == params.version or session.state.value == params.state


def _matching(params: sessionwire.Sessions, sessions: Iterable[Session]) -> list[Session]:
    known = set(params.known)
    return [
        session
        for session in sessions
        if params.state in (None, session.state.value)
        and params.is_open in (None, session.state.is_open)
        and session.id not in known
    ]


def _event(
    direction: str,
    kind: str,
    number: int,
    text: str,
    at: float,
    stored_at: float | None,
    acked_at: float | None,
    stage: str,
    params: sessionwire.Trace,
) -> dict[str, Any]:
    event = {
        "at": at, "direction": direction, "kind": kind, "number": number, "bytes": len(text.encode()),
        "stored_at": stored_at, "acked_at": acked_at, "stage": stage,
    }  # fmt: skip
    return event | ({"text": text} if params.text else {})


def _bad(what: str, hint: str) -> BackchannelError:
    return LocalProtocolError(what, code="bad_params", hint=hint)
