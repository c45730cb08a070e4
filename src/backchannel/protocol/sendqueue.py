"""What this end sent: RFC 9293's send sequence space (3.3.1), counted in frames, and one number more.

    receipted   below: the peer's daemon has stored it; the outbox need not repeat it
    snd_una     below: the peer's AGENT has processed it
    snd_nxt     the next number to give out

SYN and SYN-ACK take number 0. They are answered, never acked, so `snd_una` begins at 1. The frames
themselves lie in the outbox, not here.
"""

from msgspec import Struct
from msgspec.structs import replace

WINDOW = 1_000
"""Frames that may wait for the peer's agent. More would only fill its mailbox; the sender is to feel that it
is slow.
"""


class SendQueue(Struct, frozen=True):
    receipted: int = 0
    snd_una: int = 1
    snd_nxt: int = 0
    fin: int | None = None
    unproven: int | None = None
    """What `snd_nxt` was at a start in a new epoch, until a PROBE has compared it. Numbers that our agent has been
    given since are left out of that comparison: they would hide that we gave them out before, and forgot.
    """

    @property
    def is_full(self) -> bool:
        return self.snd_nxt - self.snd_una >= WINDOW

    def sent(self) -> "SendQueue":
        """One number given out; it was `snd_nxt`."""
        return replace(self, snd_nxt=self.snd_nxt + 1)

    def finished(self) -> "SendQueue":
        """As `sent`, and nothing comes after it."""
        return replace(self, snd_nxt=self.snd_nxt + 1, fin=self.snd_nxt)

    def receipt(self, seq: int) -> "SendQueue":
        """The peer stores in order, so one receipt speaks for all frames before it."""
        return replace(self, receipted=max(self.receipted, seq + 1))

    def ack(self, ack: int) -> "SendQueue":
        """The peer's agent processed all below `ack`. A smaller ACK than the last is late, and changes nothing."""
        return replace(self, snd_una=max(self.snd_una, ack), receipted=max(self.receipted, ack))

    def doubted(self) -> "SendQueue":
        return self if self.unproven is not None else replace(self, unproven=self.snd_nxt)

    def proven(self) -> "SendQueue":
        return replace(self, unproven=None)

    def can_have_reached(self, rcv_nxt: int) -> bool:
        """Whether we know of having sent all that a peer with this `rcv_nxt` has stored."""
        return rcv_nxt <= (self.snd_nxt if self.unproven is None else self.unproven)
