"""`peek`, `log` and `tap`: looking on without taking part. Texts are shown only when asked for."""

import argparse
import selectors
import sys
import time
from datetime import datetime
from typing import Any

from ..client import calls, wire
from ..client.drive import run
from ..errors import BackchannelError, LocalProtocolError
from ..protocol.codec import encode
from .main import report
from .terminal import printable

PAGE = 500
FOLLOW_S = 30.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def show_messages(caller: wire.Caller, options: argparse.Namespace) -> int:
    """`peek` and `log` of the caller's own mailbox."""
    name = caller.me()
    after, left = 0, options.max
    fields: dict[str, Any] = {"text": options.text}
    is_followed = options.method == "log" and options.follow
    # What happens while we print is shown by both rather than by neither.
    since = run(calls.control(caller, name, "tap"))["last"] if is_followed else None
    if options.method == "log":
        fields |= {"peer": options.peer, "since": _time(options.since), "until": _time(options.until)}
        after = _before_the_last(caller, name, options.max, fields | {"text": False})
    while left > 0:
        page = run(calls.control(caller, name, options.method, after=after, max=min(PAGE, left), **fields))["messages"]
        for entry in page:
            _print_entry(entry, as_json=options.json, with_text=options.text)
            after = entry["message"]["msg_no"]
        left -= len(page)
        if not page:
            break
    if is_followed:
        sys.stdout.flush()
        return _show_events(caller, [name], options, None, since, options.peer)
    return 0


def _before_the_last(caller: wire.Caller, name: str, count: int, fields: dict[str, Any]) -> int:
    """The msg_no behind which the last `count` messages of the history begin."""
    first = 0
    while count > 0:
        page = run(calls.control(caller, name, "log", before=first, max=min(PAGE, count), **fields))["messages"]
        if not page:
            break
        first = page[0]["message"]["msg_no"]
        count -= len(page)
    return max(0, first - 1)


def show_traffic(caller: wire.Caller, options: argparse.Namespace) -> int:
    """`tap`: what happens in several mailboxes, as it happens, until interrupted or `--for` is over."""
    names = options.names or [a["name"] for a in run(calls.agents(caller)) if a["online"]]
    if not names:
        raise LocalProtocolError("no agent's daemon runs", code="usage", hint="backchannel up NAME")
    return _show_events(caller, names, options, options.seconds)


def _show_events(
    caller: wire.Caller,
    names: list[str],
    options: argparse.Namespace,
    seconds: float | None,
    after: int | None = None,
    peer: str | None = None,
) -> int:
    deadline = None if seconds is None else time.monotonic() + seconds
    left = [_Tap(caller, name, after, with_text=options.text) for name in names]
    with selectors.DefaultSelector() as selector:
        for tap in left:
            tap.ask(selector)
        while deadline is None or time.monotonic() < deadline:
            wait = FOLLOW_S if deadline is None else max(0.0, deadline - time.monotonic())
            for key, _ in selector.select(wait):
                try:
                    events = key.data.hear(selector)
                except BackchannelError as error:  # somebody took it down; the others go on
                    left.remove(key.data)
                    if not left:
                        raise
                    report(error, as_json=options.json)
                    continue
                for event in events:
                    if peer in (None, event["from"]):
                        _print_event(event, as_json=options.json)
                sys.stdout.flush()
    return 0


class _Tap:
    """A long poll on one daemon, asked again each time it was answered."""

    def __init__(self, caller: wire.Caller, name: str, after: int | None, *, with_text: bool) -> None:
        self._caller = caller
        self._name = name
        self._with_text = with_text
        self._last = after
        self._stream = wire.Stream()

    def ask(self, selector: selectors.BaseSelector) -> None:
        params = {"after": self._last, "wait": FOLLOW_S, "text": self._with_text}
        if self._last is None:  # from now on: learn where that is before the first wait
            params["wait"] = 0.0
            self._last = run(calls.control(self._caller, self._name, "tap", wait=0.0))["last"]
            params.update(after=self._last, wait=FOLLOW_S)
        sock = run(calls.open_control(self._caller, self._stream, self._name, "tap", params))
        selector.register(sock, selectors.EVENT_READ, self)

    def hear(self, selector: selectors.BaseSelector) -> list[dict[str, Any]]:
        assert self._stream.sock is not None
        selector.unregister(self._stream.sock)
        try:
            answer = run(calls.hear(self._stream))
        except OSError:  # its daemon ended; its numbers begin anew
            self._stream.close()
            self._last = None
            answer = {"events": [], "last": None}
        except BackchannelError:
            self._stream.close()
            raise
        if answer["last"] is not None:
            self._last = answer["last"]
        self.ask(selector)
        events: list[dict[str, Any]] = answer["events"]
        return events


def _print_entry(entry: dict[str, Any], *, as_json: bool, with_text: bool) -> None:
    if as_json:
        about = {key: value for key, value in entry.items() if key != "message"}
        print(encode({**about, **entry["message"]}))
        return
    message = entry["message"]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(message["sent_at"]))
    why = f"  ({printable(entry['reason'], sys.stdout)})" if entry.get("reason") else ""
    print(f"{when}  {entry['stage']:<9}  {message['from']} -> {message['to']}  {message['id']}{why}")
    if with_text:
        print("    " + printable(message["text"], sys.stdout).replace("\n", "\n    "))


def _print_event(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(encode(event))
        return
    when = time.strftime("%H:%M:%S", time.localtime(event["at"]))
    why = f"  ({printable(event['reason'], sys.stdout)})" if event["reason"] else ""
    print(f"{when}  {event['stage']:<9}  {event['from']} -> {event['to']}  {event['id']}{why}")
    if "text" in event and event["stage"] == "stored":
        print("    " + printable(event["text"], sys.stdout).replace("\n", "\n    "))


def _time(text: str | None) -> float | None:
    """Unix time of "10m" ago, or of an ISO 8601 time (local where it names no zone)."""
    if text is None:
        return None
    try:
        if text[-1:] in _UNITS and text[:-1].replace(".", "", 1).isdecimal():  # isdigit would let a "²" through
            return time.time() - min(float(text[:-1]) * _UNITS[text[-1]], time.time())
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise LocalProtocolError(
            f"{text!r} is no time", code="usage", hint="use 10m, 2h or 3d (ago), or 2026-01-31T12:00"
        ) from None
