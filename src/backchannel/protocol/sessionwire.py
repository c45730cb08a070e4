"""Session frames on the wire: the params of `frame` and `probe`, and of the agent's own session calls.

One flat struct for all kinds of frame, because a line of JSON is flat too; what belongs to which kind is decided once,
in `to_frame`. A frame is stored as the params it is pushed with, less the key, so the outbox sends what it holds.
"""

from typing import Any, NamedTuple

import msgspec

from ..errors import LocalProtocolError
from . import fastcodec
from .codec import INTEGER_MAX
from .effects import Answer
from .envelope import PATH_MAX
from .frame import WAIT_S_MAX, Request
from .frame import parse as parse_params
from .names import AgentName, check_id
from .sessionframe import (
    Ack,
    Data,
    Fin,
    FrameId,
    Header,
    Limits,
    Probe,
    Rej,
    Rst,
    SessionFrame,
    Syn,
    SynAck,
    SynNumber,
)
from .states import Outcome

KINDS = {Syn: "SYN", SynAck: "SYN-ACK", Rej: "REJ", Data: "DATA", Fin: "FIN", Ack: "ACK", Rst: "RST", Probe: "PROBE"}
STATUSES = ("ok", "failed")
REASON_CHARS_MAX = 1000
NOTE_CHARS_MAX = 1000
BUDGET_MAX = INTEGER_MAX
SESSION_ID_CHARS = 34  # `s-` and 128 bits in hex


class Frame(msgspec.Struct, rename={"sender": "from"}, gc=False, omit_defaults=True):
    """`frame`: one frame of a session, from the peer's daemon. Which members a kind needs, `to_frame` says."""

    to: str
    kind: str
    session: str
    from_mailbox: str
    epoch: int
    sender: str | None = None
    auth: str | None = None
    to_mailbox: str | None = None
    to_epoch: int | None = None
    number: tuple[int, int] | None = None  # SYN, and RST from who sent the SYN: (epoch, number)
    text: str = ""  # SYN: the task; DATA: the text; FIN: the result
    seq: int = 0  # DATA, FIN
    ack: int = 0  # ACK
    status: str = "ok"  # FIN
    reason: str = ""  # REJ, RST
    retry_after: float | None = None  # REJ, seconds
    input_required: bool = False  # DATA: the sender cannot go on without an answer
    max_messages: int | None = None  # SYN: the budgets and timeouts, as in `open`
    max_bytes: int | None = None
    deadline: float | None = None
    accept_timeout: float | None = None
    idle_timeout: float | None = None
    hops: int = 0  # SYN, as in `push`
    trace_id: str | None = None
    path: list[str] | None = None


class ProbeFrame(msgspec.Struct, rename={"sender": "from"}, gc=False, omit_defaults=True):
    """`probe`: one end's counts of a session; the answer brings the other's. Never stored."""

    to: str
    session: str
    from_mailbox: str
    epoch: int
    rcv_nxt: int
    acked: int
    receipted: int
    began: int
    sender: str | None = None
    auth: str | None = None
    to_mailbox: str | None = None
    to_epoch: int | None = None
    note: str = ""  # how far the agent is, for its peer to see


class Open(msgspec.Struct, gc=False):
    """Offer another agent a session. Budgets count both directions together; times in seconds, null: none."""

    to: str
    text: str
    session: str | None = None  # made by the client, so that a repetition opens nothing twice
    max_messages: int | None = None
    max_bytes: int | None = None
    deadline: float | None = None
    accept_timeout: float | None = 300.0
    idle_timeout: float | None = None
    hops: int = 0
    trace_id: str | None = None
    path: list[str] | None = None


class Accept(msgspec.Struct, gc=False):
    """Agree to an offer. Limits of one's own make the opener's narrower, never wider."""

    session: str
    max_messages: int | None = None
    max_bytes: int | None = None
    deadline: float | None = None
    idle_timeout: float | None = None
    claim: bool = False  # claims the session's mail for this connection too; if another has it, nothing happens


class Abort(msgspec.Struct, gc=False):
    session: str
    reason: str = ""


class Sessions(msgspec.Struct, gc=False):
    """One session, or those that are asked for. With `wait`, answered as soon as there is something new to say."""

    session: str | None = None
    version: int | None = None
    state: str | None = None
    is_open: bool | None = None
    known: list[str] = []
    max: int = 100
    wait: float = 0.0
    told: bool = False  # with `session`: who asks acts on the answer, and needs no notice of how the offer ended


class Trace(msgspec.Struct, gc=False):
    """What went over one session, in the order of time."""

    session: str
    after: int = 0  # how many events to leave out: those that an earlier answer had
    text: bool = False


class AnswerBody(msgspec.Struct, gc=False):
    """The result of `frame` and `probe`."""

    session: str
    kind: str
    number: int
    outcome: str
    mailbox_id: str
    epoch: int
    reason: str = ""
    retry: bool = False
    counts: ProbeFrame | None = None


class Lineage(NamedTuple):
    """What a session hands down to all that is said in it: the loop guard's hops, trace and path. A SYN carries it."""

    hops: int = 0
    trace_id: str | None = None
    path: tuple[str, ...] = ()


# --- frames -----------------------------------------------------------------------------------------------------------


def parse_frame(request: Request) -> tuple[Frame, SessionFrame]:
    """A `frame` request as its params and as the frame it is. Raises `LocalProtocolError`."""
    params: Frame = parse_params(Frame, request)
    return params, to_frame(params)


def lineage_of(params: Frame | Open) -> Lineage:
    """Raises `LocalProtocolError` for values out of range."""
    if not 0 <= params.hops <= INTEGER_MAX:
        raise _bad(f"hops {params.hops} is out of range", "use 0 or more")
    if params.path is not None and len(params.path) > PATH_MAX:
        raise _bad(f"path {len(params.path)} is out of range", f"use at most {PATH_MAX} names")
    trace_id = check_id(params.trace_id) if params.trace_id is not None else None
    return Lineage(params.hops, trace_id, tuple(str(AgentName(name)) for name in params.path or ()))


def encode_frame(to: str, frame: SessionFrame, lineage: Lineage | None = None) -> bytes:
    """A frame as it is kept and pushed, without sender and key."""
    params = to_params(to, frame)
    if isinstance(params, Frame) and params.kind == "SYN" and lineage is not None:
        params.hops, params.trace_id, params.path = lineage.hops, lineage.trace_id, list(lineage.path)
    return fastcodec.encode(params)


def decode_frame(params: bytes) -> tuple[SessionFrame, Lineage]:
    """A frame of our own outbox."""
    kept = _kept.decode(params)
    return to_frame(kept), lineage_of(kept)


def decode_answer(result: Any) -> Answer:
    """The result of a `frame` or `probe`. Raises `LocalProtocolError` for what is none."""
    try:
        return to_answer(msgspec.convert(result, AnswerBody))
    except msgspec.ValidationError as error:
        raise _bad(f"no answer to a frame: {error}", "is the peer's daemon of another version?") from None


def parse_probe(request: Request) -> tuple[ProbeFrame, Probe]:
    params: ProbeFrame = parse_params(ProbeFrame, request)
    return params, _to_probe(params)


def to_frame(params: Frame) -> SessionFrame:
    """The frame that such params are. Raises `LocalProtocolError` for what no frame can be."""
    check_session_id(params.session)
    _check_counts(params.epoch, params.to_epoch, params.seq, params.ack, *(params.number or ()))
    header = {
        "session": params.session,
        "from_mailbox": check_id(params.from_mailbox),
        "to_mailbox": params.to_mailbox,
        "epoch": params.epoch,
        "to_epoch": params.to_epoch,
    }
    number = SynNumber(*params.number) if params.number is not None else None
    match params.kind:
        case "SYN":
            if number is None:
                raise _bad("a SYN has no number", "number it: [epoch, n]")
            limits = to_limits(params, params.accept_timeout)
            return Syn(**header, number=number, task=params.text, limits=limits)  # type: ignore[arg-type]
        case "SYN-ACK":
            return SynAck(**header)  # type: ignore[arg-type]
        case "REJ":
            retry_after = checked_seconds("retry_after", params.retry_after)
            return Rej(**header, reason=checked_reason(params.reason), retry_after=retry_after)  # type: ignore[arg-type]
        case "DATA":
            return Data(**header, seq=params.seq, body=params.text, input_required=params.input_required)  # type: ignore[arg-type]
        case "FIN":
            status = checked_status(params.status)
            return Fin(**header, seq=params.seq, status=status, result=params.text)  # type: ignore[arg-type]
        case "ACK":
            return Ack(**header, ack=params.ack)  # type: ignore[arg-type]
        case "RST":
            return Rst(**header, reason=checked_reason(params.reason), number=number)  # type: ignore[arg-type]
    kinds = ", ".join(k for k in KINDS.values() if k != "PROBE")
    raise _bad(f"kind {params.kind[:40]!a} is no frame", f"use {kinds}")


def to_params(to: str, frame: SessionFrame) -> Frame | ProbeFrame:
    """The params that push a frame, without sender and key."""
    header = _header(frame)
    match frame:
        case Probe():
            return _probe_params(to, frame)
        case Syn(number=number, task=task, limits=limits):
            return Frame(
                to,
                "SYN",
                **header,
                number=(number.epoch, number.number),
                text=task,
                max_messages=limits.max_messages,
                max_bytes=limits.max_bytes,
                deadline=limits.deadline,
                accept_timeout=limits.accept_timeout,
                idle_timeout=limits.idle_timeout,
            )
        case Rej(reason=reason, retry_after=retry_after):
            return Frame(to, "REJ", **header, reason=reason, retry_after=retry_after)
        case Data(seq=seq, body=body, input_required=input_required):
            return Frame(to, "DATA", **header, seq=seq, text=body, input_required=input_required)
        case Fin(seq=seq, status=status, result=result):
            return Frame(to, "FIN", **header, seq=seq, status=status, text=result)
        case Ack(ack=ack):
            return Frame(to, "ACK", **header, ack=ack)
        case Rst(reason=reason, number=number):
            return Frame(to, "RST", **header, reason=reason, number=(number.epoch, number.number) if number else None)
        case SynAck():
            return Frame(to, "SYN-ACK", **header)


def answer_body(answer: Answer, to: str) -> AnswerBody:
    """An answer as it goes over the wire; `to` is the agent that asked."""
    name = answer.frame
    counts = _probe_params(to, answer.probe) if answer.probe is not None else None
    return AnswerBody(
        name.session, name.kind, name.number, answer.outcome.value, answer.mailbox, answer.epoch,
        answer.reason, answer.retry, counts,
    )  # fmt: skip


def to_answer(body: AnswerBody) -> Answer:
    """The answer such a result is. Raises `LocalProtocolError`."""
    try:
        outcome = Outcome(body.outcome)
    except ValueError:
        raise _bad(f"outcome {body.outcome[:40]!a} is unknown", "is the peer's daemon newer?") from None
    probe = _to_probe(body.counts) if body.counts is not None else None
    frame = FrameId(body.session, body.kind, body.number)
    return Answer(frame, outcome, body.mailbox_id, body.epoch, cut_reason(body.reason), body.retry, probe)


def _to_probe(params: ProbeFrame) -> Probe:
    check_session_id(params.session)
    _check_counts(params.epoch, params.to_epoch, params.rcv_nxt, params.acked, params.receipted, params.began)
    return Probe(
        session=params.session,
        from_mailbox=check_id(params.from_mailbox),
        to_mailbox=params.to_mailbox,
        epoch=params.epoch,
        to_epoch=params.to_epoch,
        rcv_nxt=params.rcv_nxt,
        acked=params.acked,
        receipted=params.receipted,
        began=params.began,
        note=checked_note(params.note),
    )


def _probe_params(to: str, probe: Probe) -> ProbeFrame:
    return ProbeFrame(
        to,
        **_header(probe),
        rcv_nxt=probe.rcv_nxt,
        acked=probe.acked,
        receipted=probe.receipted,
        began=probe.began,
        note=probe.note,
    )


def _header(frame: Header) -> dict[str, Any]:
    return {
        "session": frame.session,
        "from_mailbox": frame.from_mailbox,
        "to_mailbox": frame.to_mailbox,
        "epoch": frame.epoch,
        "to_epoch": frame.to_epoch,
    }


# --- values -----------------------------------------------------------------------------------------------------------


def is_session_id(value: str) -> bool:
    """Whether it names a session, and not one of its messages (`SESSION/3`) or any other message."""
    return len(value) == SESSION_ID_CHARS and value.startswith("s-") and "/" not in value


def check_session_id(value: str) -> str:
    """Raises `LocalProtocolError` (`bad_id`)."""
    if not is_session_id(value) or not value.isascii() or not value.isprintable():
        shown = ascii(value if len(value) < 80 else value[:77] + "...")
        raise LocalProtocolError(f"{shown} is not a session id", code="bad_id", hint="use `s-` and 32 hex digits")
    return value


def to_limits(params: Frame | Open | Accept, accept_timeout: float | None) -> Limits:
    """The budgets and timeouts of a request. Raises `LocalProtocolError` for values out of range."""
    for name, value in (("max_messages", params.max_messages), ("max_bytes", params.max_bytes)):
        if value is not None and not 0 < value <= BUDGET_MAX:
            raise _bad(f"{name} {value} is out of range", "use 1 or more, below 2^53")
    return Limits(
        params.max_messages,
        params.max_bytes,
        checked_seconds("deadline", params.deadline),
        checked_seconds("accept_timeout", accept_timeout),
        checked_seconds("idle_timeout", params.idle_timeout),
    )


def checked_seconds(name: str, value: float | None) -> float | None:
    if value is not None and not 0 < value <= WAIT_S_MAX:
        raise _bad(f"{name} {value} is out of range", f"use more than 0 and at most {WAIT_S_MAX:.0f} seconds")
    return value


def checked_reason(reason: str) -> str:
    if len(reason) > REASON_CHARS_MAX:
        raise _bad(f"a reason of {len(reason)} characters", f"say it in {REASON_CHARS_MAX}")
    return reason


def cut_reason(reason: str) -> str:
    """A reason in somebody else's words, short enough to be passed on."""
    return reason[:REASON_CHARS_MAX]


def checked_note(note: str) -> str:
    if len(note) > NOTE_CHARS_MAX:
        raise _bad(f"a note of {len(note)} characters", f"say it in {NOTE_CHARS_MAX}")
    return note


def checked_status(status: str) -> str:
    if status not in STATUSES:
        raise _bad(f"status {status[:40]!a} is unknown", f"use {' or '.join(STATUSES)}")
    return status


def _check_counts(*values: int | None) -> None:
    for value in values:
        if value is not None and not 0 <= value <= INTEGER_MAX:
            raise _bad(f"{value} is out of range", "counts are 0 or more, below 2^53")


def _bad(what: str, hint: str) -> LocalProtocolError:
    return LocalProtocolError(what, code="bad_params", hint=hint)


_kept = msgspec.json.Decoder(Frame)
