"""How many messages of whom are where, and whether one more fits.

Kept in memory, moved with every message, moved back when a transaction is undone. No commit writes any of it: it
follows from the rows and from what was purged (see `standing`). The rule for a share comes from D-Bus: whoever floods
gets ever less of what is left, so others still get in.
"""

from collections.abc import Callable
from operator import attrgetter

from ..errors import OverLimit

COLUMNS = ("total", "stored", "taken", "acked", "done", "rejected", "expired", "cancelled", "dead", "bytes")


class Count:
    """One sender's messages, purged ones included. `total` is the sum of the eight stages; `bytes` are those of the
    messages stored or taken."""

    __slots__ = COLUMNS

    total: int
    stored: int
    taken: int
    acked: int
    done: int
    rejected: int
    expired: int
    cancelled: int
    dead: int
    bytes: int

    def __init__(self, *values: int) -> None:
        for column, value in zip(COLUMNS, values or (0,) * len(COLUMNS), strict=True):
            setattr(self, column, value)

    def values(self) -> tuple[int, ...]:
        return _values(self)

    @property
    def unacked(self) -> int:
        return self.stored + self.taken


class Counters:
    """All senders' counts and their sums."""

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self.messages_max = messages_max
        self.bytes_max = bytes_max
        self.by_sender: dict[str, Count] = {}
        self.stored = self.unacked = self.unacked_bytes = self.senders = 0

    def load(self, by_sender: dict[str, Count]) -> None:
        self.by_sender = by_sender
        counts = by_sender.values()
        self.stored = sum(c.stored for c in counts)
        self.unacked = sum(c.unacked for c in counts)
        self.unacked_bytes = sum(c.bytes for c in counts)
        self.senders = sum(c.unacked > 0 for c in counts)

    @property
    def total(self) -> int:
        """How many messages were ever stored."""
        return sum(count.total for count in self.by_sender.values())

    def sums(self) -> dict[str, int]:
        """All senders together, by column."""
        columns = zip(*(count.values() for count in self.by_sender.values()), strict=True)
        return dict.fromkeys(COLUMNS, 0) | dict(zip(COLUMNS, map(sum, columns), strict=False))

    def admit(self, sender: str, size: int) -> None:
        """Raises `OverLimit` (`full`, `quota`) if one more message of `size` bytes does not fit."""
        if self.unacked >= self.messages_max or self.unacked_bytes + size > self.bytes_max:
            raise OverLimit(
                f"the mailbox is full ({self.unacked} messages, {self.unacked_bytes} bytes unacked)",
                code="full",
                hint="it takes more when the agent has acked some; try again later",
                retry=True,
            )
        mine = self.by_sender.get(sender)
        count, size_now = (mine.unacked, mine.bytes) if mine else (0, 0)
        share = self.senders + 2 if count == 0 else self.senders + 1
        if count * share >= self.messages_max - (self.unacked - count) or (size_now + size) * share > self.bytes_max - (
            self.unacked_bytes - size_now
        ):
            raise OverLimit(
                f"{sender}'s share of the mailbox is used up ({count} messages, {size_now} bytes unacked)",
                code="quota",
                hint="it takes more when the agent has acked some; try again later",
                retry=True,
            )

    def moved(self, sender: str, before: str | None, after: str | None, size: int) -> None:
        """A message of `sender` went from one stage to another; `size` counts while it is stored or taken.

        None is where it comes from when it is new, and where it goes when that is undone.
        """
        count = self.by_sender.get(sender)
        if count is None:
            count = self.by_sender[sender] = Count()
        if before is None:
            count.total += 1
        else:
            if before == "stored" or before == "taken":
                count.bytes -= size
                self.unacked_bytes -= size
                self.unacked -= 1
                self.stored -= before == "stored"
                self.senders -= count.unacked == 1
            setattr(count, before, getattr(count, before) - 1)
        if after is None:
            count.total -= 1
            if not count.total:
                del self.by_sender[sender]
        else:
            if after == "stored" or after == "taken":
                self.senders += count.unacked == 0
                count.bytes += size
                self.unacked_bytes += size
                self.unacked += 1
                self.stored += after == "stored"
            setattr(count, after, getattr(count, after) + 1)


_values: Callable[[Count], tuple[int, ...]] = attrgetter(*COLUMNS)
