"""Where all messages of a mailbox stand: what memory mirrors, and how it comes back.

It follows from the rows. An orderly close leaves it in the file, so that the next start need not look at a million of
them; any other start does, in about two seconds a million.
"""

import sqlite3
from array import array
from typing import NamedTuple

import msgspec

from .counters import COLUMNS, Count
from .ready import LANES, Lane, Ready

INLINE_MAX = 8192  # bytes of a text that stands in its message's row; a longer one has a row of its own in `texts`

# The text of a message, and what it counts for in quotas, wherever the text stands.
TEXT = "iif(length(text), text, (SELECT t.text FROM texts t WHERE t.msg_no = messages.msg_no))"
SIZE = (
    "iif(length(text), length(text),"
    " ifnull((SELECT length(t.text) FROM texts t WHERE t.msg_no = messages.msg_no), 0))"  # a lost one is the audit's
    " + ifnull(length(headers), 0) + ifnull(length(extra), 0)"
)
PURGEABLE = ("acked", "done", "rejected", "expired", "cancelled", "dead")

_LANE_KEYS = ("urgent", "normal", "low")


class Standing(NamedTuple):
    """`counts` by sender, purged messages included; the numbers of what waits, and of what is handed out."""

    counts: dict[str, Count]
    ready: Ready
    taken: list[int]


def count(db: sqlite3.Connection) -> Standing:
    """From the rows, and from what is known of purged ones."""
    counts: dict[str, Count] = {}
    for sender, *numbers in db.execute("SELECT sender, acked, done, rejected, expired, cancelled, dead FROM purged"):
        counts[sender] = Count(sum(numbers), 0, 0, *numbers, 0)
    ready, taken = Ready(), []
    found: dict[tuple[str, str], list[int]] = {}  # (sender, stage): [how many, of how many bytes]
    rows = db.execute(
        "SELECT msg_no, sender, stage, priority, session,"  # noqa: S608 - a constant
        f" CASE WHEN stage IN ('stored', 'taken') THEN {SIZE} ELSE 0 END FROM messages ORDER BY msg_no"
    )
    for number, sender, stage, priority, session, size in rows:
        sums = found.get((sender, stage))
        if sums is None:
            sums = found[sender, stage] = [0, 0]
        sums[0] += 1
        sums[1] += size
        if stage == "stored":
            ready.add(number, priority, session)
        elif stage == "taken":
            taken.append(number)
    for (sender, stage), (n, size) in found.items():
        mine = counts.setdefault(sender, Count())
        setattr(mine, stage, getattr(mine, stage) + n)
        mine.total += n
        mine.bytes += size
    return Standing(counts, ready, taken)


def highest_no(db: sqlite3.Connection) -> int:
    """The highest msg_no ever given. No number is left out, so as many messages were ever stored: the sum of all
    `counts` must be the same."""
    last, purged = db.execute(
        "SELECT (SELECT max(msg_no) FROM messages), (SELECT value FROM meta WHERE key = 'highest_purged')"
    ).fetchone()
    return max(last or 0, purged or 0)


def note_purged(db: sqlite3.Connection, sender: str, stage: str, n: int, highest: int) -> None:
    """`n` rows of `sender` that ended as `stage`, none above the number `highest`, are deleted in this transaction."""
    assert stage in PURGEABLE, f"what is {stage} is not over"
    db.execute("INSERT OR IGNORE INTO purged (sender) VALUES (?)", (sender,))
    db.execute(f"UPDATE purged SET {stage} = {stage} + ? WHERE sender = ?", (n, sender))  # noqa: S608 - one of six words
    db.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('highest_purged', 0)")
    db.execute("UPDATE meta SET value = max(value, ?) WHERE key = 'highest_purged'", (highest,))


def save(db: sqlite3.Connection, standing: Standing) -> None:
    """Leaves it for the next start."""
    counts = {sender: dict(zip(COLUMNS, mine.values(), strict=True)) for sender, mine in standing.counts.items()}
    left: dict[str, bytes] = {
        "counters": msgspec.json.encode(counts),
        "taken": msgspec.json.encode(standing.taken),
        "sessions": msgspec.json.encode(standing.ready.of_session),
    }
    for key, lane in zip(_LANE_KEYS, standing.ready.lanes, strict=True):
        left[key] = lane.to_bytes()
    db.executemany("REPLACE INTO at_close (key, value) VALUES (?, ?)", left.items())


def load(db: sqlite3.Connection) -> Standing | None:
    """What the last close left; it must have been an orderly one. None if that was before step 3."""
    left = dict(db.execute("SELECT key, value FROM at_close"))
    if not left:
        return None
    counts = msgspec.json.decode(left["counters"], type=dict[str, dict[str, int]])
    ready = Ready()
    ready.lanes = tuple(Lane(array("q", left[key])) for key in _LANE_KEYS)
    ready.of_session = msgspec.json.decode(left["sessions"], type=dict[str, list[tuple[int, int]]])
    return Standing(
        {sender: Count(*mine.values()) for sender, mine in counts.items()},
        ready,
        msgspec.json.decode(left["taken"], type=list[int]),
    )


assert len(_LANE_KEYS) == LANES
