"""What this agent sends in its sessions: the outbox of frames, and afterwards their history.

A frame is queued in the transaction that changed its session, pushed in order within it until a receipt names it, and
then stays as the record of what was said. ACKs are the exception: a newer one says all that an older one did.
"""

from typing import Any, NamedTuple

from .mailbox import Mailbox

STORED = "stored"
DROPPED = "dropped"


class FrameRow(NamedTuple):
    """One frame to be pushed. `params` is the request's, as a JSON object without the key."""

    row_no: int
    session: str
    target: str
    kind: str
    number: int
    params: bytes


class Frames:
    """The frames of one mailbox. `waiting` tells for each session with queued ones its target and how many; it mirrors
    what is committed or about to be."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.waiting: dict[str, tuple[str, int]] = {}
        self._acked: dict[str, int] = {}  # by session: all below this number is marked so, as far as we have seen
        self.reload()

    def reload(self) -> None:
        self._acked.clear()
        rows = self._mailbox.db.execute(
            "SELECT session, target, count(*) FROM frames WHERE stage = 'queued' GROUP BY session"
        )
        self.waiting = {session: (target, count) for session, target, count in rows}

    def __len__(self) -> int:
        return sum(count for _, count in self.waiting.values())

    def add(
        self, target: str, session: str, kind: str, number: int, params: bytes, wall: float, say_id: str | None = None
    ) -> None:
        self._mailbox.begin()
        self._mailbox.db.execute(
            "INSERT INTO frames (session, target, kind, number, say_id, params, sent_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (session, target, kind, number, say_id, params, wall),
        )
        self.waiting[session] = (target, self.waiting.get(session, (target, 0))[1] + 1)

    def first(self, session: str) -> FrameRow:
        """The oldest queued frame of a session that has some."""
        return FrameRow(
            *self._mailbox.db.execute(
                "SELECT row_no, session, target, kind, number, params FROM frames"
                " WHERE session = ? AND stage = 'queued' ORDER BY row_no LIMIT 1",
                (session,),
            ).fetchone()
        )

    def is_queued(self, row_no: int) -> bool:
        found = self._mailbox.db.execute("SELECT 1 FROM frames WHERE row_no = ? AND stage = 'queued'", (row_no,))
        return found.fetchone() is not None

    def settle(self, session: str, kind: str, number: int, stage: str, wall: float) -> None:
        """A queued frame leaves the outbox: its peer has it, or never will."""
        self._mailbox.begin()
        if kind == "ACK":
            cursor = self._mailbox.db.execute(
                "DELETE FROM frames WHERE session = ? AND kind = 'ACK' AND number = ?", (session, number)
            )
        else:
            cursor = self._mailbox.db.execute(
                "UPDATE frames SET stage = ?, stored_at = ?"
                " WHERE session = ? AND kind = ? AND number = ? AND stage = 'queued'",
                (stage, wall if stage == STORED else None, session, kind, number),
            )
        self._left(session, cursor.rowcount)

    def drop_all(self, session: str) -> None:
        """The session is over: what is still queued never goes out."""
        if session not in self.waiting:
            return
        self._mailbox.begin()
        self._mailbox.db.execute("DELETE FROM frames WHERE session = ? AND kind = 'ACK'", (session,))
        self._mailbox.db.execute(
            "UPDATE frames SET stage = 'dropped' WHERE session = ? AND stage = 'queued'", (session,)
        )
        del self.waiting[session]

    def acknowledged(self, session: str, upto: int, wall: float) -> None:
        """The peer's agent has processed everything below `upto`."""
        self._mailbox.begin()
        self._mailbox.db.execute(
            "UPDATE frames SET acked_at = ? WHERE session = ? AND kind IN ('DATA', 'FIN') AND number >= ?"
            " AND number < ? AND acked_at IS NULL",
            (wall, session, self._acked.get(session, 0), upto),
        )
        self._acked[session] = upto

    def said(self, session: str, say_id: str) -> tuple[int, bytes] | None:
        """Number and params of the DATA that was sent under this key of the caller's, if any."""
        found: tuple[int, bytes] | None = self._mailbox.db.execute(
            "SELECT number, params FROM frames INDEXED BY by_say WHERE session = ? AND say_id = ? AND kind = 'DATA'",
            (session, say_id),
        ).fetchone()
        return found

    def history(self, session: str) -> list[tuple[Any, ...]]:
        """(kind, number, params, stage, sent_at, stored_at, acked_at) of all that was sent, in order."""
        return self._mailbox.db.execute(
            "SELECT kind, number, params, stage, sent_at, stored_at, acked_at FROM frames"
            " WHERE session = ? AND kind <> 'ACK' ORDER BY row_no",
            (session,),
        ).fetchall()

    def forget(self, session: str) -> None:
        self._mailbox.begin()
        self._mailbox.db.execute("DELETE FROM frames WHERE session = ?", (session,))
        self.waiting.pop(session, None)
        self._acked.pop(session, None)

    def _left(self, session: str, count: int) -> None:
        if not count:
            return
        target, before = self.waiting[session]
        if before > count:
            self.waiting[session] = (target, before - count)
        else:
            del self.waiting[session]
