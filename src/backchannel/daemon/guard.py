"""The loop guard: polite agents thank each other for ever unless somebody counts.

Hops are counted on the message itself and cannot be forgotten by it: an agent that a model drives sends only through
its own daemon, which adds one to the newest delivery it handed out in the last ten minutes. A rate for each pair does
the rest; when it trips, both ends are told once, and so is the log.
"""

from ..errors import OverLimit, Refused

HOPS_MAX = 16  # a chain of agents longer than this is a circle
INHERIT_S = 600.0  # how long a delivery counts as what a model is acting on
RATE_A_MINUTE = 60.0
RATE_BURST = 20.0


class Inheritance:
    """What the newest delivery hands down: its trace, its path, and one hop more."""

    __slots__ = ("hops", "path", "trace_id", "until")

    def __init__(self) -> None:
        self.trace_id: str | None = None
        self.path: list[str] = []
        self.hops = 0
        self.until = 0.0

    def delivered(self, message_id: str, trace_id: str | None, hops: int, path: list[str], now: float) -> None:
        self.trace_id = trace_id or message_id
        self.path = path
        self.hops = hops + 1
        self.until = now + INHERIT_S

    def of(self, now: float) -> tuple[int, str | None]:
        """(hops, trace_id) that a message sent now inherits."""
        return (self.hops, self.trace_id) if now < self.until else (0, None)

    def path_of(self, now: float) -> list[str]:
        return self.path if now < self.until else []

    def is_over(self, now: float) -> bool:
        """Whether nothing is handed down any more."""
        return now >= self.until


class Pairs:
    """Token buckets, one for each peer. `take` says whether one more may pass, and whether the breaker just tripped."""

    def __init__(self, burst: float = RATE_BURST, a_minute: float = RATE_A_MINUTE) -> None:
        self._burst = burst
        self._a_second = a_minute / 60.0
        self._buckets: dict[str, tuple[float, float, bool]] = {}  # tokens, as of, tripped

    def take(self, peer: str, now: float) -> tuple[bool, bool]:
        """(allowed, tripped just now)."""
        tokens, since, tripped = self._buckets.get(peer, (self._burst, now, False))
        tokens = min(self._burst, tokens + (now - since) * self._a_second)
        if tokens >= 1.0:
            # Closed again only with some room, or both would be told with every second message.
            self._buckets[peer] = (tokens - 1.0, now, tripped and tokens < self._burst / 2)
            return True, False
        self._buckets[peer] = (tokens, now, True)
        return False, not tripped

    def tripped(self) -> list[str]:
        return sorted(peer for peer, (_, _, tripped) in self._buckets.items() if tripped)


def too_many_hops(hops: int, name: str) -> Refused:
    return Refused(
        f"the message reached {name} through {hops} agents: that is a loop",
        code="loop",
        reason=f"more than {HOPS_MAX} hops",
        hint="stop answering it; begin a new message if there is something new",
    )


def too_fast(peer: str) -> OverLimit:
    return OverLimit(
        f"too many messages to {peer}: more than {RATE_A_MINUTE:.0f} a minute",
        code="rate",
        hint="stop, or wait a minute; is it a loop of politeness?",
        retry=False,
    )


class Traces:
    """How many messages of one trace this mailbox stored: a fan-out that keeps fanning out ends here."""

    MESSAGES_MAX = 200  # of one trace in one mailbox; no task between two agents needs as many
    TRACES_KEPT = 10_000

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}  # the oldest first

    def is_full(self, trace_id: str) -> bool:
        return self._counts.get(trace_id, 0) >= self.MESSAGES_MAX

    def count(self, trace_id: str) -> None:
        """One more was stored."""
        self._counts[trace_id] = self._counts.pop(trace_id, 0) + 1
        if len(self._counts) > self.TRACES_KEPT:
            del self._counts[next(iter(self._counts))]


class Once:
    """Remembers what was told already, the last thousand."""

    KEPT = 1000

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}

    def add(self, what: str) -> bool:
        """True the first time."""
        if what in self._seen:
            return False
        self._seen[what] = None
        if len(self._seen) > self.KEPT:
            del self._seen[next(iter(self._seen))]
        return True


def too_many_messages(trace_id: str, name: str) -> Refused:
    return Refused(
        f"{name} got more than {Traces.MESSAGES_MAX} messages of the trace {trace_id}: that is a loop or a flood",
        code="loop",
        reason=f"more than {Traces.MESSAGES_MAX} messages of one trace",
        hint="stop; begin a new message if there is something new",
    )
