"""What an agent sent through its own daemon, until the targets' daemons have it: the rows, not the sending.

Rows come in with the transaction that caused them and leave with the one that learnt their receipt, so a crash only
ever means that a push is repeated, which its id makes harmless.
"""

from typing import NamedTuple

from ..errors import OverLimit
from .mailbox import Mailbox

ROWS_MAX = 100_000  # of all targets together; an agent that sends into a void is told so


class Row(NamedTuple):
    """One message under way. `params` is the push, as a JSON object."""

    row_no: int
    target: str
    id: str
    params: bytes
    queued_at: float


class Outbox:
    """The rows of one mailbox. `waiting` counts them by target; it mirrors what is committed or about to be."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.waiting: dict[str, int] = {}
        self.reload()

    def reload(self) -> None:
        rows = self._mailbox.db.execute("SELECT target, count(*) FROM outbox GROUP BY target")
        self.waiting = dict(rows)

    def __len__(self) -> int:
        return sum(self.waiting.values())

    def admit(self, count: int) -> None:
        """Raises `OverLimit` (`full`) if `count` more rows do not fit."""
        if len(self) + count > ROWS_MAX:
            raise OverLimit(
                f"the outbox is full ({len(self)} messages have no receipt yet)",
                code="full",
                hint="see which targets are unreachable: backchannel status",
                retry=True,
            )

    def add(self, target: str, message_id: str, params: bytes, wall: float) -> None:
        """Queues a push. The same id to the same target again changes nothing."""
        self._mailbox.begin()
        cursor = self._mailbox.db.execute(
            "INSERT OR IGNORE INTO outbox (target, id, params, queued_at) VALUES (?, ?, ?, ?)",
            (target, message_id, params, wall),
        )
        if cursor.rowcount:
            self.waiting[target] = self.waiting.get(target, 0) + 1

    def first(self, target: str) -> Row:
        """The oldest row for a target that has some waiting."""
        return Row(
            *self._mailbox.db.execute(
                "SELECT row_no, target, id, params, queued_at FROM outbox WHERE target = ? ORDER BY row_no LIMIT 1",
                (target,),
            ).fetchone()
        )

    def find(self, message_id: str, target: str | None = None) -> Row | None:
        row = self._mailbox.db.execute(
            "SELECT row_no, target, id, params, queued_at FROM outbox WHERE id = ?1 AND (?2 IS NULL OR target = ?2)",
            (message_id, target),
        ).fetchone()
        return Row(*row) if row else None

    def remove(self, row: Row) -> None:
        """It was receipted, or refused for good."""
        self._mailbox.begin()
        self._mailbox.db.execute("DELETE FROM outbox WHERE row_no = ?", (row.row_no,))
        left = self.waiting[row.target] - 1
        if left:
            self.waiting[row.target] = left
        else:
            del self.waiting[row.target]
