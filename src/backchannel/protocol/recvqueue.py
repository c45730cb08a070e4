"""What this end received: RFC 9293's receive sequence space (3.3.1), counted in frames, and one number more.

    acked       below: our agent has processed it
    rcv_nxt     the one frame that is taken next

A frame is stored only if its number is `rcv_nxt`. We buffer none out of order: the peer's outbox repeats in
order, on the same machine, and costs less than the bookkeeping.
"""

from msgspec import Struct
from msgspec.structs import replace

DIGESTS_KEPT = 16
"""How many stored frames are remembered by digest. A pusher has fewer under way on one session before the
first has its receipt, so nobody waits for the answer to an older repeat. They are written with each frame.
"""


class ReceiveQueue(Struct, frozen=True):
    rcv_nxt: int = 0
    acked: int = 1
    fin: int | None = None
    ack_row: int | None = None
    """The ACK that stands in our outbox without a receipt."""
    digests: tuple[bytes, ...] = ()
    """Of the frames before `rcv_nxt`, the last one last."""

    def store(self, digest: bytes, *, is_fin: bool = False) -> "ReceiveQueue":
        return replace(
            self,
            rcv_nxt=self.rcv_nxt + 1,
            fin=self.rcv_nxt if is_fin else self.fin,
            digests=(*self.digests, digest)[-DIGESTS_KEPT:],
        )

    def recognises(self, seq: int, digest: bytes) -> bool:
        """Whether `digest` is that of the stored frame `seq`; a frame too old to be remembered is believed."""
        oldest = self.rcv_nxt - len(self.digests)
        return seq < oldest or self.digests[seq - oldest] == digest

    def may_ack(self, seq: int) -> bool:
        return self.acked <= seq < self.rcv_nxt

    def ack(self, seq: int) -> "ReceiveQueue":
        """Our agent processed `seq`, and so all before it."""
        return replace(self, acked=seq + 1)
