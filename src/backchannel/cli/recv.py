"""`backchannel recv`: take, print, flush, and only then ack. On the fast path, as `send`."""

import os
import sys
import time

from ..client import calls, wire
from ..client.drive import run
from ..protocol.codec import encode
from .options import FLAG, LIST, NUMBER, SECONDS, TEXT, HelpWanted, parse, wrong
from .terminal import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = """usage: backchannel recv [options]

Prints what is waiting for the agent, and acks what was printed.

  --as NAME             be this agent (default: BACKCHANNEL_AGENT)
  --wait S              wait up to S seconds for the first; exit code 4 if nothing came
  --max N               at most N messages (default: all that wait)
  --keep                lease only, for 300 s: ack, reject or release later
  --kind KIND           only this kind; may be repeated
  --session ID          only of this session
  --json                one message as JSON a line
"""

_OPTIONS = {
    "--as": TEXT, "--wait": SECONDS, "--max": NUMBER, "--keep": FLAG, "--kind": LIST, "--session": TEXT, "--json": FLAG,
}  # fmt: skip
_BATCH = 100
_NOTHING_CAME = 4


def recv(argv: list[str]) -> int:
    """Returns the exit code."""
    try:
        words, options = parse(argv, _OPTIONS, USAGE)
    except HelpWanted:
        sys.stdout.write(USAGE)
        return 0
    if words:
        raise wrong(f"recv takes no {words[0]!r}", USAGE)
    if options.get("max") == 0:
        raise wrong("--max 0 would take nothing", USAGE)
    caller = wire.Caller(options.get("as") or os.environ.get("BACKCHANNEL_AGENT") or None)
    caller.me()
    left = options.get("max")
    wait = options.get("wait", 0.0)
    kinds = tuple(options["kind"]) if "kind" in options else None
    keep = bool(options.get("keep"))
    stream = wire.Stream()
    came = False
    while left is None or left > 0:
        count = _BATCH if left is None else min(left, _BATCH)
        messages = run(calls.take(caller, stream, count, wait, kinds, options.get("session"), keep))
        if not messages:
            break
        came, wait = True, 0.0
        left = None if left is None else left - len(messages)
        for message in messages:
            _print(message, as_json=bool(options.get("json")))
        sys.stdout.flush()
        if not keep:
            run(calls.ack_all(caller, messages, "flush"))
    return 0 if came or "wait" not in options else _NOTHING_CAME


def _print(message: "dict[str, Any]", *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(encode(message) + "\n")
        return
    when = time.strftime("%H:%M:%S", time.localtime(message["sent_at"]))
    again = f"  (delivery {message['delivery']})" if message["delivery"] > 1 else ""
    kind = "" if message["kind"] == "message" else f"  {message['kind']}{_more(message)}"
    text = printable(message["text"], sys.stdout)
    if sys.stdout.isatty():  # no line of a text may pass for the line above another message
        text = "    " + text.replace("\n", "\n    ")
    sys.stdout.write(f"{message['from']}  {when}  {message['id']}{kind}{again}\n")
    if message["text"] or message["kind"] not in _NEXT:  # a notice may have nothing to say
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    if message["kind"] in _NEXT:
        sys.stdout.write(f"  -> {_NEXT[message['kind']].format(message['session'])}\n")


# What a person may type next, for the notices of a session.
_NEXT = {
    "offer": "backchannel accept {0}, or backchannel reject {0} --reason WHY",
    "accepted": "backchannel say {0} TEXT",
    "rejected": "backchannel sessions {0}",
    "finished": "backchannel close {0}, if you have not yet",
    "reset": "backchannel trace {0}",
}


def _more(message: "dict[str, Any]") -> str:
    """What the headers of a session's notice say."""
    headers = message["headers"]
    if "retry_after" in headers:
        return f" (ask again in {headers['retry_after']} s)"
    if "input_required" in headers:
        return " (cannot go on without an answer)"
    found = headers.get("status") or headers.get("cause")
    return f" ({found})" if found and message["kind"] in _NEXT else ""
