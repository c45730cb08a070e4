"""Which SYNs of one mailbox in one epoch have been seen: why no old duplicate opens a session, and none needs
TIME-WAIT for it.

Each mailbox numbers its SYNs; the receiver keeps the highest, and which of the numbers just below have come,
since SYNs to one peer may overtake each other. It is a hundred bytes per peer and outlives all tombstones.
Like IPsec's anti-replay window (RFC 4303, 3.4.3). Each epoch has its own: a file that came back shorter counts again
from a number it has used; and a SYN that still waits in its outbox from the epoch before may be overtaken by new ones.
"""

from msgspec import Struct

SYN_WINDOW = 1_024
"""How far a SYN may be overtaken: far more than the offers one mailbox may have open with us."""


class SynNumbers(Struct, frozen=True):
    highest: int = 0
    seen: int = 0
    """Bit i: the number `highest - i` has come."""

    def is_new(self, number: int) -> bool:
        below = self.highest - number
        return below < 0 or (below < SYN_WINDOW and not self.seen >> below & 1)

    def marked(self, number: int) -> "SynNumbers":
        """The same, and `number` has come."""
        if number > self.highest:
            shifted = self.seen << (number - self.highest)
            return SynNumbers(number, (shifted | 1) & ((1 << SYN_WINDOW) - 1))
        if self.is_new(number):
            return SynNumbers(self.highest, self.seen | 1 << (self.highest - number))
        return self
