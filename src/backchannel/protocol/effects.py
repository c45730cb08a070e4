"""What a session asks of the world, as values.

Two kinds, and the difference is the promise about the disk. `Effect`s are written in the transaction that
saves the session; every method but one returns these. `Saying`s leave the machine; only `committed()`
returns them.
"""

from enum import Enum

from msgspec import Struct

from backchannel.protocol.events import Event
from backchannel.protocol.sessionframe import Data, Fin, FrameId, Probe, SessionFrame
from backchannel.protocol.states import Outcome


class Leave(Enum):
    """Why an outbox row goes. There is no other reason."""

    RECEIPTED = "receipted"
    ACKED = "acked"  # the peer's answer covers it, though its receipt was lost
    REPLACED = "replaced"  # by a later ACK
    ENDED = "ended"  # the session is over: what was not yet sent never will be


class Enqueue(Struct, frozen=True):
    """Put a row into the outbox. It is pushed, in order within its session, until an answer names it."""

    peer: str
    frame: SessionFrame


class Strike(Struct, frozen=True):
    """Delete one row from the outbox."""

    frame: FrameId
    why: Leave


class StrikeAll(Struct, frozen=True):
    """Delete the session's rows from the outbox, the ones before this effect."""

    session: str
    why: Leave


class Deliver(Struct, frozen=True):
    """Put a row into the agent's mailbox: data, or the peer's FIN with its result. The agent acks both by `seq`."""

    session: str
    seq: int
    frame: Data | Fin


class Report(Struct, frozen=True):
    """Tell whoever watches."""

    event: Event


class Forget(Struct, frozen=True):
    """Delete the session's saved state: its tombstone has stood long enough."""

    session: str


Effect = Enqueue | Strike | StrikeAll | Deliver | Report | Forget


class Transmit(Struct, frozen=True):
    """Push this frame now. A PROBE is only ever this; any other is in the outbox too."""

    peer: str
    frame: SessionFrame


class Resume(Struct, frozen=True):
    """The session's outbox rows may be pushed again: a PROBE has compared both ends."""

    session: str


class Answer(Struct, frozen=True):
    """The receipt for one frame, or for a PROBE the answering end's own counts in `probe`."""

    frame: FrameId
    outcome: Outcome
    mailbox: str
    epoch: int
    reason: str = ""
    retry: bool = False
    probe: Probe | None = None


Saying = Transmit | Resume | Answer
