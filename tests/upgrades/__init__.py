"""Mailboxes as every step of the schema left them, kept as text, and what today's code must find in them.

`python -m tests.upgrades` tells the story below to today's code and writes `step-N.sql` and `step-N.json` for the
newest step N. Do that once for each new step, and commit both; those of earlier steps are never written again.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from backchannel.mailbox.database import APPLICATION_ID, VERSION

from ..inside import Bench

HERE = Path(__file__).parent
STEPS = sorted(int(path.stem.removeprefix("step-")) for path in HERE.glob("step-*.sql"))
LATER_S = 100.0  # after the story's end the next daemon comes
S = "s-" + "0" * 31
RECEIPT = ("id", "from", "stage", "reason", "durability", "msg_no", "delivery", "evidence", "reply_id", "reply_text")
MESSAGE = ("id", "from", "text", "priority", "headers", "reply_to", "trace_id", "hops", "kind", "session")
RECORD = ("id", "peer", "role", "state", "cause", "reason", "task", "status", "result", "unread", "unacked", "messages")
IDS = [
    "urgent",
    "low",
    "unicode",
    "taken",
    "acked",
    "rejected",
    "cancelled",
    "expired",
    "question",
    "of-a-user",
    "empty",
]


def tell(bench: Bench) -> None:
    """Something of everything: each stage, an outbox, answers, and sessions in several states."""
    agent, analyst = bench.control(), {"from": "analyst", "auth": bench.keys["analyst"]}
    bench.push("low", "can wait", priority="low", **analyst)
    bench.push("urgent", "now!", priority="urgent", headers={"colour": "red"}, **analyst)
    bench.push("unicode", "\u6f22\u5b57 \u00fc\u0000 \U0001f600", durability="power", trace_id="t-1", hops=2)
    bench.push("empty", "")
    for message_id in ("acked", "rejected", "question", "of-a-user", "taken"):
        sender = {} if message_id == "of-a-user" else analyst
        bench.push(message_id, f"text of {message_id}", session="tag", **sender)
    bench.push("cancelled", "no longer")
    bench.call(bench.connect(), "cancel", id="cancelled")
    bench.push("expired", "too late", ttl=1)
    bench.call(agent, "take", max=5, session="tag", detached=True)
    bench.call(agent, "ack", id="acked", delivery=1, evidence="turn")
    bench.call(agent, "reject", id="rejected", delivery=1, reason="busy")
    bench.call(agent, "commit", replies=[{"id": "question", "text": "8080", "reply_id": "answer"}])
    bench.call(agent, "commit", replies=[{"id": "of-a-user", "text": "yes", "reply_id": "answer-2"}])
    bench.call(agent, "commit", sends=[{"to": "writer", "text": "on its way", "id": "outgoing"}])
    bench.advance(2)
    header: dict[str, Any] = {"to": "executor", "from_mailbox": "M", "epoch": 1, **analyst}
    mine = {"to_mailbox": bench.mailbox.mailbox_id, "to_epoch": 1}
    for number, task in ((1, "review PR 42"), (2, "not yet answered"), (3, "given up")):
        frame = header | {"session": f"{S}{number}", "number": [1, number], "text": task}
        bench.call(bench.connect(), "frame", kind="SYN", **frame)
    bench.call(agent, "accept", session=S + "1")
    bench.call(agent, "say", session=S + "1", text="begun", id="say-1")
    data = header | mine | {"session": S + "1", "seq": 1, "text": "focus on auth"}
    bench.call(bench.connect(), "frame", kind="DATA", **data)
    bench.call(agent, "abort", session=S + "3", reason="no time")


def found(bench: Bench) -> dict[str, Any]:
    """All that is to survive, as an agent and its senders see it."""
    agent = bench.control()
    receipts = [bench.call(bench.connect(), "receipt", id=message_id) for message_id in IDS]
    waiting = bench.call(agent, "peek", max=1000, text=True)["messages"]
    records = bench.call(agent, "sessions")["sessions"]
    status = bench.call(agent, "status")
    said = bench.call(agent, "trace", session=S + "1", text=True)["events"] if records else []
    return {
        "receipts": [_only(RECEIPT, receipt) for receipt in receipts],
        "waiting": [_only(MESSAGE, entry["message"]) for entry in waiting],
        "sessions": sorted((_only(RECORD, record) for record in records), key=lambda record: str(record["id"])),
        "said": [_only(("direction", "kind", "number", "text"), event) for event in said],
        "mailbox_id": status["mailbox_id"],
        "outbox": status["outbox"],
        "counters": status["counters"],
    }


def write() -> None:
    """The fixture of the newest step."""
    path = HERE / "new.db"
    try:
        bench = Bench(path)
        tell(bench)
        bench.close()
        (HERE / f"step-{VERSION}.sql").write_text(_dump(path))
        bench.now += LATER_S
        bench.open()
        text = json.dumps(found(bench), indent=1, sort_keys=True)
        (HERE / f"step-{VERSION}.json").write_text(text + "\n")
        bench.close()
    finally:
        for leftover in HERE.glob("new.db*"):
            leftover.unlink()


def rebuild(step: int, path: Path) -> None:
    """The mailbox that the daemon of that time left behind."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript((HERE / f"step-{step}.sql").read_text())
        db.execute("PRAGMA journal_mode=WAL")


def expected(step: int) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((HERE / f"step-{step}.json").read_text())
    return kept


def _dump(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        lines = [f"PRAGMA application_id={APPLICATION_ID};", f"PRAGMA user_version={VERSION};", *db.iterdump()]
    return "\n".join(lines) + "\n"


def _only(keys: tuple[str, ...], found_: dict[str, Any]) -> dict[str, Any]:
    return {key: found_[key] for key in keys if key in found_}
