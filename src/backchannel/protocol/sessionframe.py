"""The eight frames of a session, as plain values. How they look on the wire is the codec's affair.

Every frame says from which mailbox it comes and in which epoch of it, and to which mailbox and epoch once they are
known: a lost database must end sessions, not desynchronise them. SYN, SYN-ACK, REJ, DATA and FIN are
numbered and kept in the outbox until a receipt; ACK and RST are kept too, without a number of their own; a
PROBE is never kept.
"""

from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import astuple

from .hashing import sha256


class Limits(Struct, frozen=True):
    """What one session may use. Seconds; `None` is no limit."""

    max_messages: int | None = None
    max_bytes: int | None = None
    deadline: float | None = None
    accept_timeout: float | None = 300.0  # the opener's own wait; an agent that has not looked by then is not there
    idle_timeout: float | None = None

    def narrowed(self, other: "Limits") -> "Limits":
        """The stricter of the two in each respect."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Limits(*(min((v for v in pair if v is not None), default=None) for pair in pairs))


class FrameId(NamedTuple):
    """The name of an outbox row. A receipt counts only for the frame it names."""

    session: str
    kind: str
    number: int


class Header(Struct, frozen=True, kw_only=True):
    """What all frames carry. The receiver's mailbox and its epoch are None as long as they are not known."""

    session: str
    from_mailbox: str
    to_mailbox: str | None
    epoch: int
    to_epoch: int | None


class SynNumber(NamedTuple):
    """One SYN of one mailbox. The epoch stands first: a file that came back shorter numbers anew."""

    epoch: int
    number: int


class Syn(Header, frozen=True, kw_only=True):
    number: SynNumber
    task: str
    limits: Limits = Limits()

    @property
    def id(self) -> FrameId:
        return FrameId(self.session, "SYN", 0)


class SynAck(Header, frozen=True, kw_only=True):
    @property
    def id(self) -> FrameId:
        return FrameId(self.session, "SYN-ACK", 0)


class Rej(Header, frozen=True, kw_only=True):
    reason: str = ""
    retry_after: float | None = None

    @property
    def id(self) -> FrameId:
        return FrameId(self.session, "REJ", 0)


class Data(Header, frozen=True, kw_only=True):
    """`input_required`: the sender's agent cannot go on without an answer."""

    seq: int
    body: str
    input_required: bool = False

    @property
    def id(self) -> FrameId:
        return FrameId(self.session, "DATA", self.seq)


class Fin(Header, frozen=True, kw_only=True):
    seq: int
    status: str = "ok"
    result: str = ""

    @property
    def id(self) -> FrameId:
        return FrameId(self.session, "FIN", self.seq)


class Ack(Header, frozen=True, kw_only=True):
    """The sender's AGENT has processed every frame below `ack` (RFC 9293's SEG.ACK: the next one wanted)."""

    ack: int

    @property
    def id(self) -> FrameId:
        return FrameId(self.session, "ACK", self.ack)


class Rst(Header, frozen=True, kw_only=True):
    """`number` is the SYN's, from the end that sent it: a RST that overtakes its SYN must still outlive it."""

    reason: str
    number: SynNumber | None = None

    @property
    def id(self) -> FrameId:
        return FrameId(self.session, "RST", 0)


class Probe(Header, frozen=True, kw_only=True):
    """One end's counts, and in the answer the other's: processed below `acked`, stored below `rcv_nxt`;
    and of what it sent itself, the peer gave receipts below `receipted`. It began the session in its epoch `began`.
    """

    rcv_nxt: int
    acked: int
    receipted: int
    began: int
    note: str = ""
    """How far the sender's agent is, for the other agent to see: a hint, and never stored on the way."""

    @property
    def id(self) -> FrameId:
        return FrameId(self.session, "PROBE", 0)


SessionFrame = Syn | SynAck | Rej | Data | Fin | Ack | Rst | Probe


def seq_of(frame: SessionFrame) -> int | None:
    """The frame's place in its sender's sequence: one each for SYN (or its answer), DATA and FIN."""
    match frame:
        case Syn() | SynAck() | Rej():
            return 0
        case Data(seq=seq) | Fin(seq=seq):
            return seq
        case _:
            return None


def digest(frame: SessionFrame) -> bytes:
    """What a repeated frame must have in common with the stored one.

    The epoch is left out: an outbox row is sent again under the epoch of the day.
    """
    match frame:
        case Syn(number=number, task=task, limits=limits):
            said: tuple[object, ...] = (*number, task, *astuple(limits))
        case Rej(reason=reason, retry_after=retry_after):
            said = (reason, retry_after)
        case Data(body=body, input_required=input_required):
            said = (body, input_required)
        case Fin(status=status, result=result):
            said = (status, result)
        case _:
            said = ()
    digest: bytes = sha256(repr((type(frame).__name__, *said)).encode()).digest()
    return digest
