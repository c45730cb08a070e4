"""Every conversation with a daemon, once: generators that both front ends carry out (`drive` blocks, `aio` awaits).

They say what is asked and what the answers mean; `wire` gets one request answered. Nothing here waits by itself, so
both front ends tell the same story. On the command line's fast path: standard library, and little of that.
"""

import os
import time

from .. import errors
from ..errors import LocalProtocolError, NotPermitted, PeerAbsent, RemoteProtocolError, TimedOut
from ..protocol.names import USER, AgentName, check_id
from ..transport.dial import peer_pid
from ..transport.paths import CONTROL, INBOX
from .wire import (
    CALL_S,
    Caller,
    Exchange,
    Race,
    Sleep,
    Stream,
    call,
    connect,
    exchange,
    give_up_if_over,
    is_crowded,
    new_id,
    numbered,
    request,
    result_of,
    stream_call,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..transport.dial import Socket
    from .wire import Conversation

ANSWER_GRACE_S = 5.0  # beyond a wait the daemon was asked for, until we call it silent
BATCH_LINES = 100  # of one write; their answers fit a socket's buffer, so neither end waits for the other
BATCH_BYTES = 1 << 18
WAIT_SLICE_S = 600.0  # one long poll of an endless wait
LOOK_S = 2.0  # for one agent to say how it is
FIND_S = 5.0  # for one agent to answer (and to start, if it must) while a message is looked for among all
AGAIN_S = 0.2  # until a crowded daemon is asked again whether a question ended; the answer needs no such wait


def push(
    caller: Caller, to: str, text: str, message_id: str | None = None, timeout: float = CALL_S, **options: "Any"
) -> "Conversation[dict[str, Any]]":
    """Stores a text in `to`'s mailbox. Returns the receipt. `options` are the other params of `push` on the wire."""
    params = _push_params(text, message_id, options)
    name, address = caller.address(to)
    if name in caller.queued_to:
        return (yield from push_queued(caller, name, params, timeout))
    try:
        answers = yield from exchange(caller, name, INBOX, [request("push", params, encoded=address)], timeout)
        result: dict[str, Any] = result_of(answers[0])
    except NotPermitted as error:
        if error.code != "via_outbox":
            raise
        return (yield from push_queued(caller, name, params, timeout))
    except TimedOut as error:
        raise TimedOut(
            f"no receipt from {to} within {timeout:g} s: message {params['id']} may be stored or not",
            hint="send it again with the same id",
            waited=timeout,
        ) from error
    return result


def push_queued(
    caller: Caller, to: AgentName, params: "dict[str, Any]", timeout: float
) -> "Conversation[dict[str, Any]]":
    """The same through the own daemon's outbox: behind what waits there for this target. Returns its receipt if it came
    within `timeout`, else one that says `queued`."""
    deadline = time.monotonic() + timeout
    done = yield from commit(caller, {"sends": [_as_send(to, params)]}, timeout)
    return (yield from _once_stored(caller, done["sends"][0], deadline))


def _as_send(to: AgentName, params: "dict[str, Any]") -> "dict[str, Any]":
    return {"to": to, **{key: value for key, value in params.items() if value is not None}}


def _once_stored(caller: Caller, queued: "dict[str, Any]", deadline: float) -> "Conversation[dict[str, Any]]":
    """What became of a queued message by then. Raises what its target refused it for."""
    left = max(0.0, deadline - time.monotonic())
    try:
        found: dict[str, Any] = yield from wait(caller, queued["to"], queued["id"], "stored", left, queued=True)
    except (TimedOut, PeerAbsent):
        return queued
    if found["stage"] == "rejected" and found["msg_no"] is None:
        from ..protocol.codes import error_for  # beside the fast path, as what is imported in other functions here

        raise error_for(found["code"], found["reason"], reason=found["reason"])
    return found


def commit(
    caller: Caller, lists: "dict[str, list[dict[str, Any]]]", timeout: float = CALL_S
) -> "Conversation[dict[str, Any]]":
    """One transaction in the own daemon, of `acks`, `replies`, `sends`, `says` and `closes`.

    Returns its answer: in `sends` a `queued` receipt for each reply, then for each send; in `says` and `closes` what
    became of those.
    """
    for item in lists.get("replies", ()):
        item.setdefault("reply_id", new_id("m"))
    for item in (*lists.get("sends", ()), *lists.get("says", ())):
        item.setdefault("id", new_id("m"))
    result: dict[str, Any] = yield from call(caller, caller.me(), CONTROL, "commit", lists, timeout)
    caller.queued_to.update((r["to"], r["id"]) for r in result["sends"] if r["to"] != USER)
    return result


def ask(
    caller: Caller, to: str, text: str, timeout: float | None, message_id: str | None = None, **options: "Any"
) -> "Conversation[dict[str, Any]]":
    """Sends a question and waits for its answer, which it acknowledges. Raises `Refused`, `TimedOut`.

    A process that is no agent finds the answer in the receipt.
    """
    if caller.name is None:
        return (yield from _ask_as_user(caller, to, text, timeout, message_id, **options))
    claimed = Stream()
    try:
        answer = yield from ask_on(caller, claimed, to, text, timeout, message_id, **options)
        yield from ack_all(caller, [answer], "ack")
        return answer
    finally:
        claimed.close()


def ask_on(
    caller: Caller,
    claimed: "Stream",
    to: str,
    text: str,
    timeout: float | None,
    message_id: str | None = None,
    **options: "Any",
) -> "Conversation[dict[str, Any]]":
    """The same for an agent, and the answer is leased on the stream that claimed it, for the caller to settle.

    It is claimed before the question is sent, so that nobody else of our name takes it.
    """
    message_id = new_id("m") if message_id is None else check_id(message_id)
    deadline = None if timeout is None else time.monotonic() + timeout
    left = CALL_S if timeout is None else min(CALL_S, timeout)
    watching = Stream()
    try:
        yield from stream_call(caller, claimed, "claim", {"reply_to": message_id}, left)
        # What ends undone is seen on the target's side; no bounce is to come on top of it.
        yield from push(caller, to, text, message_id, left, bounce=False, **options)
        return (yield from _await_answer(caller, to, message_id, claimed, watching, deadline, timeout))
    finally:
        watching.close()


def _ask_as_user(
    caller: Caller, to: str, text: str, timeout: float | None, message_id: str | None, **options: "Any"
) -> "Conversation[dict[str, Any]]":
    message_id = new_id("m") if message_id is None else check_id(message_id)
    deadline = None if timeout is None else time.monotonic() + timeout
    left = CALL_S if timeout is None else min(CALL_S, timeout)
    yield from push(caller, to, text, message_id, left, **options)
    found = yield from wait(caller, to, message_id, "done", _left(deadline), USER)
    _raise_unless_done(found, to, timeout)
    if found.get("reply_text") is None:
        raise RemoteProtocolError(f"message {message_id} to {to} is done, without an answer for @user")
    # It is no stored message, but has a message's keys: who reads answers need not care who asked.
    return {
        "kind": "message", "id": found["reply_id"], "from": to, "to": USER, "text": found["reply_text"],
        "sent_at": time.time(), "session": None, "delivery": 1, "reply_to": message_id, "trace_id": message_id,
        "hops": 1, "priority": "normal", "headers": {},
    }  # fmt: skip


def _await_answer(
    caller: Caller,
    to: str,
    message_id: str,
    claimed: "Stream",
    watching: "Stream",
    deadline: float | None,
    timeout: float | None,
) -> "Conversation[dict[str, Any]]":
    """Waits on both ends at once: on our daemon for the answer, on the target's for the news that none will come."""
    is_taking = False  # the take is on its way already
    while True:
        slice_s = slice_left(deadline)
        try:
            if claimed.sock is None:
                yield from stream_call(caller, claimed, "claim", {"reply_to": message_id}, CALL_S)
            if watching.sock is None:
                watching.sock = yield from connect(caller, to, INBOX, time.monotonic() + CALL_S, may_start=True)
            claimed.take_id = claimed.take_id or new_id("t")
            take = {"take_id": claimed.take_id, "wait": slice_s, "reply_to": message_id, "kinds": ["message", "bounce"]}
            watch = {"id": message_id, "stage": "done", "timeout": slice_s, "from": caller.name}
            assert claimed.sock is not None
            assert watching.sock is not None
            taking = b"" if is_taking else request("take", take)
            is_taking = True
            which, line = yield Race(
                [(claimed.sock, taking), (watching.sock, request("wait", watch))], slice_s + ANSWER_GRACE_S
            )
            if which == 1:
                if is_crowded(line):
                    watching.close()
                    yield Sleep(min(AGAIN_S, slice_s))
                    continue
                _raise_if_ended(line, to)
                # Done, or not yet: the answer itself is what we wait for.
                which, line = yield Race([(claimed.sock, b"")], slice_s + ANSWER_GRACE_S)
            is_taking = False
            messages = result_of(line)["messages"]
        except OSError as error:
            give_up_if_over(error, to, deadline or time.monotonic() + CALL_S, timeout or 0.0)
            is_taking = False
            claimed.close()
            watching.close()
            yield Sleep(0.01)
            continue
        for message in messages:
            is_bounce = message["kind"] == "bounce"
            if message["from"] != to and not (is_bounce and message["from"] == caller.name):
                # Somebody else calls it an answer. It stays for whoever receives for us when this connection closes.
                claimed.take_id = None
                continue
            if is_bounce:
                yield from ack_all(caller, [message], "ack")
                raise errors.Refused(f"{to} did not answer: {message['text']}", reason=message["text"])
            answer: dict[str, Any] = message
            return answer
        if deadline is not None and time.monotonic() >= deadline:
            raise TimedOut(
                f"{to} did not answer message {message_id} within {timeout:g} s",
                hint="a late answer will lie in your mailbox",
                waited=timeout or 0.0,
            )
        watching.close()


def _raise_if_ended(line: bytes, to: str) -> None:
    try:
        found = result_of(line)
    except LocalProtocolError as error:
        if error.code != "no_such_message":
            raise
        return  # it is in our outbox still
    _raise_if_failed(found, to)


def _raise_if_failed(found: "dict[str, Any]", to: str) -> None:
    if found["stage"] not in _ORDER:
        raise errors.Refused(
            f"{to} did not answer: the question was {found['stage']} ({found['reason']})",
            code=found["stage"],
            reason=str(found["reason"]),
        )


def _raise_unless_done(found: "dict[str, Any]", to: str, timeout: float | None) -> None:
    _raise_if_failed(found, to)
    if found["stage"] != "done":
        raise TimedOut(
            f"{to} did not answer message {found['id']} within {timeout or 0:g} s",
            hint=f"its receipt will have the answer: backchannel status {found['id']}",
            waited=timeout or 0.0,
        )


def push_many(
    caller: Caller, to: str, texts: "Iterable[str]", timeout: float = CALL_S, **options: "Any"
) -> "Conversation[list[Any]]":
    """Stores many texts over one connection, a commit a batch. Returns a receipt or an exception for each."""
    outcomes: list[Any] = []
    batch: list[tuple[dict[str, Any], bytes]] = []  # params, and their line
    size = 0
    name, address = caller.address(to)
    for text in texts:
        params = _push_params(text, None, options)
        line = request("push", params, len(batch), address)
        if batch and (len(batch) >= BATCH_LINES or size + len(line) > BATCH_BYTES):
            outcomes += yield from _send_batch(caller, name, batch, timeout)
            batch, size = [], 0
            line = request("push", params, 0, address)
        batch.append((params, line))
        size += len(line)
    if batch:
        outcomes += yield from _send_batch(caller, name, batch, timeout)
    return outcomes


def receipt(
    caller: Caller, message_id: str, to: str | None = None, sender: str | None = None, timeout: float = CALL_S
) -> "Conversation[dict[str, Any]]":
    """What is known of a message; without `to` it is looked for among the agents of this machine."""
    return (yield from _find(caller, message_id, to, sender, timeout))


def cancel(
    caller: Caller, message_id: str, to: str | None = None, sender: str | None = None, timeout: float = CALL_S
) -> "Conversation[dict[str, Any]]":
    """Takes a message back while nobody has it. Raises `Refused` (`taken`, `ended`, `queued`)."""
    if to is None:
        found = yield from _find(caller, message_id, None, sender, timeout)
        # What is queued is in its sender's own outbox, which says so.
        to = found["from"] if found["stage"] == "queued" else found["to"]
    params = {"id": message_id, "from": sender}
    cancelled: dict[str, Any] = yield from call(caller, AgentName(to), INBOX, "cancel", params, timeout)
    return cancelled


def wait(
    caller: Caller,
    to: str,
    message_id: str,
    stage: str,
    timeout: float | None,
    sender: str | None = None,
    *,
    queued: bool = False,
) -> "Conversation[dict[str, Any]]":
    """The receipt once the message reached `stage` or an end, or as it stands when `timeout` seconds are over.

    With `queued` it is in our own daemon's outbox first: that one is asked until it left.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while queued:
        left = slice_left(deadline)
        params = {"id": message_id, "stage": "stored", "timeout": left, "from": caller.name}
        under_way: dict[str, Any] | None
        try:
            under_way = yield from call(caller, caller.me(), INBOX, "wait", params, left + ANSWER_GRACE_S)
        except TimedOut as error:
            if error.code != "again":
                raise
            yield Sleep(0.05)
            continue
        except LocalProtocolError as error:
            if error.code != "no_such_message":
                raise
            under_way = None  # it left before we asked
        if under_way is not None and under_way["stage"] == "queued":
            if deadline is None or time.monotonic() < deadline:
                continue
            return under_way
        if caller.queued_to.get(to) == message_id:  # else others of ours are behind it
            caller.queued_to.pop(to, None)
        if under_way is not None and has_reached(under_way["stage"], stage):
            return under_way
        queued = False
    while True:
        left = slice_left(deadline)
        params = {"id": message_id, "stage": stage, "timeout": left, "from": sender}
        try:
            found: dict[str, Any] = yield from call(caller, to, INBOX, "wait", params, left + ANSWER_GRACE_S)
        except TimedOut as error:
            if error.code != "again":
                raise
            yield Sleep(0.05)
            continue
        if has_reached(found["stage"], stage) or (deadline is not None and time.monotonic() >= deadline):
            return found


def take(
    caller: Caller,
    stream: "Stream",
    count: int,
    wait_s: float | None,
    kinds: "tuple[str, ...] | None" = None,
    session: str | None = None,
    detached: bool = False,
) -> "Conversation[list[dict[str, Any]]]":
    """Leases up to `count` messages over the stream's own connection; waits up to `wait_s` seconds for the first."""
    deadline = None if wait_s is None else time.monotonic() + wait_s
    left = WAIT_SLICE_S if wait_s is None else min(WAIT_SLICE_S, max(0.0, wait_s))
    take_id = new_id("t")
    stream.take_id = take_id
    params: dict[str, Any] = {
        "take_id": take_id, "max": count, "kinds": kinds, "session": session, "detached": detached or None,
        "adapter": caller.adapter,
    }  # fmt: skip
    while True:
        params["wait"] = left
        result = yield from stream_call(caller, stream, "take", params, left + ANSWER_GRACE_S)
        if result["messages"] or (deadline is not None and time.monotonic() >= deadline):
            messages: list[dict[str, Any]] = result["messages"]
            return messages
        left = slice_left(deadline)


def resume(caller: Caller, stream: "Stream", timeout: float = CALL_S) -> "Conversation[None]":
    """Connects the stream, so that nobody else gets what it claimed, and it keeps what it had leased."""
    if stream.held:
        yield from stream_call(caller, stream, "take", {"take_id": min(stream.held), "resume": True}, timeout)
    elif stream.claim is not None:
        yield from stream_call(caller, stream, "claim", stream.claim, timeout)


def settle(
    caller: Caller,
    method: str,
    message_id: str,
    timeout: float = CALL_S,
    *,
    sender: str | None = None,
    **params: "Any",
) -> "Conversation[dict[str, Any]]":
    """`ack`, `reject`, `release` or `renew` of one delivery. Raises `Refused` (`stale`, `ended`)."""
    params |= {"id": check_id(message_id), "from": sender}
    result: dict[str, Any] = yield from call(caller, caller.me(), CONTROL, method, params, timeout)
    return result


def ack_all(
    caller: Caller, messages: "list[dict[str, Any]]", evidence: str, timeout: float = CALL_S
) -> "Conversation[None]":
    """Acknowledges what a `take` returned, with a commit a batch. Raises the first refusal, after all were tried."""
    lines = [
        request("ack", {"id": m["id"], "from": m["from"], "delivery": m["delivery"], "evidence": evidence})
        for m in messages
    ]
    refused: errors.BackchannelError | None = None
    done = 0
    while done < len(lines):  # a daemon that dies meanwhile may have answered some of a batch
        answers = yield from exchange(caller, caller.me(), CONTROL, lines[done : done + BATCH_LINES], timeout)
        for answer in answers:
            try:
                result_of(answer)
            except errors.BackchannelError as error:
                refused = refused or error
        done += len(answers)
    if refused is not None:
        raise refused


def ping(
    caller: Caller, name: str, timeout: float = CALL_S, *, may_start: bool = True
) -> "Conversation[dict[str, Any]]":
    """Who serves NAME. With `may_start=False` a daemon that does not run raises `PeerAbsent`."""
    result: dict[str, Any] = yield from call(caller, AgentName(name), INBOX, "ping", {}, timeout, may_start=may_start)
    return result


def status(caller: Caller, name: str, timeout: float = CALL_S) -> "Conversation[dict[str, Any]]":
    """The daemon's own state: counters, backlog, free disk."""
    result: dict[str, Any] = yield from call(caller, AgentName(name), CONTROL, "status", {}, timeout)
    return result


def stop(caller: Caller, name: str, timeout: float = CALL_S) -> "Conversation[bool]":
    """Ends NAME's daemon and waits until its lock is free. False if none ran."""
    from ..transport.lock import served_in

    lock = caller.places.state(AgentName(name), "lock")
    if served_in(lock) is None:
        return False
    deadline = time.monotonic() + timeout
    try:
        yield from call(caller, name, CONTROL, "stop", {}, timeout, may_start=False)
    except PeerAbsent:
        pass  # it was ending already
    while served_in(lock) is not None:
        if time.monotonic() > deadline:
            raise TimedOut(f"the daemon of {name} did not end within {timeout:g} s", hint="look at its log")
        yield Sleep(0.01)
    return True


def kill(caller: Caller, name: str, timeout: float = CALL_S) -> "Conversation[None]":
    """Ends NAME's daemon by SIGKILL, for one that does not answer; what it has committed is safe."""
    from ..transport.lock import served_in

    lock = caller.places.state(AgentName(name), "lock")
    deadline = time.monotonic() + timeout
    sock = yield from connect(caller, name, CONTROL, deadline, may_start=False)
    os.kill(peer_pid(sock), 9)
    sock.close()
    while served_in(lock) is not None:
        if time.monotonic() > deadline:
            raise TimedOut(f"the daemon of {name} did not die within {timeout:g} s", hint="does its disk hang?")
        yield Sleep(0.01)


def control(
    caller: Caller, name: str, method: str, timeout: float = CALL_S, **params: "Any"
) -> "Conversation[dict[str, Any]]":
    """A call on NAME's control socket that needs no story: pause, resume, peek, log, tap, config."""
    result: dict[str, Any] = yield from call(caller, AgentName(name), CONTROL, method, params, timeout)
    return result


def running(
    caller: Caller, name: str, method: str, timeout: float = CALL_S, **params: "Any"
) -> "Conversation[dict[str, Any]]":
    """As `control`, of a daemon that runs: another is not started for this. Raises `PeerAbsent`."""
    result: dict[str, Any] = yield from call(caller, AgentName(name), CONTROL, method, params, timeout, may_start=False)
    return result


def open_control(
    caller: Caller, stream: "Stream", name: str, method: str, params: "dict[str, Any]"
) -> "Conversation[Socket]":
    """Asks something that is answered later; `hear` reads it when the socket is readable."""
    if stream.sock is None:
        deadline = time.monotonic() + CALL_S
        stream.sock = yield from connect(caller, AgentName(name), CONTROL, deadline, may_start=True)
    stream.sock.sendall(request(method, params))
    return stream.sock


def hear(stream: "Stream") -> "Conversation[Any]":
    """The answer that has come. Raises `OSError` if the connection broke instead."""
    assert stream.sock is not None
    answers = yield Exchange(stream.sock, b"", CALL_S)
    return result_of(answers[0])


def agents(caller: Caller) -> "Conversation[list[dict[str, Any]]]":
    """All registered agents, and whether they are there: by the lock their daemon holds and the connections they hold.

    Of one whose daemon does not run nothing is known but its name, and what was installed for it.
    """
    from .adapters import declared, merged  # beside the fast path

    found = []
    for name in caller.places.registered():
        is_down = os.path.exists(caller.places.state(name, "down"))
        entry: dict[str, Any] = {
            "name": name, "online": False, "backlog": None, "oldest_unacked": None,
            "presence": "down" if is_down else "away", "since": None, "receiving": False, "paused": False,
            "down": is_down,
        }  # fmt: skip
        attached: list[dict[str, Any]] = []
        try:
            try:
                state = yield from running(caller, name, "status", LOOK_S)
            except NotPermitted:  # another user's: its inbox may say a little
                state = yield from ping(caller, name, LOOK_S, may_start=False)
            entry.update((key, state[key]) for key in _KNOWN if key in state)
            entry["online"] = True
            if state["paused"]:
                entry["presence"] = "paused"
            attached = state.get("adapters", [])
        except PeerAbsent:
            pass
        except NotPermitted as error:
            if error.code == "sandbox":  # says nothing of the agent
                raise
        except TimedOut:
            entry["online"] = True  # it holds its lock, but is too busy to say more
        entry["adapters"] = merged(attached, declared(caller.places, name))
        entry["wakes"] = any(a["wakes"] and a["attached"] for a in entry["adapters"]) if entry["adapters"] else None
        found.append(entry)
    return found


# --- helpers ----------------------------------------------------------------------------------------------------------


def check_text(text: "Any") -> str:
    """The text itself. Raises `LocalProtocolError` for what is none."""
    if not isinstance(text, str):
        raise LocalProtocolError(
            f"a text is a str, not {type(text).__name__}",
            code="bad_params",
            hint="decode bytes, or encode data as JSON",
        )
    return text


def has_reached(stage: str, wanted: str) -> bool:
    """As `Stage.reached`, for words."""
    return stage not in _ORDER or _ORDER.index(stage) >= _ORDER.index(wanted)


def _left(deadline: float | None) -> float:
    return WAIT_SLICE_S if deadline is None else max(0.0, deadline - time.monotonic())


def slice_left(deadline: float | None) -> float:
    """How long the next long poll may take, seconds."""
    return min(WAIT_SLICE_S, _left(deadline))


def _push_params(text: str, message_id: str | None, options: "dict[str, Any]") -> "dict[str, Any]":
    """What is this text's own; the rest is its `address`."""
    message_id = new_id("m") if message_id is None else check_id(message_id)
    return {"id": message_id, **options, "text": check_text(text)}


def _send_batch(
    caller: Caller, to: AgentName, batch: "list[tuple[dict[str, Any], bytes]]", timeout: float
) -> "Conversation[list[Any]]":
    """A receipt or an exception for each push: directly, or behind what our own daemon still holds for this target."""
    if to not in caller.queued_to:
        outcomes: list[Any] = yield from _push_batch(caller, to, [line for _, line in batch], timeout)
        if not any(isinstance(outcome, NotPermitted) and outcome.code == "via_outbox" for outcome in outcomes):
            return outcomes
    deadline = time.monotonic() + timeout
    try:
        queued = yield from commit(caller, {"sends": [_as_send(to, params) for params, _ in batch]}, timeout)
    except errors.BackchannelError as error:
        return [error] * len(batch)
    outcomes = []
    for receipt_now in queued["sends"]:
        try:
            outcomes.append((yield from _once_stored(caller, receipt_now, deadline)))
        except errors.BackchannelError as error:
            outcomes.append(error)
    return outcomes


def _push_batch(caller: Caller, to: str, lines: list[bytes], timeout: float) -> "Conversation[list[Any]]":
    """A receipt or an exception for each line, told apart by the line's number: a refusal overtakes the receipts that
    wait for the disk."""
    outcomes: dict[int, Any] = {}
    left = list(range(len(lines)))
    count = len(lines)
    while left:
        sent = left[:count]
        for answer in (yield from exchange(caller, to, INBOX, [lines[number] for number in sent], timeout)):
            number, outcome = numbered(answer)
            if len(sent) == 1:
                outcomes[sent[0]] = outcome
            elif number is not None:
                outcomes[number] = outcome
        left = [number for number in left if number not in outcomes]
        if left and left[0] == sent[0]:
            count = 1  # a line that is no request cost the connection; one by one it is found
    return [outcomes[number] for number in range(len(lines))]


def _find(
    caller: Caller, message_id: str, to: str | None, sender: str | None, timeout: float
) -> "Conversation[dict[str, Any]]":
    params: dict[str, Any] = {"id": check_id(message_id), "from": sender}
    if to is not None:
        receipt_now: dict[str, Any] = yield from call(caller, AgentName(to), INBOX, "receipt", params, timeout)
        return receipt_now
    found: dict[str, dict[str, Any]] = {}  # by target
    unreachable = []
    for name in caller.places.registered():
        try:
            receipt_now = yield from call(caller, name, INBOX, "receipt", params, min(timeout, FIND_S))
            if receipt_now["stage"] != "queued" or receipt_now["to"] not in found:  # the target knows better
                found[receipt_now["to"]] = receipt_now
        except (PeerAbsent, TimedOut, NotPermitted) as error:
            if error.code == "sandbox":  # none can be asked
                raise
            unreachable.append(name)  # it may be another's message: one daemon must not hide that
        except LocalProtocolError as error:
            if error.code != "no_such_message":
                raise
    if len(found) > 1:  # one key, sent to many
        raise LocalProtocolError(
            f"several agents have a message {message_id} ({', '.join(sorted(found))})",
            code="ambiguous",
            hint="say which: --to NAME",
        )
    for only in found.values():
        return only
    beyond = f" (not asked, because they are down or do not answer: {', '.join(unreachable)})" if unreachable else ""
    raise LocalProtocolError(
        f"no agent here has a message {message_id}{beyond}", code="no_such_message", hint="check the id"
    )


_KNOWN = ("backlog", "oldest_unacked", "presence", "since", "receiving", "paused")  # of a status, to `agents`
_ORDER = ("queued", "stored", "taken", "acked", "done")
