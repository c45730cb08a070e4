"""What the commands with a full parser share: who calls, one line or one JSON object for each outcome, numbers."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..client import wire
from ..errors import BackchannelError, NotPermitted
from ..protocol.codec import encode
from ..protocol.names import AgentName
from .main import report
from .terminal import printable

Line = Callable[[dict[str, Any]], str]


def caller_of(options: argparse.Namespace) -> wire.Caller:
    return wire.Caller(options.agent or os.environ.get("BACKCHANNEL_AGENT") or None)


def require_own(caller: wire.Caller, name: AgentName) -> None:
    """Raises `NotPermitted` for another user's agent, `PeerAbsent` for none."""
    if caller.places.is_ours(name):
        return
    if name in caller.places.registered():
        raise NotPermitted(f"{name} is another user's agent", hint="its owner may do that, or root with its service")
    wire.check_startable(caller, name, may_start=False)


def say(outcome: dict[str, Any], line: str, options: argparse.Namespace) -> None:
    print(encode(outcome) if options.json else line, flush=True)


def each(items: Iterable[str], options: argparse.Namespace, act: Callable[[str], dict[str, Any]], line: Line) -> int:
    """One line an item; all are tried, the first failure's exit code counts."""
    from ..protocol.codes import exit_code

    status = 0
    for item in items:
        try:
            outcome = act(item)
        except BackchannelError as error:
            report(error, as_json=options.json)
            status = status or exit_code(error)
        else:
            say(outcome, line(outcome), options)
    return status


def receipt_line(receipt: dict[str, Any]) -> str:
    more = f"  delivery {receipt['delivery']}" if receipt["delivery"] else ""
    line = f"{receipt['stage']}  {receipt['to']}  {receipt['id']}{more}{_why(receipt['reason'])}"
    answer = receipt.get("reply_text")  # of one who asked as @user, and finds it nowhere else
    return line if answer is None else line + "\n" + printable(answer, sys.stdout)


def session_line(record: dict[str, Any]) -> str:
    cause = f"{record['cause']}: {record['reason']}" if record["cause"] and record["reason"] else record["cause"]
    return f"{record['state']}  {record['peer']}  {record['id']}{_why(cause)}"


def _why(reason: str | None) -> str:
    return f"  ({printable(reason, sys.stdout)})" if reason else ""


def seconds(text: str) -> float:
    """An option's number of seconds. Raises `ValueError`, which argparse reports."""
    value = float(text)
    if not 0 <= value < 1e10:
        raise ValueError(text)
    return value


def positive(text: str) -> int:
    """An option's number of things, at least one. Raises `ValueError`, which argparse reports."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def whole(text: str) -> int:
    """An option's number of things, none included. Raises `ValueError`, which argparse reports."""
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def age(text: str) -> float:
    """An option's length of time, in seconds: 90, 90s, 12h, 30d. Raises `ValueError`, which argparse reports."""
    return seconds(text[:-1]) * UNITS_S[text[-1]] if text[-1:] in UNITS_S else seconds(text)


def ago(unix_time: float) -> str:
    """How long ago, for people."""
    seconds = max(0.0, time.time() - unix_time)
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def print_columns(rows: list[tuple[str, ...]]) -> None:
    """A table for people: as wide as it must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True) if width).rstrip())


def first_line(text: str, chars_max: int) -> str:
    """What a list shows of a text: its first line, cut, fit for a terminal."""
    line, _, more = printable(text, sys.stdout).partition("\n")
    return line if len(line) <= chars_max and not more else line[: chars_max - 3] + "..."
