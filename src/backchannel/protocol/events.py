"""What happened to a session, told to whoever watches: the agent's notices, the log, a display.

An event is a hint, never the truth: the truth is the session's state. Losing one loses nothing.
"""

from msgspec import Struct

from backchannel.protocol.sessionframe import Limits
from backchannel.protocol.states import Cause


class SessionOffered(Struct, frozen=True):
    """A peer asks for a session. The agent answers with accept or reject; the daemon never does."""

    session: str
    peer: str
    task: str
    limits: Limits


class SessionAccepted(Struct, frozen=True):
    """The peer's agent agreed to the session we opened."""

    session: str
    peer: str


class DataAcknowledged(Struct, frozen=True):
    """The peer's agent has processed everything below `acked`."""

    session: str
    acked: int


class PeerProgressed(Struct, frozen=True):
    """The peer's agent says how far it is."""

    session: str
    note: str


class SessionClosed(Struct, frozen=True):
    """The session ended. Of what we sent, the peer stored all below `stored_upto`, its agent processed all
    below `acked_upto`; `retry_after` is what a rejecting agent named.
    """

    session: str
    peer: str
    cause: Cause
    reason: str
    stored_upto: int
    acked_upto: int
    retry_after: float | None = None


Event = SessionOffered | SessionAccepted | DataAcknowledged | PeerProgressed | SessionClosed
