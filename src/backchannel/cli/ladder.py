"""`trace`: the ladder of a session, as the textbooks of TCP draw it, or the stages of a message.

The left rail is the agent that looks, the right one its peer. Every frame is an arrow at the time it was sent or came;
an ACK is drawn when the agent at the other end had processed what it acknowledges. Texts only with `--text`.
"""

import argparse
import sys
import time
from typing import Any, NamedTuple

from ..client import calls, sessioncalls, wire
from ..client.drive import run
from ..errors import NotPermitted
from ..protocol.codec import encode
from .common import first_line
from .terminal import printable
from .watch import time_of

ARROW_CHARS = 34
TEXT_CHARS_MAX = 60  # of a text beside its arrow
TASK_CHARS_MAX = 70


class Rung(NamedTuple):
    """One arrow of the ladder. `note` stands beside it."""

    at: float
    is_out: bool
    label: str
    note: str = ""
    text: str | None = None


def show(caller: wire.Caller, options: argparse.Namespace) -> int:
    """Prints the ladder of a session or a message."""
    if sessioncalls.is_session(options.id):
        return _show_session(caller, options)
    return _show_message(caller, options)


# --- a session --------------------------------------------------------------------------------------------------------


def _show_session(caller: wire.Caller, options: argparse.Namespace) -> int:
    record, events = run(sessioncalls.history(caller, options.id, text=options.text))
    events = [event for event in events if _is_wanted(event, options)]
    if options.json:
        for event in events:
            print(encode(event))
        return 0
    why = f", {record['cause']}: {record['reason']}" if record["reason"] else ""
    print(f"{record['id']}  {first_line(record['task'], TASK_CHARS_MAX)}")
    print(f"{record['state']} ({record['task_state']}{why})\n")
    _draw(caller.me(), record["peer"], rungs(events))
    return 0


def _is_wanted(event: dict[str, Any], options: argparse.Namespace) -> bool:
    since, until = time_of(options.since), time_of(options.until)
    return (
        options.kind in (None, event["kind"])
        and (since is None or event["at"] >= since)
        and (until is None or event["at"] < until)
    )


def rungs(events: list[dict[str, Any]]) -> list[Rung]:
    """The frames, and an ACK for what was processed; of ACKs that nothing stands between the last is enough."""
    rungs: list[tuple[float, int, Rung]] = []
    for order, event in enumerate(event for event in events if event["kind"] != "ACK"):
        is_out = event["direction"] == "out"
        rungs.append((event["at"], order, Rung(event["at"], is_out, _label(event), _note(event), event.get("text"))))
        if event["acked_at"] is not None:
            acked = Rung(event["acked_at"], not is_out, f"ACK {event['number']}")
            rungs.append((max(event["acked_at"], event["at"]), len(events) + order, acked))
    drawn: list[Rung] = []
    for _, _, rung in sorted(rungs, key=lambda found: found[:2]):
        before = drawn[-1] if drawn else rung
        if before is not rung and before.is_out == rung.is_out and _is_ack(before) and _is_ack(rung):
            drawn.pop()
        drawn.append(rung)
    return drawn


def _is_ack(rung: Rung) -> bool:
    return rung.label.startswith("ACK ")


def _label(event: dict[str, Any]) -> str:
    number = f" {event['number']}" if event["kind"] in ("DATA", "FIN") else ""
    size = f"  {event['bytes']} B" if event["bytes"] else ""
    return f"{event['kind']}{number}{size}"


def _note(event: dict[str, Any]) -> str:
    if event["direction"] == "out" and event["stored_at"] is None:
        return "dropped" if event["stage"] == "dropped" else "not stored yet"
    if event["kind"] in ("DATA", "FIN") and event["acked_at"] is None:
        return "not processed yet"
    return ""


# --- a message --------------------------------------------------------------------------------------------------------


def _show_message(caller: wire.Caller, options: argparse.Namespace) -> int:
    receipt = run(calls.receipt(caller, options.id))
    entry = _in_log(caller, receipt, with_text=options.text)
    if options.json:
        print(encode({**receipt, **{key: entry.get(key) for key in ("sent_at", "stored_at", "ended_at")}}))
        return 0
    print(f"{receipt['id']}  {receipt['stage']}\n")
    _draw(receipt["from"], receipt["to"], _stages(receipt, entry))
    return 0


def _in_log(caller: wire.Caller, receipt: dict[str, Any], *, with_text: bool) -> dict[str, Any]:
    """When what happened, from the mailbox it lies in; nothing of one that is on its way, or with another user."""
    if receipt["msg_no"] is None:
        return {}
    params = {"after": receipt["msg_no"] - 1, "max": 1, "text": with_text}
    try:
        (found,) = run(calls.control(caller, receipt["to"], "log", **params))["messages"]
    except NotPermitted:
        return {}
    return {**found["message"], **{key: found[key] for key in ("stored_at", "ended_at")}}


def _stages(receipt: dict[str, Any], entry: dict[str, Any]) -> list[Rung]:
    stage, reason = receipt["stage"], receipt["reason"]
    if not entry:
        return [Rung(0.0, True, "message", f"{stage}{': ' + reason if reason else ''}")]
    kept = f"stored ({receipt['durability']})"
    again = f", handed out {receipt['delivery']} times" if receipt["delivery"] > 1 else ""
    rungs = [Rung(entry["sent_at"], True, entry["kind"], kept, entry["text"])]
    at = entry["ended_at"] or entry["stored_at"]
    if stage == "taken":
        rungs[0] = rungs[0]._replace(note=f"{kept}, taken{again}, not acknowledged yet")
    elif stage in ("acked", "done"):
        rungs.append(Rung(at, False, "ack", f"{receipt['evidence'] or ''}{again}".removeprefix(", ")))
        if receipt["reply_id"]:
            rungs.append(Rung(at, False, "reply", receipt["reply_id"]))
    elif stage == "rejected":
        rungs.append(Rung(at, False, "reject", reason or ""))
    elif stage != "stored":  # expired, cancelled, dead
        rungs.append(Rung(at, stage != "dead", stage, f"{reason or ''}{again}"))
    return rungs


# --- drawing ----------------------------------------------------------------------------------------------------------


def _draw(left: str, right: str, rungs: list[Rung]) -> None:
    print(f"{'':14}{left:<{ARROW_CHARS + 2 - len(right) // 2}}{right}")
    for rung in rungs:
        whole = time.strftime("%H:%M:%S", time.localtime(rung.at)) if rung.at else ""
        when = f"{whole}.{int(rung.at % 1 * 1000):03}" if whole else ""
        dashes = "-" * max(1, ARROW_CHARS - len(rung.label) - 7)
        arrow = f"---- {rung.label} {dashes}>" if rung.is_out else f"<{dashes} {rung.label} ----"
        note = f"  {printable(rung.note, sys.stdout)}" if rung.note else ""
        print(f"{when:<14}|{arrow:<{ARROW_CHARS}}|{note}".rstrip())
        if rung.text:
            for line in printable(rung.text, sys.stdout).splitlines():
                print(f"{'':14}|  {line}")
