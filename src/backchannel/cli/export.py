"""`export`: a session as a document: Markdown for people, Mermaid for a picture, JSON a line for programs.

It is one end's account, as `trace` shows it; the other end can export its own. Texts are another agent's words: they
are quoted so that none of them can pass for a part of the document.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from ..client import sessioncalls, wire
from ..client.drive import run
from ..protocol.codec import encode
from .ladder import Rung, rungs
from .terminal import printable

SHOWN_CHARS_MAX = 80  # of a text beside its arrow
_ABOUT = (
    "peer", "role", "state", "task_state", "cause", "reason", "status", "result", "peer_status", "peer_result",
    "messages", "bytes", "trace_id",
)  # fmt: skip


def export(caller: wire.Caller, options: argparse.Namespace) -> int:
    """Prints the session."""
    record, events = run(sessioncalls.history(caller, options.id, text=True))
    lines = {"md": _markdown, "jsonl": _json_lines, "mermaid": _mermaid}[options.format]
    for line in lines(caller.me(), record, events):
        print(line if options.format == "jsonl" else printable(line, sys.stdout))
    return 0


def _json_lines(me: str, record: dict[str, Any], events: list[dict[str, Any]]) -> Iterator[str]:
    """The session's record first, then its frames in order."""
    yield encode({"agent": me, "session": record})
    for event in events:
        yield encode(event)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def _markdown(me: str, record: dict[str, Any], events: list[dict[str, Any]]) -> Iterator[str]:
    yield f"# Session {record['id']}"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| agent | {me} |"
    for key in _ABOUT:
        if record[key] not in (None, ""):
            yield f"| {key} | {_cell(record[key])} |"
    for key in ("opened_at", "ended_at"):
        if record[key] is not None:
            yield f"| {key} | {_time(record[key])} |"
    for event in events:
        if event["kind"] == "ACK":
            continue
        who, whom = (me, record["peer"]) if event["direction"] == "out" else (record["peer"], me)
        number = f" {event['number']}" if event["kind"] in ("DATA", "FIN") else ""
        yield ""
        yield f"## {event['kind']}{number}: {who} to {whom}"
        yield ""
        yield f"{_time(event['at'])}; {_fate(event)}"
        if event["text"]:
            fence = _fence(event["text"])
            yield ""
            yield f"{fence}text"
            yield event["text"]
            yield fence


def _fate(event: dict[str, Any]) -> str:
    if event["kind"] not in ("DATA", "FIN"):
        return "stored" if event["stored_at"] is not None else event["stage"]
    if event["acked_at"] is not None:
        return f"processed {_time(event['acked_at'])}"
    return "stored, not processed" if event["stored_at"] is not None else event["stage"]


def _cell(value: object) -> str:
    """One cell, and in it no code, link, picture or HTML of the agent's own."""
    text = re.sub(r"[\\|`*\[\]<>&~]", r"\\\g<0>", str(value))
    return re.sub(r"\r\n|[\r\n]", "<br>", text)


def _fence(text: str) -> str:
    """Longer than any in the text, so that the text cannot end it."""
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)


def _time(unix_time: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_time))


# --- Mermaid ----------------------------------------------------------------------------------------------------------


def _mermaid(me: str, record: dict[str, Any], events: list[dict[str, Any]]) -> Iterator[str]:
    yield "sequenceDiagram"
    yield f"    participant a as {me}"
    yield f"    participant b as {record['peer']}"
    for rung in rungs(events):
        lost = rung.note in ("dropped", "not stored yet")
        arrow = "-x" if lost else "--)" if rung.label.startswith("ACK ") else "->>"
        one, other = ("a", "b") if rung.is_out else ("b", "a")
        yield f"    {one}{arrow}{other}: {_escaped(_said(rung))}"
    yield f"    Note over a,b: {_escaped(_end(record))}"


def _said(rung: Rung) -> str:
    if not rung.text:
        return rung.label
    line, _, more = printable(rung.text, sys.stdout).partition("\n")
    cut = line[: SHOWN_CHARS_MAX - 3] + "..." if more or len(line) > SHOWN_CHARS_MAX else line
    return f"{rung.label.partition('  ')[0]}: {cut}"


def _end(record: dict[str, Any]) -> str:
    why = f" ({record['cause']}{': ' + record['reason'] if record['reason'] else ''})" if record["cause"] else ""
    return f"{record['state']}{why}"


def _escaped(text: str) -> str:
    """Mermaid reads `;` as the end of a line and `#` as an escape."""
    return "".join(f"#{ord(sign)};" if sign in _SPECIAL or not sign.isprintable() else sign for sign in text)


_SPECIAL = frozenset('#;<>&"%{}\\')
