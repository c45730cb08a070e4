"""Which SYNs of one mailbox have been seen: why no old duplicate opens a session, and none needs TIME-WAIT
for it.

Each mailbox numbers its SYNs; the receiver keeps the highest, and which of the numbers just below have come,
since SYNs to one peer may overtake each other. It is a hundred bytes per peer and outlives all tombstones.
Like IPsec's anti-replay window (RFC 4303, 3.4.3), with the epoch before the number: a file that came back
shorter counts again from a number it has used, but in a later epoch.
"""

from dataclasses import dataclass

from backchannel.protocol.sessionframe import SynNumber

SYN_WINDOW = 1_024
"""How far a SYN may be overtaken: far more than the offers one mailbox may have open with us."""


NONE_YET = SynNumber(0, 0)


@dataclass(frozen=True, slots=True)
class SynNumbers:
    highest: SynNumber = NONE_YET
    seen: int = 0
    """Bit i: the number `highest - i` has come."""

    def is_new(self, number: SynNumber) -> bool:
        if number > self.highest:
            return True
        below = self.highest.number - number.number
        return number.epoch == self.highest.epoch and below < SYN_WINDOW and not self.seen >> below & 1

    def marked(self, number: SynNumber) -> "SynNumbers":
        """The same, and `number` has come."""
        if number.epoch > self.highest.epoch:
            return SynNumbers(number, 1)
        if number > self.highest:
            shifted = self.seen << (number.number - self.highest.number)
            return SynNumbers(number, (shifted | 1) & ((1 << SYN_WINDOW) - 1))
        if self.is_new(number):
            return SynNumbers(self.highest, self.seen | 1 << (self.highest.number - number.number))
        return self
