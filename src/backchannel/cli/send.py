"""`backchannel send`: connect, push, receipt, gone. On the fast path: standard library, and little of that."""

import os
import sys

from .. import errors
from ..client import calls, wire
from ..client.drive import run
from ..errors import BackchannelError, LocalProtocolError, Refused, TimedOut
from ..protocol.codec import encode
from .options import FLAG, LIST, SECONDS, TEXT, HelpWanted, parse, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = """usage: backchannel send TO [TEXT | -] [options]

Stores TEXT (or standard input) in TO's mailbox and prints the receipt. TO may be several names
with commas, or @all: all are tried, and the exit code is the first failure's.

  --as NAME             speak as this agent (default: BACKCHANNEL_AGENT; neither: as @user)
  --wait STAGE          wait until stored, taken, acked or done; 3 if it ends otherwise
  --timeout S           how long, in seconds (default: 10 for the receipt, no end for --wait)
  --ttl S               let it expire if nobody took it within S seconds
  --priority P          urgent, normal or low
  --durability D        process (survives every kill) or power (survives a power cut)
  --key K               idempotency key: the same key and text again is stored once
  --header K=V          a header; may be repeated
  --reply-to ID         the message this one answers
  --json                one receipt as JSON a line
"""

_OPTIONS = {
    "--as": TEXT, "--wait": TEXT, "--timeout": SECONDS, "--ttl": SECONDS, "--priority": TEXT, "--durability": TEXT,
    "--key": TEXT, "--header": LIST, "--reply-to": TEXT, "--json": FLAG,
}  # fmt: skip
_STAGES = ("stored", "taken", "acked", "done")


def send(argv: list[str]) -> int:
    """Returns the exit code; errors of one target are raised, of several printed."""
    try:
        words, options = parse(argv, _OPTIONS, USAGE)
    except HelpWanted:
        sys.stdout.write(USAGE)
        return 0
    if not 1 <= len(words) <= 2:
        raise wrong("send needs TO and a TEXT" if not words else "quote the TEXT: it is one word here", USAGE)
    wait = options.get("wait", "stored")
    if wait not in _STAGES:
        raise wrong(f"--wait {wait} is no stage (use {', '.join(_STAGES)})", USAGE)
    caller = wire.Caller(options.get("as") or os.environ.get("BACKCHANNEL_AGENT") or None)
    targets = _targets(caller, words[0])
    text = text_from(words, "send")
    params = {k: options.get(k) for k in ("ttl", "priority", "durability", "reply_to")}
    params["headers"] = _headers(options.get("header"))
    as_json = bool(options.get("json"))
    failures: list[BackchannelError] = []
    receipts = []
    for target in targets:  # all of them, before anybody is waited for
        try:
            receipts.append(_push(caller, target, text, options, params))
        except BackchannelError as error:
            failures.append(error)
            if len(targets) > 1:
                _report(error, as_json)
    for receipt in receipts:
        try:
            _follow(caller, receipt, wait, options.get("timeout"), as_json)
        except BackchannelError as error:
            failures.append(error)
            if len(targets) > 1:
                _report(error, as_json)
    if len(targets) == 1 and failures:
        raise failures[0]
    if not failures:
        return 0
    from ..protocol.codes import exit_code  # beside the fast path

    return exit_code(failures[0])


def _report(error: BackchannelError, as_json: bool) -> None:
    from .main import report

    report(error, as_json=as_json)


def _push(
    caller: wire.Caller, to: str, text: str, options: "dict[str, Any]", params: "dict[str, Any]"
) -> "dict[str, Any]":
    timeout = options.get("timeout")
    return run(calls.push(caller, to, text, options.get("key"), wire.CALL_S if timeout is None else timeout, **params))


def _follow(caller: wire.Caller, receipt: "dict[str, Any]", wait: str, timeout: float | None, as_json: bool) -> None:
    """Waits until the message is as far as wanted, and prints its receipt."""
    if wait != "stored":
        is_queued = receipt["stage"] == "queued"
        later = run(calls.wait(caller, receipt["to"], receipt["id"], wait, timeout, receipt["from"], queued=is_queued))
        receipt = {**later, "duplicate": receipt["duplicate"]}  # only the push knows that
    _print(receipt, as_json=as_json)
    raise_unless_reached(receipt, wait, timeout)


def raise_unless_reached(receipt: "dict[str, Any]", wanted: str, timeout: float | None) -> None:
    """Raises `Refused` for a message that ended undone, `TimedOut` for one that is not so far yet."""
    stage = receipt["stage"]
    if stage not in ("queued", *_STAGES):
        raise Refused(
            f"message {receipt['id']} to {receipt['to']} was {stage}: {receipt['reason']}",
            code=stage,
            hint="nothing more comes of it",
        )
    if not calls.has_reached(stage, wanted):
        raise TimedOut(
            f"message {receipt['id']} to {receipt['to']} is {stage}, not {wanted}, after {timeout or 0:g} s",
            hint=f"it is kept: backchannel status {receipt['id']}",
        )


def _print(receipt: "dict[str, Any]", *, as_json: bool) -> None:
    if as_json:
        line = encode(receipt)
    else:
        again = "  (a duplicate)" if receipt["duplicate"] else ""
        line = f"{receipt['stage']}  {receipt['to']}  {receipt['id']}{again}"
    sys.stdout.write(line + "\n")


def _targets(caller: wire.Caller, to: str) -> list[str]:
    if to == "@all":
        names = caller.everybody_else()
        if not names:
            raise errors.PeerAbsent("there is nobody else here", hint="backchannel up NAME")
        return names
    return list(dict.fromkeys(to.split(",")))


def text_from(words: list[str], command: str) -> str:
    """The second word, or standard input. Raises `LocalProtocolError` for what is no UTF-8."""
    if len(words) == 2 and words[1] != "-":
        text = words[1]
        try:
            text.encode()
        except UnicodeEncodeError:
            raise LocalProtocolError("the TEXT is not UTF-8", code="malformed", hint="send UTF-8 text") from None
        return text
    if sys.stdin is None or (len(words) == 1 and sys.stdin.isatty()):  # None: it was closed
        raise LocalProtocolError(f"{command} needs a TEXT", code="usage", hint="give it as a word or on standard input")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise LocalProtocolError(
            f"standard input is not UTF-8 (byte {error.start})", code="malformed", hint="send text; encode other data"
        ) from None


def _headers(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    headers = {}
    for pair in pairs:
        key, is_pair, value = pair.partition("=")
        if not is_pair or not key:
            raise wrong(f"--header {pair} is not K=V", USAGE)
        headers[key] = value
    return headers
