"""When a session must act by itself: a few times, and which of them has come.

Times are on the caller's clock and lie in the snapshot as they are. After a boot that clock starts anew:
`shifted`. A PROBE's time is not kept: every daemon start probes every open session. Resending is not here
either; the outbox repeats, with its own pauses.
"""

from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

KEEPALIVE = 600.0
"""Seconds without a word from the peer until we ask whether it still has the session."""
PROBE_AGAIN = 30.0
"""Seconds until a PROBE that was not answered is repeated: the outbox's longest pause."""
TOMBSTONE = 7 * 86_400.0
"""Seconds for which a closed session can still be looked up. For people; the protocol needs SYN numbers only."""


class Timer(Enum):
    """The values are the reasons that a session ends with. Endings stand first: if one is due, nothing else matters."""

    DEADLINE = "deadline"
    ACCEPT = "accept_timeout"
    IDLE = "idle_timeout"
    FORGET = "forget"
    PROBE = "probe"


class Timers(Struct, frozen=True):
    deadline: float | None = None
    accept: float | None = None
    idle: float | None = None
    forget: float | None = None
    probe: float | None = None

    @property
    def next(self) -> float | None:
        times = [t for t in (self.deadline, self.accept, self.idle, self.forget, self.probe) if t is not None]
        return min(times, default=None)

    def due(self, now: float) -> Timer | None:
        """The most important timer that has run out."""
        return next((timer for timer, at in self._set() if at <= now), None)

    def shifted(self, by: float) -> "Timers":
        """The same pauses on a clock that shows `by` more."""
        return replace(self, **{timer.name.lower(): at + by for timer, at in self._set()})

    def _set(self) -> list[tuple[Timer, float]]:
        at = (self.deadline, self.accept, self.idle, self.forget, self.probe)
        return [(timer, t) for timer, t in zip(Timer, at, strict=True) if t is not None]
