"""The conversations about sessions, once for both front ends: opening, answering, talking, watching.

A session is kept by the two daemons, so nothing here is the truth: each answer is a record, which says how the session
stands at this end. A call that is repeated (its answer was lost) is answered as the first time. Standard library, and
little of that, as `calls`.
"""

import os
import time

from ..errors import BackchannelError, LocalProtocolError, OverLimit, PeerAbsent, Refused, TimedOut
from ..protocol.names import AgentName, check_id
from ..transport.paths import CONTROL
from . import calls
from .calls import ANSWER_GRACE_S
from .wire import CALL_S, Caller, Stream, call, new_id, stream_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .wire import Conversation

    Record = dict[str, Any]

TIMERS = ("accept_timeout", "deadline", "idle_timeout")  # the reasons of a session that ran out of time
WITHOUT_END_S = 366 * 86400.0  # the longest wait the wire knows: a year
REASON_CHARS_MAX = 1000  # of a reason; what an exception has to say is cut to it
SESSIONS_MAX = 1000  # of one answer
OFFERS_SEEN_MAX = 64  # then those that are over are sorted out

TALKING = ("ESTABLISHED", "CLOSE-WAIT")  # we may say more
UNANSWERED = ("SYN-SENT", "SYN-RECEIVED")
OVER = ("LAST-ACK", "CLOSED")  # nothing is left for us to do


def is_session(some_id: str) -> bool:
    """Whether this is the id of a session: `s-` and 32 hex digits."""
    return len(some_id) == 34 and some_id.startswith("s-") and set(some_id[2:]) <= set("0123456789abcdef")


def is_closed(record: "Record") -> bool:
    return bool(record["state"] == "CLOSED")


# --- opening and answering --------------------------------------------------------------------------------------------


def open_session(
    caller: Caller, stream: Stream, session_id: str, to: str, task: str, timeout: float | None, **options: "Any"
) -> "Conversation[Record]":
    """Offers a task, and returns the record once the peer's agent accepted. The stream claims the session.

    Raises `Refused` (rejected, with the reason), `TimedOut` after `timeout` seconds, `PeerAbsent` at once for a name
    that nobody has. Whatever it raises, the session is over: the peer is told.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    is_withdrawn = False
    try:
        accept_timeout = WITHOUT_END_S if timeout is None else timeout
        params = _offered(caller, session_id, to, task, accept_timeout, options)
        record = yield from stream_call(caller, stream, "open", params, CALL_S)  # its claim goes before it
        record, is_told = yield from _await_answer(caller, record, deadline)
        if record["state"] == "SYN-SENT":
            is_withdrawn = True
            yield from _give_up(caller, session_id, f"not accepted within {timeout:g} s")
            record = yield from look(caller, session_id)  # it may have been answered in that moment
            is_told = False
        if not is_told:
            yield from _settle_notice(caller, stream, session_id)
    except (BackchannelError, GeneratorExit):
        raise
    except BaseException as interruption:  # nobody waits for an answer any more
        yield from _give_up(caller, session_id, type(interruption).__name__)
        raise
    # Both ends count the time; whichever daemon is first tells the other, to whom it is a reset.
    is_over_time = record["cause"] in ("expired", "reset") and record["reason"] in TIMERS
    if is_over_time or (record["cause"] == "aborted" and is_withdrawn):
        is_patience = is_withdrawn or record["reason"] == "accept_timeout"
        limit = f"within {timeout or 0:g} s" if is_patience else f"before the {record['reason']} of the session"
        raise TimedOut(
            f"{to} did not accept {limit}; the offer was withdrawn",
            hint="does anybody receive for it? backchannel agents",
            waited=timeout or 0.0,
        )
    if record["cause"] not in (None, "finished"):
        raise ended(record)
    return record


def offer(
    caller: Caller, session_id: str, to: str, task: str, accept_timeout: float | None, **options: "Any"
) -> "Conversation[Record]":
    """Offers a task, and returns the record at once: SYN-SENT."""
    params = _offered(caller, session_id, to, task, accept_timeout, options)
    result: Record = yield from call(caller, caller.me(), CONTROL, "open", params, CALL_S)
    return result


def _offered(
    caller: Caller, session_id: str, to: str, task: str, accept_timeout: float | None, options: "dict[str, Any]"
) -> "dict[str, Any]":
    params = {"session": session_id, "to": AgentName(to), "text": calls.check_text(task), **options}
    params["accept_timeout"] = accept_timeout
    if os.path.exists(caller.places.state(params["to"], "down")):  # by a person's wish: an error, as for a message
        raise PeerAbsent(f"{to} is down", hint=f"start it: backchannel up {to}")
    return params


def _await_answer(caller: Caller, record: "Record", deadline: float | None) -> "Conversation[tuple[Record, bool]]":
    """The record once the offer was answered, or as it stands at the deadline; and whether the daemon takes that answer
    for the notice (an older one does not). That the offer arrived is no news."""
    is_told = False
    params = {"session": record["id"], "state": "SYN-SENT", "told": True}
    while record["state"] == "SYN-SENT" and (left := calls.slice_left(deadline)) > 0:
        params |= {"version": record["version"], "wait": left}
        result = yield from call(caller, caller.me(), CONTROL, "sessions", params, left + ANSWER_GRACE_S)
        (record,) = result["sessions"]
        is_told = "told" in result
    return record, is_told


def _give_up(caller: Caller, session_id: str, reason: str) -> "Conversation[None]":
    """Aborts, unless it is over already, or never began."""
    try:
        yield from abort(caller, session_id, reason)
    except LocalProtocolError as error:
        if error.code not in ("session_state", "no_such_session"):
            raise


def _settle_notice(caller: Caller, stream: Stream, session_id: str) -> "Conversation[None]":
    """Acknowledges the notice of what the record says already."""
    for notice in (yield from calls.take(caller, stream, 1, 0, ("accepted", "rejected", "reset"), session_id)):
        yield from calls.ack_all(caller, [notice], "ack")


def accept(caller: Caller, session_id: str, **limits: "Any") -> "Conversation[Record]":
    """Raises `LocalProtocolError` (`session_state`) for what is no open offer any more."""
    return (yield from _tell(caller, "accept", session_id, **limits))


def accept_and_claim(caller: Caller, stream: Stream, session_id: str, **limits: "Any") -> "Conversation[Record]":
    """The same, and the stream claims its mail. Raises `Refused` (`taken`) too; then nothing happened."""
    params = {"session": check_id(session_id), "claim": True, **limits}
    result: Record = yield from stream_call(caller, stream, "accept", params, CALL_S)
    return result


def reject(caller: Caller, session_id: str, reason: str, retry_after: float | None = None) -> "Conversation[Record]":
    params = {"id": check_id(session_id), "reason": reason, "retry_after": retry_after}
    result: Record = yield from call(caller, caller.me(), CONTROL, "reject", params, CALL_S)
    return result


def next_offer(caller: Caller, seen: "set[str]", wait_s: float | None) -> "Conversation[Record | None]":
    """The oldest offer that is open now and not among the `seen`, which it is added to; None after `wait_s` seconds.

    What was seen and is no longer open is forgotten, when it has become much.
    """
    deadline = None if wait_s is None else time.monotonic() + wait_s
    while True:
        if len(seen) > OFFERS_SEEN_MAX:
            seen &= {record["id"] for record in (yield from all_sessions(caller, state="SYN-RECEIVED"))}
        wait_now = calls.slice_left(deadline)
        found = yield from sessions(caller, wait_now, state="SYN-RECEIVED", known=sorted(seen), max=1)
        for record in found:
            seen.add(record["id"])
            return record
        if deadline is not None and time.monotonic() >= deadline:
            return None


def claimed(caller: Caller, stream: Stream, conversation: "Conversation[Record]") -> "Conversation[Record]":
    """Carries out what gives the record of a session, after its mail was claimed: nobody else takes any of it."""
    yield from calls.resume(caller, stream)
    return (yield from conversation)


# --- looking ----------------------------------------------------------------------------------------------------------


def sessions(caller: Caller, wait_s: float = 0.0, **filters: "Any") -> "Conversation[list[Record]]":
    params = {**filters, "wait": wait_s}
    result = yield from call(caller, caller.me(), CONTROL, "sessions", params, wait_s + ANSWER_GRACE_S)
    found: list[Record] = result["sessions"]
    return found


def look(caller: Caller, session_id: str) -> "Conversation[Record]":
    """How it stands. Raises `LocalProtocolError` (`no_such_session`)."""
    (record,) = yield from sessions(caller, session=check_id(session_id))
    return record


def all_sessions(caller: Caller, **filters: "Any") -> "Conversation[list[Record]]":
    """Every session that the filters leave, newest first. One answer holds only so many."""
    found: list[Record] = []
    while page := (yield from sessions(caller, **filters, known=[record["id"] for record in found], max=SESSIONS_MAX)):
        found += page
    return found


def watch(caller: Caller, session_id: str, version: int, wait_s: float) -> "Conversation[Record]":
    """The record as soon as it is another than `version`, or as it stands after `wait_s` seconds."""
    (record,) = yield from sessions(caller, wait_s, session=session_id, version=version)
    return record


def watch_until(
    caller: Caller, record: "Record", is_enough: "Callable[[Record], bool]", deadline: float | None
) -> "Conversation[Record]":
    """The record once it is as wanted, or as it stands at the deadline (`time.monotonic`; None: never)."""
    while not is_enough(record) and (left := calls.slice_left(deadline)) > 0:
        record = yield from watch(caller, record["id"], record["version"], left)
    return record


def history(caller: Caller, session_id: str, *, text: bool) -> "Conversation[tuple[Record, list[dict[str, Any]]]]":
    """The record, and what happened, in order of time."""
    events: list[dict[str, Any]] = []
    while True:
        params = {"session": check_id(session_id), "after": len(events), "text": text}
        result = yield from call(caller, caller.me(), CONTROL, "trace", params, CALL_S)
        if not result["events"]:
            return result["session"], events
        events += result["events"]


# --- talking ----------------------------------------------------------------------------------------------------------


def say(
    caller: Caller,
    session_id: str,
    text: str,
    timeout: float | None = 60.0,
    key: str | None = None,
    *,
    input_required: bool = False,
) -> "Conversation[dict[str, Any]]":
    """Says a text. While the window is full it waits for room, at most `timeout` seconds (None: without end)."""
    deadline = None if timeout is None else time.monotonic() + timeout
    params = {
        "session": session_id, "text": calls.check_text(text), "id": new_id("m") if key is None else check_id(key),
        "input_required": input_required or None,
    }  # fmt: skip
    while True:
        try:
            said: dict[str, Any] = yield from call(caller, caller.me(), CONTROL, "say", params, CALL_S)
            return said
        except OverLimit as full:
            if full.code != "window" or calls.slice_left(deadline) <= 0:
                raise
        # Room, or an end, which the next attempt will tell.
        record = yield from look(caller, session_id)
        yield from watch_until(caller, record, lambda now: now["window"] > 0 or now["state"] not in TALKING, deadline)


def close(caller: Caller, session_id: str, text: str = "", status: str = "ok") -> "Conversation[Record]":
    """We have said all; the text is our result. The same again is fine, another result is `session_state`."""
    return (yield from _tell(caller, "close", session_id, text=calls.check_text(text), status=status))


def abort(caller: Caller, session_id: str, reason: str) -> "Conversation[Record]":
    return (yield from _tell(caller, "abort", session_id, reason=reason[:REASON_CHARS_MAX]))


def progress(caller: Caller, session_id: str, note: str = "") -> "Conversation[Record]":
    return (yield from _tell(caller, "renew", session_id, note=note))


def _tell(caller: Caller, method: str, session_id: str, **params: "Any") -> "Conversation[Record]":
    params["session"] = check_id(session_id)
    result: Record = yield from call(caller, caller.me(), CONTROL, method, params, CALL_S)
    return result


def wait_said(
    caller: Caller, said: "dict[str, Any]", wanted: str, timeout: float | None
) -> "Conversation[dict[str, Any]]":
    """The receipt of a text that was said, once it reached `wanted` or an end, or as it stands after `timeout` s."""
    deadline = None if timeout is None else time.monotonic() + timeout
    seq = said["seq"]
    record = yield from look(caller, said["session"])
    record = yield from watch_until(
        caller, record, lambda now: calls.has_reached(_stage_of(seq, now)["stage"], wanted), deadline
    )
    return {**said, **_stage_of(seq, record)}


def _stage_of(seq: int, record: "Record") -> "dict[str, Any]":
    cause = record["cause"]
    if cause == "finished":
        return {"stage": "done"}
    if record["acked_upto"] > seq:
        return {"stage": "acked"}
    if cause is not None:
        return {"stage": _ENDS.get(cause, "dead"), "reason": f"the session was {cause}: {record['reason']}"}
    return {"stage": "stored" if record["stored_upto"] > seq else "queued"}


_ENDS = {"aborted": "cancelled", "expired": "expired"}


def as_receipt(said: "dict[str, Any]") -> "dict[str, Any]":
    """What `say` answered, as a receipt: the message has the id under which it lies in the peer's mailbox."""
    return {
        **said, "reason": None, "durability": None,
        "mailbox_id": None, "msg_no": None, "delivery": 0, "evidence": None, "reply_id": None,
    }  # fmt: skip


# --- reading ----------------------------------------------------------------------------------------------------------


def take_mail(caller: Caller, stream: Stream, session_id: str, wait_s: float) -> "Conversation[dict[str, Any] | None]":
    """Leases the next mail of the session, whatever its kind. None if none came in time, or none can come any more."""
    stream.take_id = new_id("t")
    params = {"take_id": stream.take_id, "max": 1, "session": session_id, "wait": wait_s}
    result = yield from stream_call(caller, stream, "take", params, wait_s + ANSWER_GRACE_S)
    for message in result["messages"]:
        return message  # type: ignore[no-any-return]
    return None


# --- how it ended -----------------------------------------------------------------------------------------------------


def ended(record: "Record") -> BackchannelError:
    """The error that says how a session ended, if not as both wanted: the peer's doing, or our own."""
    cause, reason = record["cause"], record["reason"]
    what = f"session {record['id']} with {record['peer']} was {cause} ({reason or 'no reason given'})"
    if cause == "rejected" and record["role"] == "initiator":
        later = record["retry_after"]
        return Refused(
            f"{record['peer']} rejected the task ({reason})",
            code="rejected",
            hint="open another session" if later is None else f"ask again in {later:g} s",
            reason=reason,
            retry_after=later,
        )
    if cause in ("reset", "expired"):
        return Refused(what, code=cause, hint="open another session", reason=reason)
    return LocalProtocolError(
        what, code="session_state", hint="nothing can be said or read there; open another session"
    )
