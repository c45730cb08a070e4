"""How long something took, each time: counts in buckets, cheap enough for every message.

Kept in memory since the daemon's start, as monitoring expects of a counter. A transaction that is undone is not taken
out again; it has happened, even if nothing came of it.
"""

from bisect import bisect_left
from typing import Any

# A direct hand-over takes microseconds, mail of an agent that is away waits for days.
BOUNDS_S = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0,
    60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0,
]  # fmt: skip


class Histogram:
    """Durations in seconds. `counts` has one bucket more than there are bounds: what took longer than the last."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """A clock that was set back makes no negative time."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        if seconds > 0.0:
            self.total_s += seconds

    def shown(self) -> dict[str, Any]:
        return {"bounds": BOUNDS_S, "counts": self.counts, "sum": self.total_s}
