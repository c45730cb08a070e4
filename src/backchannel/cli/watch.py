"""`peek`, `log` and `tap`: looking on without taking part. Texts are shown only when asked for."""

import argparse
import os
import selectors
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

from ..client import calls, wire
from ..client.drive import run
from ..errors import BackchannelError, LocalProtocolError
from ..protocol.codec import encode
from .common import UNITS_S
from .main import report
from .terminal import printable

PAGE = 500
FOLLOW_S = 30.0
FILTERS = ("peer", "kind", "stage", "session", "trace_id")  # of a log; its time is another matter


def peek(caller: wire.Caller, options: argparse.Namespace) -> int:
    """What waits for the caller."""
    left, after = options.max, 0
    while after is not None and left > 0:
        params = {"after": after, "max": min(PAGE, left), "text": options.text}
        page = run(calls.control(caller, caller.me(), "peek", **params))
        for entry in page["messages"]:
            _print_entry(entry, as_json=options.json, with_text=options.text)
        left -= len(page["messages"])
        after = page["next"]
    return 0


def log(caller: wire.Caller, options: argparse.Namespace) -> int:
    """What came to the agents named (else: to the caller), the last of it, in the order of storing."""
    names = options.names or [caller.me()]
    # What happens while we print is shown by both rather than by neither.
    since = {name: run(calls.control(caller, name, "tap"))["last"] for name in names} if options.follow else {}
    wanted = {key: getattr(options, key) for key in FILTERS} | {
        "since": time_of(options.since), "until": time_of(options.until)
    }  # fmt: skip
    last: list[tuple[float, str, int]] = []
    for name in names:
        last += last_of(caller, name, options.max, wanted)
    for name, entries in _runs(sorted(last)[-options.max :]):
        numbers = set(entries)
        for entry in between(caller, name, entries[0] - 1, entries[-1], {**wanted, "text": options.text}):
            if entry["message"]["msg_no"] in numbers:
                _print_entry(entry, as_json=options.json, with_text=options.text)
    if options.follow:
        sys.stdout.flush()
        return _show_events(caller, names, options, None, since, wanted)
    return 0


def last_of(caller: wire.Caller, name: str, count: int, wanted: dict[str, Any]) -> list[tuple[float, str, int]]:
    """When, whose and which: the last `count` messages that came to an agent and are wanted; without their texts."""
    found: list[tuple[float, str, int]] = []
    before: int | None = 0
    while before is not None and len(found) < count:
        params = {"before": before, "max": min(PAGE, count - len(found))}
        page = run(calls.control(caller, name, "log", **params, **wanted))
        found += [(entry["stored_at"], name, entry["message"]["msg_no"]) for entry in page["messages"]]
        before = page["next"]
    return found


def between(
    caller: wire.Caller, name: str, after: int | None, last: int, wanted: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The entries of an agent's log behind number `after` up to `last`, oldest first."""
    while after is not None and after < last:
        page = run(calls.control(caller, name, "log", after=after, max=PAGE, **wanted))
        for entry in page["messages"]:
            if entry["message"]["msg_no"] > last:
                return
            yield entry
        after = page["next"]


def _runs(found: list[tuple[float, str, int]]) -> Iterator[tuple[str, list[int]]]:
    """Neighbours that lie in one mailbox, together: (name, numbers in order)."""
    for name, run_of_it in groupby(found, key=lambda entry: entry[1]):
        yield name, sorted(number for _, _, number in run_of_it)


def show_traffic(caller: wire.Caller, options: argparse.Namespace) -> int:
    """`tap`: what happens in several mailboxes, as it happens, until interrupted or `--for` is over."""
    names = options.names or [
        a["name"] for a in run(calls.agents(caller)) if a["online"] and _may_look(caller, a["name"])
    ]
    if not names:
        raise LocalProtocolError("no agent's daemon runs", code="usage", hint="backchannel up NAME")
    return _show_events(caller, names, options, options.seconds)


def _may_look(caller: wire.Caller, name: str) -> bool:
    """Another user's mailbox is his, and root's, to look into."""
    return caller.places.is_ours(name) or os.geteuid() == 0


def _show_events(
    caller: wire.Caller,
    names: list[str],
    options: argparse.Namespace,
    seconds: float | None,
    after: dict[str, int] | None = None,
    wanted: dict[str, Any] | None = None,
) -> int:
    deadline = None if seconds is None else time.monotonic() + seconds
    left = [_Tap(caller, name, (after or {}).get(name), with_text=options.text) for name in names]
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
                    if _is_wanted(event, wanted or {}):
                        _print_event(event, as_json=options.json)
                sys.stdout.flush()
    return 0


def _is_wanted(event: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """As the daemon's log picks messages."""
    said = {"peer": event["from"], **{key: event[key] for key in ("kind", "stage", "session")}}
    trace_id = wanted.get("trace_id")
    if trace_id is not None and trace_id not in (event["trace_id"], event["id"]):
        return False
    until = wanted.get("until")
    return (until is None or event["at"] < until) and all(wanted.get(key) in (None, said[key]) for key in said)


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
        text = "(purged)" if entry.get("purged") else printable(message["text"], sys.stdout)
        print("    " + text.replace("\n", "\n    "))


def _print_event(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(encode(event))
        return
    when = time.strftime("%H:%M:%S", time.localtime(event["at"]))
    why = f"  ({printable(event['reason'], sys.stdout)})" if event["reason"] else ""
    print(f"{when}  {event['stage']:<9}  {event['from']} -> {event['to']}  {event['id']}{why}")
    if "text" in event and event["stage"] == "stored":
        print("    " + printable(event["text"], sys.stdout).replace("\n", "\n    "))


def time_of(text: str | None) -> float | None:
    """Unix time of "10m" ago, or of an ISO 8601 time (local where it names no zone)."""
    if text is None:
        return None
    try:
        if text[-1:] in UNITS_S and text[:-1].replace(".", "", 1).isdecimal():  # isdigit would let a "²" through
            return time.time() - min(float(text[:-1]) * UNITS_S[text[-1]], time.time())
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise LocalProtocolError(
            f"{text!r} is no time", code="usage", hint="use 10m, 2h or 3d (ago), or 2026-01-31T12:00"
        ) from None
