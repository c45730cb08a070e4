"""What the daemon had promised when the power went, and whether its mailbox still knows.

`power`: whoever has such a receipt finds the message. `process`: what is lost was committed after the begin of the
last flush that ended; whatever came before the cut by more than a flush is there. Never: a hole, a text that nobody
sent, a file that cannot be opened, counters that do not add up.
"""

import bisect
import json
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from backchannel.errors import BackchannelError
from backchannel.mailbox.mailbox import Mailbox

from ..inside import Kept, rows_of
from .disk import Disk
from .recording import FILES, Recording, answers

ENDS = {"acked": {"acked", "done"}, "rejected": {"rejected"}}
BOOT_S = 100.0


class Promise(NamedTuple):
    """What an answer said; `place` is where it left."""

    place: int
    what: str  # push, acked, rejected
    key: str
    is_power: bool
    at: float


@dataclass
class Outcome:
    """Of many cuts: how many disks were looked at, what was wrong, and what was lost as it may be."""

    states: int = 0
    broken: list[str] = field(default_factory=list)
    count: Counter[str] = field(default_factory=Counter)
    oldest_lost_s: float = 0.0

    def add(self, other: "Outcome") -> None:
        self.states += other.states
        self.broken += other.broken
        self.count += other.count
        self.oldest_lost_s = max(self.oldest_lost_s, other.oldest_lost_s)

    def figures(self) -> str:
        return (
            f"{self.states} disks after a cut: {self.count['power lost']} promises of `power` lost,"
            f" {self.count['flushed lost']} of what a flush covered, {self.count['corrupt']} times damage;"
            f" {self.count['process lost']} times a promise of `process` not yet flushed,"
            f" at most {self.oldest_lost_s * 1000:.1f} ms old"
        )


def promises(recording: Recording) -> list[Promise]:
    found = []
    for call in recording.calls:
        if call.name != "send":
            continue
        for answer in answers(call):
            what, _, key = answer["id"].partition(" ")
            if what in ("push", *ENDS):
                is_power = what == "push" and answer["result"]["durability"] == "power"
                found.append(Promise(call.begun, what, key, is_power, call.at))
    return found


def flushes(recording: Recording) -> list[tuple[int, int]]:
    """Every flush of the log that ended well: (ended, begun)."""
    log = recording.folder + "/mailbox.db-wal"
    return sorted((call.ended, call.begun) for call in recording.calls if call.name == "sync" and call.path == log)


def waits_for_flush(recording: Recording) -> list[float]:
    """How long each promise of `process` waited until a flush that covers it began, seconds, sorted."""
    log = recording.folder + "/mailbox.db-wal"
    begins = [(call.begun, call.at) for call in recording.calls if call.name == "sync" and call.path == log]
    return sorted(
        begins[next_one][1] - promise.at
        for promise in promises(recording)
        if not promise.is_power and (next_one := bisect.bisect(begins, (promise.place,))) < len(begins)
    )


def cut_everywhere(recording: Recording, seed: int, states: int, folder: Path) -> Outcome:
    """Cuts the power at every call of the recording, to `states` different disks in sum, chosen by `seed`."""
    dice = random.Random(seed)
    moments = sorted(
        [(call.begun, 0, call) for call in recording.calls] + [(call.ended, 1, call) for call in recording.calls],
        key=lambda moment: moment[:2],
    )
    given, flushed = promises(recording), flushes(recording)
    interesting = sum(call.name != "send" for _, _, call in moments) or 1
    outcome = Outcome()
    disk = Disk(recording)
    passed = 0
    for place, is_end, call in moments:
        passed += call.name != "send"
        if not disk.happen(call, ended=bool(is_end)):
            continue
        wanted = states * passed // interesting - outcome.states
        for image in disk.images(dice, wanted):
            outcome.states += 1
            look(image, folder, recording, given, flushed, place, call.at, outcome)
    return outcome


def look(
    image: dict[str, bytes],
    folder: Path,
    recording: Recording,
    given: list[Promise],
    flushed: list[tuple[int, int]],
    place: int,
    at: float,
    outcome: Outcome,
) -> None:
    """Opens one disk as the next daemon would, and compares."""
    path = folder / "mailbox.db"
    for name in FILES:
        file = folder / name
        if name in image:
            file.write_bytes(image[name])
        else:
            file.unlink(missing_ok=True)
    try:
        mailbox = Mailbox.open(
            str(path), now=BOOT_S, wall=at + 10, boot_id="after the cut", random=os.urandom, deliveries_max=1000
        )
    except BackchannelError as error:
        outcome.count["corrupt"] += 1
        outcome.broken.append(f"place {place}: {error}")
        return
    try:
        rows = rows_of(mailbox)
        for what in wrong(mailbox, rows, recording.texts):
            outcome.count["corrupt"] += 1
            outcome.broken.append(f"place {place}: {what}")
    except sqlite3.DatabaseError as error:
        outcome.count["corrupt"] += 1
        outcome.broken.append(f"place {place}: {error}")
        return
    finally:
        mailbox.db.close()
    stages = {row.envelope.id: row.stage for row in rows}
    last = bisect.bisect_left(flushed, (place,))
    sure = max((begun for _, begun in flushed[:last]), default=-1)
    for promise in given:
        if promise.place >= place:
            break
        stage = stages.get(promise.key)
        if stage is not None and (promise.what == "push" or stage in ENDS[promise.what]):
            continue
        if promise.is_power:
            outcome.count["power lost"] += 1
            outcome.broken.append(f"place {place}: {promise} is lost, and was promised to survive")
        elif promise.place < sure:
            outcome.count["flushed lost"] += 1
            outcome.broken.append(f"place {place}: {promise} is lost, though a flush began after it and ended")
        else:
            outcome.count["process lost"] += 1
            outcome.oldest_lost_s = max(outcome.oldest_lost_s, at - promise.at)


def wrong(mailbox: Mailbox, rows: list[Kept], texts: dict[str, str]) -> Iterator[str]:
    """What cannot be, whatever was lost."""
    if [row.msg_no for row in rows] != list(range(1, len(rows) + 1)):
        yield f"the numbers have a hole: {[row.msg_no for row in rows]}"
    for row in rows:
        key = row.envelope.id
        if json.loads(row.envelope.text) != texts.get(key):
            yield f"{key} has a text that nobody sent"
    counted: Counter[str] = Counter()
    for count in mailbox.counters.by_sender.values():
        for stage in ("stored", "taken", "acked", "done", "rejected", "expired", "cancelled", "dead"):
            counted[stage] += getattr(count, stage)
    if +counted != Counter(row.stage for row in rows):
        yield f"the counters say {dict(+counted)}, the rows {dict(Counter(row.stage for row in rows))}"
    found = mailbox.db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        yield f"integrity_check: {found}"
