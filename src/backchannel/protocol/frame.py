"""Frames: one JSON-RPC 2.0 object on one line, and the methods both sockets serve.

This file is the wire: a request's params are the structs below, its answer is built by the functions at the end.
`docs/protocol.md` tells the same for other languages. Parsing happens here, at the door; behind it there are no dicts.
"""

from functools import cache
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..errors import BackchannelError, LocalProtocolError
from . import fastcodec
from .codec import INTEGER_MAX, Malformed, check
from .codes import CODES

PROTOCOL: Final = 1
TTL_S_MAX: Final = 366 * 86400.0  # a year: longer than anybody means, short enough to be no mistake
WAIT_S_MAX: Final = 366 * 86400.0
RULES: Final = "section 2 of docs/protocol.md says what a line may hold"
METHODS: Final = "docs/protocol.md lists the params of each method"
EXTRA_LEVEL: Final = 5  # where a push's unknown fields lie in the answer to a take: no reader may find it too deep


class Request(msgspec.Struct, gc=False):
    """One request line. `id` and `params` are kept as bytes: the first is echoed, the second belongs to the method."""

    jsonrpc: str
    method: str
    id: Raw | UnsetType = UNSET
    params: Raw = Raw(b"{}")


# --- inbox.sock: anyone permitted -------------------------------------------------------------------------------------


class Push(msgspec.Struct, rename={"sender": "from"}, gc=False):
    """Store a text for the agent. Answered with a receipt once it is committed."""

    to: str
    text: Raw
    id: str | None = None  # the client's message id or idempotency key; none: no dedupe
    sender: str | None = None
    auth: str | None = None
    headers: dict[str, str] | None = None
    priority: str = "normal"
    ttl: float | None = None  # seconds from stored
    durability: str | None = None  # process | power; none: the agent's setting
    reply_to: str | None = None
    trace_id: str | None = None
    hops: int = 0
    session: str | None = None
    sent_at: float | None = None
    kind: str = "message"  # or a daemon's notice: bounce, loop
    bounce: bool = False  # the sender's daemon wants to know if it ends undone
    path: list[str] | None = None  # the agents it went through, oldest first
    outbox: bool = False  # pushed by the sender's daemon, not by the sender itself


class StrictPush(Push, forbid_unknown_fields=True, gc=False):
    """`Push`, telling at once that a line has fields we don't know: those are kept with the message."""


class Find(msgspec.Struct, rename={"sender": "from"}, gc=False):
    """`receipt` and `cancel`: one message, by id. `from` tells apart two senders who used the same id."""

    id: str
    sender: str | None = None


class Wait(msgspec.Struct, rename={"sender": "from"}, gc=False):
    """`wait`: the receipt, once the message reached `stage` or an end, or after `timeout` seconds."""

    id: str
    stage: str
    timeout: float = 30.0
    sender: str | None = None


class Nothing(msgspec.Struct, gc=False):
    """`ping`, `status`, `stop`: no params."""


# --- control.sock: the agent itself -----------------------------------------------------------------------------------


class Adapter(msgspec.Struct, gc=False):
    """What drives the agent on this connection, and what it can do for a message. Its own word."""

    name: str
    wakes: bool = False  # gives an idle agent a turn
    mid_turn: bool = False  # puts mail before the model in the middle of its work
    evidence: str = "ack"  # what its acks rest on: ack | flush | turn
    version: str = ""  # of the program that it connects


class Take(msgspec.Struct, gc=False):
    """Lease up to `max` deliveries; wait up to `wait` seconds for the first. The same `take_id` answers the same."""

    take_id: str | None = None
    max: int = 1
    wait: float | None = 0.0  # null: without end
    kinds: list[str] | None = None
    session: str | None = None
    reply_to: str | None = None  # only answers to this message
    resume: bool = False  # only what this take_id holds already: a client that found its daemon restarted
    detached: bool = False  # false: held, lives as long as this connection; true: 300 s, renewable
    adapter: Adapter | None = None  # who takes; shown while this connection is open


class Token(msgspec.Struct, rename={"sender": "from"}, gc=False):
    """Names one delivery: (id, delivery). Without `delivery` the current one is meant."""

    id: str
    delivery: int | None = None
    sender: str | None = None


class Ack(Token, rename={"sender": "from"}, gc=False):
    evidence: str = "ack"  # ack | flush | turn


class Reject(Token, rename={"sender": "from"}, gc=False):
    reason: str = ""
    retry_after: float | None = None  # of a session's offer: seconds after which to ask again


class Renew(msgspec.Struct, rename={"sender": "from"}, gc=False):
    """A detached lease begins anew, or all of a session's, with a word to its other agent on how far it is."""

    id: str | None = None
    delivery: int | None = None
    sender: str | None = None
    session: str | None = None
    note: str = ""


class Release(Token, rename={"sender": "from"}, gc=False):
    unseen: bool = False  # never shown to the agent: this handing-out does not count


class Reply(Token, rename={"sender": "from"}, gc=False):
    """The answer to one delivery: it is `done`, and the text goes to its sender."""

    text: Raw = Raw(b"null")
    reply_id: str | None = None
    headers: dict[str, str] | None = None


class Send(msgspec.Struct, gc=False):
    """A message to push from the own daemon's outbox. The fields are those of `push`."""

    to: str
    text: Raw
    id: str | None = None
    headers: dict[str, str] | None = None
    priority: str = "normal"
    ttl: float | None = None
    durability: str | None = None
    reply_to: str | None = None
    trace_id: str | None = None
    hops: int = 0
    path: list[str] | None = None
    bounce: bool = True  # tell this agent, by a notice, if it ends undone


class Commit(msgspec.Struct, gc=False):
    """All of it in one transaction, or nothing: what was handled, and what follows from it."""

    acks: list[Ack] = []
    replies: list[Reply] = []
    sends: list[Send] = []
    says: list["Say"] = []
    closes: list["Close"] = []


class Say(msgspec.Struct, gc=False):
    """One text to the other agent of a session."""

    session: str
    text: str
    id: str | None = None  # the caller's idempotency key
    input_required: bool = False


class Close(msgspec.Struct, gc=False):
    """All is said in a session; `text` is the result."""

    session: str
    status: str = "ok"
    text: str = ""


class Claim(msgspec.Struct, gc=False):
    """While this connection is open, answers to `reply_to`, or a session's mail, are handed out only on it."""

    reply_to: str | None = None
    session: str | None = None


class Peek(msgspec.Struct, gc=False):
    """What waits behind `after` (a msg_no), oldest first, without taking it; texts only if asked."""

    after: int = 0
    max: int = 100
    text: bool = False


class Log(Peek, rename={"sender": "peer"}, gc=False):
    """What came, finished or not: those that are of this sender, kind, stage, session, trace and time."""

    before: int | None = None  # instead of `after`: the last `max` below this msg_no; 0: of all
    sender: str | None = None
    kind: str | None = None
    stage: str | None = None
    session: str | None = None
    trace_id: str | None = None
    since: float | None = None  # Unix time, seconds
    until: float | None = None


class Tap(msgspec.Struct, gc=False):
    """Events after `after`; waits up to `wait` seconds for the first. Without `after`: from now on."""

    after: int | None = None
    wait: float = 0.0
    text: bool = False


class Check(msgspec.Struct, gc=False):
    """One small write, committed as a message is; with `flush` answered only when it is on the disk itself."""

    flush: bool = False


class Backup(msgspec.Struct, gc=False):
    """A copy of the mailbox, made while it works. Answered when the file is whole, checked, and has its name."""

    path: str | None = None  # absolute; none: in the agent's own directory


class Purge(msgspec.Struct, gc=False):
    """One step of a purge: the contents of some messages that ended `older_than` seconds ago or more."""

    older_than: float
    keep: int = 0  # nothing of the last so many messages
    after: int = 0  # behind this number; the answer's `next`
    purge_no: int | None = None  # the record to add to; the answer's
    dry_run: bool = False


# --- parsing ----------------------------------------------------------------------------------------------------------


def parse_request(line: bytes) -> Request:
    """The request on one line. Raises `LocalProtocolError` (`malformed`, `bad_request`)."""
    try:
        request = fastcodec.decode_as(_request, line)
    except Malformed as error:
        raise LocalProtocolError(f"the line is malformed: {error}", code="malformed", hint=RULES) from None
    except msgspec.ValidationError as error:
        raise _bad_request(f"not a JSON-RPC request: {error}") from None
    if request.jsonrpc != "2.0":
        raise _bad_request("not a JSON-RPC 2.0 request")
    if request.id is UNSET or not _is_id(bytes(request.id)):
        raise _bad_request("a request needs an id (a string or a whole number), or nobody could be answered")
    return request


def parse(kind: type[Any], request: Request) -> Any:
    """The params of a request as their struct. Raises `LocalProtocolError` (`malformed`, `bad_params`)."""
    try:
        return fastcodec.decode_as(_decoder(kind), request.params)  # type: ignore[arg-type]
    except Malformed as error:
        raise LocalProtocolError(f"the params are malformed: {error}", code="malformed", hint=RULES) from None
    except msgspec.ValidationError as error:
        raise LocalProtocolError(f"{request.method}: {error}", code="bad_params", hint=METHODS) from None


def parse_push(request: Request) -> tuple[Push, dict[str, Any] | None]:
    """A push and the fields we don't know, which are kept. Raises as `parse`."""
    try:
        return fastcodec.decode_as(_strict_push, request.params), None
    except (msgspec.ValidationError, Malformed):
        push: Push = parse(Push, request)
    try:
        everything = fastcodec.decode(bytes(request.params))
        extra = {k: v for k, v in everything.items() if k not in _PUSH_FIELDS}
        check(extra, EXTRA_LEVEL)
    except Malformed as error:
        raise LocalProtocolError(f"the params are malformed: {error}", code="malformed", hint=RULES) from None
    return push, extra or None


def parse_text(raw: Raw) -> bytes:
    """The text of a push as the JSON string it came in. Raises `LocalProtocolError`."""
    try:
        return fastcodec.check_text(raw)
    except Malformed as error:
        raise LocalProtocolError(f"the text is malformed: {error}", code="malformed", hint=RULES) from None
    except msgspec.ValidationError as error:
        raise LocalProtocolError(f"push: {error} - at `$.text`", code="bad_params", hint=METHODS) from None


def wants_bounce(params: bytes) -> bool:
    """Whether a push of ours is to come back if it ends undone."""
    return fastcodec.decode_as(_push, params).bounce


# --- answers ----------------------------------------------------------------------------------------------------------


class Receipt(msgspec.Struct, rename={"sender": "from"}, gc=False):
    """What is known of one message, as both sockets answer it. A Struct: as a dict it took twice as long to say."""

    id: str
    to: str
    sender: str
    stage: str
    reason: str | None
    durability: str
    duplicate: bool
    mailbox_id: str
    msg_no: int
    delivery: int
    evidence: str | None
    reply_id: str | None
    reply_text: Raw | UnsetType = UNSET  # the answer to a sender who has no mailbox, once it is done


def answer(request_id: bytes, result: Any) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (request_id, fastcodec.encode(result))


def answer_error(request_id: bytes, error: BackchannelError) -> bytes:
    data = {"code": error.code, "hint": error.hint, "retry": error.retry}
    reason = getattr(error, "reason", "")
    if reason and reason != error.message:
        data["reason"] = reason
    body = {"code": CODES.get(error.code, CODES["internal"])[0], "message": error.message, "data": data}
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (request_id, fastcodec.encode(body))


def _is_id(raw: bytes) -> bool:
    if raw.startswith(b'"'):
        try:
            fastcodec.check_text(Raw(raw))
        except Malformed:
            return False
        return True
    if len(raw) < 16 and raw.isdigit():
        return True
    return raw.lstrip(b"-").isdigit() and len(raw) <= 17 and -INTEGER_MAX <= int(raw) <= INTEGER_MAX


def _bad_request(message: str) -> LocalProtocolError:
    return LocalProtocolError(
        message, code="bad_request", hint='send {"jsonrpc":"2.0","id":1,"method":...,"params":{}}'
    )


@cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


_request = msgspec.json.Decoder(Request)
_push = msgspec.json.Decoder(Push)
_strict_push = msgspec.json.Decoder(StrictPush)
_PUSH_FIELDS = frozenset(f.encode_name for f in msgspec.structs.fields(Push))
