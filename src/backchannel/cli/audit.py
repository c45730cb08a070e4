"""`audit`: whether everything that was ever stored or opened is accounted for, agent by agent and together.

A daemon that runs counts for itself; of one that does not, the mailbox is opened under its lock and counted. Nothing is
changed and nothing is started.
"""

import argparse
from collections import Counter
from typing import Any

from ..client import calls, wire
from ..client.drive import run
from ..errors import BackchannelError, PeerAbsent
from ..protocol.codec import encode
from ..protocol.codes import exit_code
from ..protocol.names import AgentName
from ..transport.lock import served_in
from .common import print_columns
from .main import report
from .safekeeping import run_stopped

AUDIT_S = 120.0  # a million messages take two seconds, a cold disk longer
ALL = "@all"
STAGES = ("total", "acked", "done", "rejected", "expired", "cancelled", "dead", "stored", "taken")
CAUSES = ("opened", "finished", "rejected", "aborted", "reset", "expired", "open")
SHOWN = ("ever", "acked", "done", "rejected", "expired", "cancelled", "dead", "waiting", "leased")


def audit(options: argparse.Namespace) -> int:
    """Prints the accounts. Exits 1 if one does not add up, else as the first agent that could not be asked."""
    caller = wire.Caller(None)
    names = [AgentName(name) for name in options.names] or caller.places.registered()
    accounts, missing, status = [], 0, 0
    for name in names:
        try:
            accounts.append(_account(caller, name))
        except BackchannelError as error:
            if not options.names and not caller.places.is_ours(name):
                continue  # another user's: its owner is told
            report(error, as_json=options.json)
            missing += 1
            status = status or exit_code(error)
    if not names and not options.json:
        print("no agents yet: backchannel up NAME")
        return 0
    accounts.append(_together(accounts))
    if options.json:
        for account in accounts:
            print(encode(account))
    else:
        _print(accounts, missing)
    return 1 if any(account["wrong"] for account in accounts) else status


def _account(caller: wire.Caller, name: str) -> dict[str, Any]:
    while True:
        if not caller.places.is_ours(name) or served_in(caller.places.state(name, "lock")) is not None:
            try:
                return run(calls.running(caller, name, "audit", AUDIT_S))
            except PeerAbsent:
                if not caller.places.is_ours(name) or served_in(caller.places.state(name, "lock")) is not None:
                    raise
        elif (found := run_stopped(caller, name, ["--audit"])) is not None:
            return found  # or a daemon was started just now


def _together(accounts: list[dict[str, Any]]) -> dict[str, Any]:
    messages = Counter(dict.fromkeys((*STAGES, "bytes"), 0))
    sessions = {role: Counter(dict.fromkeys(CAUSES, 0)) for role in ("acceptor", "initiator")}
    for account in accounts:
        messages.update(account["messages"])
        for role, counts in account["sessions"].items():
            sessions[role].update(counts)
    return {
        "agent": ALL,
        "messages": dict(messages),
        "sessions": {role: dict(counts) for role, counts in sessions.items()},
        "outbox": sum(account["outbox"] for account in accounts),
        "frames": sum(account["frames"] for account in accounts),
        "wrong": [f"{account['agent']}: {sentence}" for account in accounts for sentence in account["wrong"]],
    }


def _print(accounts: list[dict[str, Any]], missing: int) -> None:
    verdicts = ["DOES NOT ADD UP" if account["wrong"] else "adds up" for account in accounts]
    if missing:
        verdicts[-1] = f"{verdicts[-1]}, without {missing} that could not be asked"
    print_columns(
        [
            ("messages", *SHOWN, ""),
            *(
                (a["agent"], *(str(a["messages"][stage]) for stage in STAGES), verdict)
                for a, verdict in zip(accounts, verdicts, strict=True)
            ),
        ]
    )
    print()
    print_columns(
        [
            ("sessions", "", *CAUSES),
            *(
                (a["agent"], role, *(str(counts.get(cause, 0)) for cause in CAUSES))
                for a in accounts
                for role, counts in a["sessions"].items()
            ),
        ]
    )
    for sentence in accounts[-1]["wrong"]:
        print(sentence)
