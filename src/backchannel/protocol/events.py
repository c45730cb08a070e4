"""What happened to a session, told to whoever watches: the agent's notices, the log, a display.

An event is a hint, never the truth: the truth is the session's state. Losing one loses nothing.
"""

from dataclasses import dataclass

from backchannel.protocol.sessionframe import Limits
from backchannel.protocol.states import Cause


@dataclass(frozen=True, slots=True)
class SessionOffered:
    """A peer asks for a session. The agent answers with accept or reject; the daemon never does."""

    session: str
    peer: str
    task: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class SessionAccepted:
    """The peer's agent agreed to the session we opened."""

    session: str
    peer: str


@dataclass(frozen=True, slots=True)
class DataAcknowledged:
    """The peer's agent has processed everything below `acked`."""

    session: str
    acked: int


@dataclass(frozen=True, slots=True)
class PeerProgressed:
    """The peer's agent says how far it is."""

    session: str
    note: str


@dataclass(frozen=True, slots=True)
class SessionClosed:
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
