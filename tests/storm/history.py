"""What agents were told, and whether all of it can be true together. Pure: events in, broken promises out.

An agent writes an event down before its next step, so a SIGKILL may keep an event from happening, but never takes one
back. Times are CLOCK_MONOTONIC, the same for all processes of a machine: what was asked after something else had been
answered must know of it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from .journal import kinds_of

ENDS = ("acked", "done", "rejected", "expired", "cancelled", "dead")
STAGES = ("stored", "taken", *ENDS)


class Sent(NamedTuple):
    """`sender` is about to send its `number`th message to `to`; written once more if it must begin again."""

    sender: str
    to: str
    number: int
    key: str
    text: str
    at: float


class Told(NamedTuple):
    """A receipt: the answer to a push (`by_push`), or to a later question."""

    sender: str
    to: str
    key: str
    by_push: bool
    stage: str
    duplicate: bool
    mailbox_id: str
    msg_no: int
    asked: float
    at: float


class Handed(NamedTuple):
    """`agent` has the text of a message in its hands."""

    agent: str
    sender: str
    key: str
    text: str
    delivery: int
    msg_no: int
    at: float


class Acked(NamedTuple):
    """The daemon confirmed `agent`'s ack."""

    agent: str
    sender: str
    key: str
    delivery: int
    at: float


class Row(NamedTuple):
    """What the mailbox of `agent` holds of one message when all is over."""

    agent: str
    sender: str
    key: str
    msg_no: int
    stage: str
    delivery: int


Event = Sent | Told | Handed | Acked
KINDS = kinds_of((Sent, Told, Handed, Acked))
Name = tuple[str, str, str]  # sender, to, key: one message


class History(NamedTuple):
    """Each agent's events in the order it wrote them; all rows; each daemon's own count of stages, and `total`."""

    journals: dict[str, list[Event]]
    rows: list[Row]
    counters: dict[str, dict[str, int]]

    def all(self, kind: type[Any]) -> Iterator[Any]:
        for journal in self.journals.values():
            for event in journal:
                if type(event) is kind:
                    yield event


def check(history: History) -> list[str]:
    """Every promise that was broken, one sentence each."""
    return [
        sentence
        for promise in (nothing_is_lost, stored_once, handed_out_as_said, stages_in_order, first_in_first_out, counted)
        for sentence in promise(history)
    ]


def nothing_is_lost(history: History) -> Iterator[str]:
    """What was receipted is in the mailbox, was in the agent's hands with the text that was sent, and ended acked."""
    texts = {(e.sender, e.to, e.key): e.text for e in history.all(Sent)}
    handed = {_handed_name(e) for e in history.all(Handed)}
    rows = {(row.sender, row.agent, row.key): row for row in history.rows}
    for name in sorted({_told_name(e) for e in history.all(Told)}):
        if name not in rows:
            yield f"{name} has a receipt, but is not in the mailbox"
        elif rows[name].stage != "acked":
            yield f"{name} has a receipt and ended {rows[name].stage}"
        if name not in handed:
            yield f"{name} has a receipt and was never handed over"
    for event in history.all(Handed):
        if texts.get(_handed_name(event)) != event.text:
            yield f"{_handed_name(event)} was handed over with a text that nobody sent: {event.text[:40]!r}"


def stored_once(history: History) -> Iterator[str]:
    """One key, one row, one number, whatever was repeated; and one number, one key."""
    places: dict[Name, set[tuple[str, int]]] = defaultdict(set)
    news: Counter[Name] = Counter()
    for event in history.all(Told):
        places[_told_name(event)].add((event.mailbox_id, event.msg_no))
        news[_told_name(event)] += event.by_push and not event.duplicate
    rows: dict[Name, list[int]] = defaultdict(list)
    numbers: dict[tuple[str, int], set[str]] = defaultdict(set)
    for row in history.rows:
        rows[row.sender, row.agent, row.key].append(row.msg_no)
        numbers[row.agent, row.msg_no].add(row.key)
    for event in history.all(Handed):
        rows[_handed_name(event)] += [event.msg_no] if event.msg_no not in rows[_handed_name(event)] else []
    for name, found in sorted(rows.items()):
        if len(found) != 1:
            yield f"{name} is stored as {found}"
    for name, found_places in sorted(places.items()):
        if len(found_places) != 1:
            yield f"{name} was receipted as {sorted(found_places)}"
        elif rows[name] and {msg_no for _, msg_no in found_places} != set(rows[name]):
            yield f"{name} was receipted as {sorted(found_places)} and stored as {rows[name]}"
        if news[name] > 1:
            yield f"{name} was new {news[name]} times"
    for (agent, msg_no), keys in sorted(numbers.items()):
        if len(keys) != 1:
            yield f"number {msg_no} of {agent} was given to {sorted(keys)}"


def handed_out_as_said(history: History) -> Iterator[str]:
    """`delivery` begins at 1 or more, grows with every handing-over, and none follows a confirmed ack."""
    rows = {(row.sender, row.agent, row.key): row.delivery for row in history.rows}
    for journal in history.journals.values():
        last: dict[Name, int] = {}
        acked: set[Name] = set()
        for event in journal:
            if isinstance(event, Handed):
                name = _handed_name(event)
                if event.delivery <= last.get(name, 0):
                    yield f"{name} was handed over as delivery {event.delivery} after {last.get(name, 0)}"
                if name in acked:
                    yield f"{name} was handed over again after its ack"
                if event.delivery > rows.get(name, event.delivery):
                    yield f"{name} was handed over as delivery {event.delivery}; its mailbox knows of {rows[name]}"
                last[name] = event.delivery
            elif isinstance(event, Acked):
                name = _handed_name(event)
                if last.get(name) != event.delivery:
                    yield f"{name}: delivery {event.delivery} was acked, {last.get(name)} was in hand"
                acked.add(name)


def stages_in_order(history: History) -> Iterator[str]:
    """A push that stored something says `stored`; ends are final, for all who asked after somebody knew."""
    first_handed: dict[Name, float] = {}
    for event in history.all(Handed):
        first_handed.setdefault(_handed_name(event), event.at)
    ended = {_handed_name(e): e.at for e in history.all(Acked)}
    first_sent: dict[Name, float] = {}
    for event in history.all(Sent):
        first_sent.setdefault((event.sender, event.to, event.key), event.at)
    for journal in history.journals.values():
        last: dict[Name, str] = {}
        for event in journal:
            if not isinstance(event, Told):
                continue
            name, stage = _told_name(event), event.stage
            if stage not in STAGES:
                yield f"{name} was told to be {stage!r}, which is no stage"
            if event.by_push and not event.duplicate and (stage != "stored" or name in last):
                yield f"{name} was {last.get(name, 'unknown')}, then a push called it new and {stage}"
            if last.get(name) in ENDS and stage != last[name]:
                yield f"{name} was {last[name]}, then {stage}"
            if name in ended and event.asked > ended[name] and stage != "acked":
                yield f"{name} was told to be {stage} after its ack"
            if stage == "acked" and event.at < first_handed.get(name, float("inf")):
                yield f"{name} was told to be acked before anybody had it"
            last[name] = stage
    for name, at in first_handed.items():
        if at < first_sent.get(name, float("inf")):
            yield f"{name} was handed over before it was sent"


def first_in_first_out(history: History) -> Iterator[str]:
    """Per sender and mailbox: numbered as sent, and handed over for the first time in that order."""
    numbers = {(e.sender, e.to, e.key): e.number for e in history.all(Sent)}
    stored: dict[tuple[str, str], int] = {}
    for row in sorted(history.rows, key=lambda row: row.msg_no):
        number = numbers.get((row.sender, row.agent, row.key), -1)
        if number <= stored.get((row.sender, row.agent), -1):
            yield f"{row.sender}'s message {number} is stored behind {stored[row.sender, row.agent]} in {row.agent}"
        stored[row.sender, row.agent] = number
    for agent, journal in history.journals.items():
        last: dict[str, int] = {}
        for event in journal:
            if isinstance(event, Handed) and event.delivery == 1:
                number = numbers.get(_handed_name(event), -1)
                if number <= last.get(event.sender, -1):
                    yield f"{event.sender}'s message {number} came to {agent} after {last[event.sender]}"
                last[event.sender] = number


def counted(history: History) -> Iterator[str]:
    """The daemon's own counters agree with its rows, and `total` with their sum."""
    for agent, counters in history.counters.items():
        if counters["total"] != sum(counters[stage] for stage in STAGES):
            yield f"{agent} counts {counters}: total is not the sum"
        rows = Counter(row.stage for row in history.rows if row.agent == agent)
        found = {stage: rows[stage] for stage in STAGES}
        if found != {stage: counters[stage] for stage in STAGES}:
            yield f"{agent} counts {counters} and holds {found}"


def duplicates(history: History) -> int:
    """How often a repeated push was recognised."""
    return sum(event.by_push and event.duplicate for event in history.all(Told))


def redeliveries(history: History) -> int:
    """How often a message was handed over as delivery 2 or more."""
    return sum(event.delivery > 1 for event in history.all(Handed))


def _told_name(event: Told) -> Name:
    return event.sender, event.to, event.key


def _handed_name(event: Handed | Acked) -> Name:
    return event.sender, event.agent, event.key
