"""Receipts: what is known of one message, by stage. `docs/receipts.md` says who attests each.

A stage is never reported before it is true. The order of a life is stored, taken, acked, done; a released message is
`stored` again, and four ends leave without being done.
"""

from enum import StrEnum


class Stage(StrEnum):
    """Where a message stands. Compares and prints as its word on the wire."""

    QUEUED = "queued"  # in the sender's own outbox; its daemon will push it
    STORED = "stored"  # the target's daemon has it, and is responsible
    TAKEN = "taken"  # handed to a process of the agent, not yet acknowledged
    ACKED = "acked"  # the agent says it has it
    DONE = "done"  # the agent answered
    REJECTED = "rejected"  # the agent said no, with a reason
    EXPIRED = "expired"  # its ttl passed before anybody took it
    CANCELLED = "cancelled"  # the sender took it back in time
    DEAD = "dead"  # handed out too often without an acknowledgement

    @property
    def is_failure(self) -> bool:
        """It ended without being done."""
        return self in FAILURES

    def reached(self, wanted: "Stage") -> bool:
        """Whether a wait for `wanted` is over: the stage is there, or can never come."""
        return self.is_failure or _ORDER[self] >= _ORDER[wanted]


FAILURES = frozenset({Stage.REJECTED, Stage.EXPIRED, Stage.CANCELLED, Stage.DEAD})
WAITABLE = (Stage.STORED, Stage.TAKEN, Stage.ACKED, Stage.DONE)
_ORDER = {Stage.QUEUED: -1, Stage.STORED: 0, Stage.TAKEN: 1, Stage.ACKED: 2, Stage.DONE: 3} | dict.fromkeys(FAILURES, 4)
