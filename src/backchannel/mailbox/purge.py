"""What is over leaves, in small steps, and leaves a record. Nothing unfinished ever does.

In two stages. The *content* of a message that ended goes first: its text, headers and kept answer. A digest stays, so a
repeated id still is a repetition, and another text under it still is refused (`key_reused`). The *row*, and with it the
memory of the id, goes only when it is older than a week and a million later messages were stored (docs/protocol.md 10).
Mail of a session that is remembered stays as long as the session.
"""

import sqlite3
from typing import NamedTuple

from ..protocol.envelope import digest_of
from .mailbox import Mailbox
from .standing import SIZE, TEXT, note_purged

ROWS_A_STEP = 50
BYTES_A_STEP = 256 << 10  # the reserve of a nearly full disk has to hold a step's log
WINDOW = 500  # numbers looked at in one step
IDS_KEPT_S = 7 * 86400.0
IDS_KEPT = 1_000_000
RECORDS_KEPT = 1000
EMPTIED = b"null"


class Wanted(NamedTuple):
    """What may leave: contents of messages that ended before then (Unix time), but not of the last `keep` messages."""

    before: float
    keep: int = 0


class Step(NamedTuple):
    """What one step did, and the number where the next begins; None: that was all."""

    contents: int
    bytes: int
    rows: int
    next: int | None


def step(mailbox: Mailbox, wanted: Wanted, begin: int, wall: float, *, ids_kept: int = IDS_KEPT) -> Step:
    """Purges some of the messages from number `begin` on, in the open transaction; the caller commits."""
    first, last = mailbox.numbers()
    begin = max(begin, first)
    end = min(begin + WINDOW, last + 1)
    found = _candidates(mailbox.db, wanted, begin, end, last, wall, ids_kept)
    contents = size = rows = 0
    reached = end
    for number, sender, stage, is_whole, content_bytes in found:
        if is_whole:
            _empty(mailbox, number)
            contents += 1
            size += content_bytes
        else:
            mailbox.begin()
            mailbox.db.execute("DELETE FROM messages WHERE msg_no = ?", (number,))
            note_purged(mailbox.db, sender, stage, 1, number)
            rows += 1
        if size >= BYTES_A_STEP or contents + rows == ROWS_A_STEP:
            reached = number + 1
            break
    return Step(contents, size, rows, reached if reached <= last else None)


def count(mailbox: Mailbox, wanted: Wanted, begin: int, wall: float) -> Step:
    """As `step`, of ten windows at once, and nothing is changed."""
    first, last = mailbox.numbers()
    begin = max(begin, first)
    end = min(begin + 10 * WINDOW, last + 1)
    contents = size = rows = 0
    found = _candidates(mailbox.db, wanted, begin, end, last, wall, IDS_KEPT, limit=10 * WINDOW)
    for _number, _sender, _stage, is_whole, content_bytes in found:
        contents += is_whole
        size += content_bytes if is_whole else 0
        rows += not is_whole
    return Step(contents, size, rows, end if end <= last else None)


def note(mailbox: Mailbox, purge_no: int | None, by: str, wanted: Wanted, done: Step, wall: float) -> int | None:
    """Adds a step to its record, in the same transaction. The record's number; None if nothing has left yet."""
    if not (done.contents or done.rows):
        return purge_no
    mailbox.begin()
    counts = (wall, done.contents, done.bytes, done.rows)
    added = mailbox.db.execute(
        "UPDATE purges SET at = ?, contents = contents + ?, bytes = bytes + ?, rows = rows + ?"
        " WHERE purge_no = ? AND by = ?",
        (*counts, purge_no, by),
    )
    if added.rowcount:
        return purge_no
    cursor = mailbox.db.execute(
        "INSERT INTO purges (at, contents, bytes, rows, by, before) VALUES (?, ?, ?, ?, ?, ?)",
        (*counts, by, wanted.before),
    )
    mailbox.db.execute("DELETE FROM purges WHERE purge_no <= ?", ((cursor.lastrowid or 0) - RECORDS_KEPT,))
    return cursor.lastrowid


def records(mailbox: Mailbox, most: int) -> list[dict[str, object]]:
    """The last purges, newest first."""
    rows = mailbox.db.execute(
        "SELECT purge_no, at, by, before, contents, bytes, rows FROM purges ORDER BY purge_no DESC LIMIT ?", (most,)
    )
    names = ("purge_no", "at", "by", "before", "contents", "bytes", "rows")
    return [dict(zip(names, row, strict=True)) for row in rows]


def oldest_stored(mailbox: Mailbox) -> float | None:
    """When the first message that is kept was stored (Unix time): what is younger than that needs no look."""
    found = mailbox.db.execute("SELECT stored_at FROM messages ORDER BY msg_no LIMIT 1").fetchone()
    return found[0] if found else None


def finished_bytes(mailbox: Mailbox) -> int:
    """About how much of the file is taken by what is over."""
    (pages,) = mailbox.db.execute("PRAGMA page_count").fetchone()
    (free,) = mailbox.db.execute("PRAGMA freelist_count").fetchone()
    (page_bytes,) = mailbox.db.execute("PRAGMA page_size").fetchone()
    return max(0, int((pages - free) * page_bytes) - mailbox.counters.unacked_bytes)


def _candidates(
    db: sqlite3.Connection,
    wanted: Wanted,
    begin: int,
    end: int,
    last: int,
    wall: float,
    ids_kept: int,
    limit: int = ROWS_A_STEP,
) -> list[tuple[int, str, str, bool, int]]:
    """(msg_no, sender, stage, whether its content is there, bytes of that), in order."""
    return db.execute(
        f"SELECT msg_no, sender, stage, digest IS NULL, {SIZE} + ifnull(length(reply_text), 0)"  # noqa: S608
        " FROM messages WHERE msg_no >= :begin AND msg_no < :end AND stage NOT IN ('stored', 'taken')"
        " AND (session IS NULL OR NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.id = messages.session))"
        " AND CASE WHEN digest IS NULL THEN ended_at < :before AND msg_no <= :upto"
        " ELSE ended_at < :ids_before AND msg_no <= :ids_upto END"
        " ORDER BY msg_no LIMIT :limit",
        {
            "begin": begin, "end": end, "before": wanted.before, "upto": last - wanted.keep,
            "ids_before": wall - IDS_KEPT_S, "ids_upto": last - ids_kept, "limit": limit,
        },
    ).fetchall()  # fmt: skip


def _empty(mailbox: Mailbox, number: int) -> None:
    mailbox.begin()
    text, headers = mailbox.db.execute(
        f"SELECT {TEXT}, headers FROM messages WHERE msg_no = ?",  # noqa: S608 - a constant
        (number,),
    ).fetchone()
    mailbox.db.execute(
        "UPDATE messages SET text = ?, headers = NULL, extra = NULL, reply_text = NULL, digest = ? WHERE msg_no = ?",
        (EMPTIED, digest_of(text, headers), number),
    )
    mailbox.db.execute("DELETE FROM texts WHERE msg_no = ?", (number,))
