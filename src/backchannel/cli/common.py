"""What the commands with a full parser share: who calls, one line or one JSON object for each outcome, numbers."""

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..client import reach, wire
from ..errors import BackchannelError, NotPermitted
from ..protocol.codec import encode
from ..protocol.names import AgentName
from .main import report
from .terminal import printable

Number = TypeVar("Number", int, float)
Line = Callable[[dict[str, Any]], str]


def caller_of(options: argparse.Namespace) -> wire.Caller:
    return wire.Caller(options.agent or os.environ.get("BACKCHANNEL_AGENT") or None)


def require_own(caller: wire.Caller, name: AgentName) -> None:
    """Raises `NotPermitted` for another user's agent, `PeerAbsent` for none."""
    if caller.places.is_ours(name):
        return
    if name in caller.places.registered():
        raise NotPermitted(f"{name} is another user's agent", hint="its owner may do that, or root with its service")
    reach.check_startable(caller, name, may_start=False)


def why_it_ended(daemon: "subprocess.CompletedProcess[str]") -> str:
    """The error that a mode of `backchanneld` logged last, or else how it ended."""
    words = daemon.stderr.strip().splitlines()
    return words[-1].partition(" error ")[2] or words[-1] if words else f"exit status {daemon.returncode}"


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
    """An option's number of seconds. Raises `ArgumentTypeError` with what is wrong, as those below."""
    return _number(text, float, least=0, most=1e10, what="a number of seconds")


def positive(text: str) -> int:
    """An option's number of things, at least one."""
    return _number(text, int, least=1, what="a number from 1 on")


def whole(text: str) -> int:
    """An option's number of things, none included."""
    return _number(text, int, least=0, what="a number from 0 on")


UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def age(text: str) -> float:
    """An option's length of time, in seconds: 90, 90s, 12h, 30d."""
    unit = UNITS_S.get(text[-1:])
    what = "a length of time such as 90s, 12h or 30d"
    if unit is None:
        return _number(text, float, least=0, most=1e10, what=what)
    return _number(text, lambda t: float(t[:-1]) * unit, least=0, most=1e10, what=what)


def _number(text: str, parse: Callable[[str], Number], *, least: float, most: float = math.inf, what: str) -> Number:
    try:
        value = parse(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


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
