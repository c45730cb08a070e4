"""What Backchannel has to reach, as data, and whether it did.

A target is a ratio of two rows, taken within each round and then the median of the rounds; or one row's own number; or
how many times faster a row is than a figure that was measured elsewhere. Latencies count pinned to one CPU.
"""

from dataclasses import dataclass
from enum import Enum

from .figures import PINNED, UNPINNED, Found, median_ratio

# The predecessor (ZeroMQ sockets that were polled, with sleeps) is in no registry, so it cannot run here. These are its
# own calls, measured pinned on two virtual CPUs like those the targets were set on, microseconds. Its sends had no
# acknowledgement, and its round trip had two modes; this is the quicker.
ORIGINAL_SEND_US = 10_641.0
ORIGINAL_ROUND_TRIP_US = 10_440.0
ORIGINAL_OPEN_US = 200_800.0

SESSION_DATA = "session: Backchannel data to the peer's agent, kept"
SESSION_MESSAGE = "session: Backchannel message to the peer's agent, kept"
SESSION_OPEN = "session: Backchannel open to accepted, kept"


class Kind(Enum):
    AT_MOST = "at most"
    AT_LEAST = "at least"


@dataclass(frozen=True)
class Target:
    """`row` against `base`: another row, a figure to be faster than, or None for the row's own number.

    `beyond` is where it could go. `share` is the percentile that is compared, of each round.
    """

    work: str
    row: str
    base: str | float | None
    kind: Kind
    target: float
    beyond: float | None = None
    share: float = 0.5
    mode: str = PINNED
    is_inverse: bool = False  # base over row: how many times slower or faster the row is


MOST, LEAST = Kind.AT_MOST, Kind.AT_LEAST

# Consumed means that an agent takes and acks meanwhile, as when the targets were set; the rows "to the last ack" stand
# beside it in the table.

TARGETS = (
    Target("send, process-durable, new connection / raw Python", "send: Backchannel, new", "send: raw Python, new", MOST, 1.6, 1.4),
    Target("send, process-durable, kept / raw Python, new connection", "send: Backchannel, kept", "send: raw Python, new", MOST, 1.0, 0.85),
    Target("p99.9 of that send, new connection / raw Python's p99.9", "send: Backchannel, new", "send: raw Python, new", MOST, 1.5, share=0.999),
    Target("round trip, kept / Redis Streams everysec, kept", "round trip: Backchannel, kept", "round trip: Redis Streams everysec, kept", MOST, 0.9, 0.75),
    Target("p99 of the same", "round trip: Backchannel, kept", "round trip: Redis Streams everysec, kept", MOST, 0.9, 0.75, share=0.99),
    Target("round trip, new / Redis Streams everysec, new", "round trip: Backchannel, new", "round trip: Redis Streams everysec, new", MOST, 0.3),
    Target("one way, unpinned / ZeroMQ push/pull", "one way: Backchannel, kept", "one way: ZeroMQ push/pull, kept", MOST, 2.0, 1.5, mode=UNPINNED),
    Target("send, power-durable, new / C connect + write + fdatasync", "send: Backchannel, power, new", "send: raw C, fdatasync, new", MOST, 1.5, 1.2),
    Target("16 power-durable senders / 1", "group commit: Backchannel, 16 senders, new", "group commit: Backchannel, 1 sender, new", LEAST, 4.0, mode=UNPINNED),
    Target("4 senders, new, consumed / raw Python", "4 senders: Backchannel, new", "4 senders: raw Python, new", LEAST, 0.45, 0.5, mode=UNPINNED),
    Target("4 senders, kept, consumed / Redis Streams everysec", "4 senders: Backchannel, kept", "4 senders: Redis Streams everysec, kept", LEAST, 0.9, 1.0, mode=UNPINNED),
    Target("batches / Redis pipelined XADD", "batches: Backchannel, kept", "batches: Redis Streams everysec, kept", LEAST, 1.0, 1.25, mode=UNPINNED),
    Target("batches with many waiting: times slower", "batches: Backchannel, many waiting, kept", "batches: Backchannel, kept", MOST, 2.5, mode=UNPINNED, is_inverse=True),
    Target("1 MiB round trip / Redis Streams everysec", "1 MiB: Backchannel, kept", "1 MiB: Redis Streams everysec, kept", MOST, 1.0, 0.5),
    Target("session DATA to the peer's agent / a message", SESSION_DATA, SESSION_MESSAGE, MOST, 2.5, 2.1),
    Target("backchannel send, whole process / python -c pass", "command: backchannel send, new", "command: python -c pass", MOST, 1.6, 1.1),
    Target("backchannel hook with nothing to say, whole process / python -c pass", "command: backchannel hook, nothing to say, new", "command: python -c pass", MOST, 2.0, 1.5),
    Target("send to exit of a blocked recv / hcom", "command: backchannel send to exit of recv, new", "command: hcom send to exit of listen", MOST, 1.5, 1.2),
    Target("daemon's resident memory, idle, MB", "memory: Backchannel daemon", None, MOST, 20.0, mode=UNPINNED),
    Target("daemon's wakeups a second, idle", "idle: Backchannel daemon", None, MOST, 0.0, mode=UNPINNED),
    Target("many agents in one process, MB", "memory: Backchannel, many agents in a process", None, MOST, 250.0, mode=UNPINNED),
    Target("put with many waiting / empty", "put: Backchannel, many waiting, kept", "put: Backchannel, empty, kept", MOST, 1.5),
    Target("take with many waiting / empty", "take: Backchannel, many waiting, kept", "take: Backchannel, empty, kept", MOST, 1.5),
    Target("send with many idle agents / with few", "agents: Backchannel, many, kept", "agents: Backchannel, few, kept", MOST, 1.3),
    Target("the predecessor's round trip: times faster", "round trip: Backchannel, kept", ORIGINAL_ROUND_TRIP_US, LEAST, 60.0, is_inverse=True),
    Target("the predecessor's send: times faster", "send: Backchannel, new", ORIGINAL_SEND_US, LEAST, 100.0, is_inverse=True),
    Target("the predecessor's session open: times faster", SESSION_OPEN, ORIGINAL_OPEN_US, LEAST, 100.0, is_inverse=True),
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """A target and what was reached; `reached` is None where a row is missing."""

    target: Target
    reached: float | None

    @property
    def word(self) -> str:
        if self.reached is None:
            return "not measured"
        return "ok" if _meets(self.target.kind, self.reached, self.target.target) else "missed"

    @property
    def is_beyond(self) -> bool:
        return (
            self.reached is not None
            and self.target.beyond is not None
            and _meets(self.target.kind, self.reached, self.target.beyond)
        )


def verdict(target: Target, found: Found) -> Verdict:
    rounds = found.get((target.row, target.mode), [])
    if isinstance(target.base, str):
        reached = median_ratio(rounds, found.get((target.base, target.mode), []), target.share)
    else:
        reached = median_ratio(rounds, [[target.base or 1.0]] * len(rounds), target.share)
    if reached is not None and target.is_inverse:
        reached = 1 / reached
    return Verdict(target, reached)


def _meets(kind: Kind, reached: float, wanted: float) -> bool:
    return reached <= wanted if kind is Kind.AT_MOST else reached >= wanted
