"""Whether a mailbox adds up: every message that was ever stored is somewhere, every session that was ever opened too.

Counted again from the rows, and compared with what was counted as it happened. It reads every row: about two seconds a
million, in which nothing else is done.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from ..protocol.session import Role, Snapshot
from ..protocol.states import Cause
from . import standing
from .counters import COLUMNS, Count
from .database import found_first
from .frames import Frames
from .mailbox import Mailbox
from .outbox import Outbox
from .sessions import Sessions

STAGES = ("stored", "taken", "acked", "done", "rejected", "expired", "cancelled", "dead")
NOTHING: dict[str, Any] = {  # the account of a name that never had a mailbox
    "mailbox_id": None,
    "messages": dict.fromkeys(COLUMNS, 0),
    "sessions": {role.value: dict.fromkeys(("opened", *(c.value for c in Cause), "open"), 0) for role in Role},
    "outbox": 0,
    "frames": 0,
    "wrong": [],
}
SAID_MAX = 20  # of what does not add up; who has more has lost more than a list tells


def audit(mailbox: Mailbox, sessions: Sessions, outbox: Outbox, frames: Frames, *, is_whole: bool) -> dict[str, Any]:
    """The counts of messages and sessions, and in `wrong` a sentence for each that does not add up.

    `is_whole` has SQLite look at every index too, which takes seconds a gigabyte; else at every page.
    """
    wrong: list[str] = []
    roles: dict[str, dict[str, int]] = {}
    for part in (
        _integrity(mailbox, is_whole=is_whole), _messages(mailbox), _sessions(mailbox, sessions, roles),
        _queued(mailbox, outbox, frames),
    ):  # fmt: skip
        try:
            wrong += part
        except sqlite3.DatabaseError as error:  # a page that cannot be read is one more thing to tell
            wrong.append(f"the file: {error}")
    return {
        "mailbox_id": mailbox.mailbox_id,
        "messages": mailbox.counters.sums(),
        "sessions": roles,
        "outbox": len(outbox),
        "frames": len(frames),
        "wrong": wrong[:SAID_MAX],
    }


def _integrity(mailbox: Mailbox, *, is_whole: bool) -> Iterator[str]:
    pragma = "PRAGMA integrity_check" if is_whole else "PRAGMA quick_check"
    for (found,) in mailbox.db.execute(pragma):
        if found != "ok":
            yield f"the file: {found_first(found)}"


def _messages(mailbox: Mailbox) -> Iterator[str]:
    """total = the sum of the stages, for each sender; rows and purged ones say so too, and so does the last number."""
    found = standing.count(mailbox.db)
    nobody = Count()
    for sender in sorted(found.counts.keys() | mailbox.counters.by_sender.keys()):
        counted, there = mailbox.counters.by_sender.get(sender, nobody), found.counts.get(sender, nobody)
        stages = sum(getattr(counted, stage) for stage in STAGES)
        if counted.total != stages:
            yield f"messages from {sender}: {counted.total} were stored, and the stages make {stages}"
        for stage in STAGES:
            mine, theirs = getattr(counted, stage), getattr(there, stage)
            if mine != theirs:
                yield f"messages from {sender}: {mine} are counted as {stage}, and {theirs} are there"
        if counted.bytes != there.bytes:
            yield f"messages from {sender}: {counted.bytes} bytes are counted as waiting, and {there.bytes} are there"
    highest = standing.highest_no(mailbox.db)
    if highest != (total := sum(count.total for count in found.counts.values())):
        yield f"messages: the last one has the number {highest}, and {total} are accounted for"
    for what, known, there_are in (
        ("waiting", set(mailbox.ready), set(found.ready)),
        ("leased", set(mailbox.leased), set(found.taken)),
    ):
        for number in sorted(known ^ there_are):
            yield f"message number {number} is {'known as' if number in known else 'not known as'} {what}"
    for (number,) in mailbox.db.execute(
        "SELECT msg_no FROM messages WHERE length(text) = 0 EXCEPT SELECT msg_no FROM texts"
    ):
        yield f"message number {number} has lost its text"
    for (number,) in mailbox.db.execute(
        "SELECT msg_no FROM texts EXCEPT SELECT msg_no FROM messages WHERE length(text) = 0"
    ):
        yield f"a text lies there for message number {number}, which has none"


def _sessions(mailbox: Mailbox, sessions: Sessions, roles: dict[str, dict[str, int]]) -> Iterator[str]:
    """opened = the sum of the ends + the open ones, by role; of an open one, what is unread lies in the mailbox. The
    counts go into `roles`."""
    roles |= sessions.counters()
    ended = Counter[tuple[str, str]]()
    for role, cause, count in mailbox.db.execute(
        "SELECT role, cause, count(*) FROM sessions WHERE role IS NOT NULL AND cause IS NOT NULL GROUP BY 1, 2"
    ):
        ended[role, cause] += count
    for role, counts in roles.items():
        others = sum(counts.values()) - counts["opened"]
        if counts["opened"] != others:
            yield f"sessions as {role}: {counts['opened']} were opened, and the ends and the open ones make {others}"
        for cause in Cause:
            if ended[role, cause.value] > counts[cause.value]:
                kept = ended[role, cause.value]
                yield f"sessions as {role}: {counts[cause.value]} are counted as {cause.value}, and {kept} are there"
    waiting = dict(
        mailbox.db.execute(
            "SELECT session, count(*) FROM messages WHERE session IS NOT NULL AND kind IN ('data', 'finished')"
            " AND stage IN ('stored', 'taken') GROUP BY session"
        )
    )
    for session, machine in mailbox.db.execute("SELECT id, machine FROM sessions WHERE state <> 'CLOSED'"):
        try:
            queue = _decode(machine).recv
        except msgspec.MsgspecError as error:
            yield f"session {session} cannot be read: {error}"
            continue
        unread, there = max(0, queue.rcv_nxt - queue.acked), waiting.get(session, 0)
        if unread != there:
            yield f"session {session}: {unread} texts are unread, and {there} are there"


def _queued(mailbox: Mailbox, outbox: Outbox, frames: Frames) -> Iterator[str]:
    """What is to be carried to others is what the courier knows of."""
    (there,) = mailbox.db.execute("SELECT count(*) FROM outbox").fetchone()
    if there != len(outbox):
        yield f"the outbox: {len(outbox)} messages are known of, and {there} are there"
    (there,) = mailbox.db.execute("SELECT count(*) FROM frames WHERE stage = 'queued'").fetchone()
    if there != len(frames):
        yield f"the outbox: {len(frames)} frames are known of, and {there} are there"


_decode = msgspec.json.Decoder(Snapshot).decode
