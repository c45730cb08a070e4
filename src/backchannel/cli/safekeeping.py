"""`backup`, `restore` and `purge`: what is kept of a mailbox.

The file belongs to whoever has it open: the agent's daemon, or for a stopped agent a process that holds its lock.
"""

import argparse
import os
import subprocess
import time
from typing import Any

from ..client import calls, wire
from ..client.drive import run
from ..errors import BackchannelError, NotPermitted, PeerAbsent, Refused, TimedOut
from ..protocol.codec import Malformed, decode
from ..protocol.codes import error_for
from ..protocol.names import AgentName
from ..transport import start
from ..transport.lock import served_in
from ..transport.paths import write_private
from .common import require_own, say, why_it_ended

BACKUP_S = 3600.0  # a large mailbox on a slow disk
STOP_S = 30.0  # an orderly end; nobody waits for this one
ATTEMPTS = 5  # a daemon may start or end between our look and our call
NAME_TAKEN = 75  # exit status of a daemon that found the lock held


def backup(options: argparse.Namespace) -> int:
    caller = wire.Caller(None)
    name = AgentName(options.name)
    require_own(caller, name)
    path = os.path.abspath(options.file) if options.file else None
    done = _backed_up(caller, name, path)
    say(done, f"{name}  {done['bytes']} bytes, checked  {done['path']}", options)
    return 0


def _backed_up(caller: wire.Caller, name: AgentName, path: str | None) -> dict[str, Any]:
    for _ in range(ATTEMPTS):
        if served_in(caller.places.state(name, "lock")) is not None:
            try:
                return _seen(name, run(calls.running(caller, name, "backup", BACKUP_S, path=path)))
            except PeerAbsent:
                pass  # it ended just now
        done = run_stopped(caller, name, ["--backup", path or ""])
        if done is not None:
            return done
    raise TimedOut(f"the daemon of {name} starts and ends all the time", hint="backchannel doctor")


def _seen(name: AgentName, done: dict[str, Any]) -> dict[str, Any]:
    """Raises `NotPermitted` if the backup lies where only the daemon sees it."""
    if not os.path.exists(done["path"]):
        raise NotPermitted(
            f"{done['path']} is seen by the daemon of {name} alone: a service has a /tmp of its own",
            hint=f"leave FILE out: backchannel backup {name}",
        )
    return done


def restore(options: argparse.Namespace) -> int:
    caller = wire.Caller(None)
    name = AgentName(options.name)
    require_own(caller, name)
    path = os.path.abspath(options.file)
    places = caller.places
    is_running = served_in(places.state(name, "lock")) is not None
    if is_running and not options.stop:
        raise Refused(
            f"the daemon of {name} runs, and has the mailbox open", hint=f"backchannel restore {name} {path} --stop"
        )
    mark = places.state(name, "down")
    was_down = os.path.exists(mark)
    write_private(mark, "by `backchannel restore`\n")  # nobody starts it meanwhile
    done = None
    try:
        run(calls.stop(caller, name, STOP_S))
        done = run_stopped(caller, name, ["--restore", path])
        if done is None:
            raise Refused(f"another process holds the lock of {name}", hint="try again", retry=True)
    finally:
        if not was_down and os.path.exists(mark):  # else somebody typed `up` meanwhile
            os.unlink(mark)
        if is_running and not was_down and done is None:
            _start_again(caller, name)
    kept = f"; the one before is kept as {done['kept']}" if done["kept"] else ""
    ended = f"; {done['open_sessions']} open sessions will be reset" if done["open_sessions"] else ""
    say(
        {"name": name, "did": "restored", **done},
        f"{name}  restored: {done['waiting']} messages wait{ended}{kept}",
        options,
    )
    if is_running and not was_down:
        run(calls.ping(caller, name))
    return 0


def _start_again(caller: wire.Caller, name: AgentName) -> None:
    """As it ran before. If that fails too, what is told is why nothing was restored."""
    try:
        run(calls.ping(caller, name))
    except BackchannelError:
        pass


REST = 3.0  # times as long as a step took: most of the daemon's time is the mail's


def purge(options: argparse.Namespace) -> int:
    """Asks for one small step after another, with rests, so that the agent's own mail goes on meanwhile."""
    caller = wire.Caller(None)
    name = AgentName(options.name)
    if options.list:
        for record in run(calls.control(caller, name, "purges"))["purges"]:
            say(record, _purge_line(record), options)
        return 0
    params: dict[str, Any] = {"older_than": options.older_than, "keep": options.keep, "dry_run": options.dry_run}
    done = {"contents": 0, "bytes": 0, "rows": 0}
    after: int | None = 0
    purge_no = None
    while after is not None:
        began = time.monotonic()
        step = run(calls.control(caller, name, "purge", after=after, purge_no=purge_no, **params))
        done = {key: count + step[key] for key, count in done.items()}
        after, purge_no = step["next"], step["purge_no"]
        if after is not None:
            time.sleep(REST * (time.monotonic() - began))
    did = "would leave" if options.dry_run else "left"
    ids = f", and {done['rows']} ids" if done["rows"] else ""
    line = f"{name}  the content of {done['contents']} messages {did}, {done['bytes']} bytes{ids}"
    say({"name": name, "did": did, "purge_no": purge_no, **done}, line, options)
    return 0


def _purge_line(record: dict[str, Any]) -> str:
    at, before = (time.strftime("%Y-%m-%d %H:%M", time.localtime(record[key])) for key in ("at", "before"))
    counts = f"{record['contents']} contents, {record['bytes']} bytes, {record['rows']} ids"
    return f"{at}  by {record['by']}  ended before {before}  {counts}"


def run_stopped(caller: wire.Caller, name: str, words: list[str]) -> dict[str, Any] | None:
    """What a mode of `backchanneld` for a stopped agent did; None if its daemon runs. Raises why it did not."""
    places = caller.places
    command = [*start.DAEMON, name, "--state", places.state_dir]
    command += ["--dir", places.socket_dir, *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == NAME_TAKEN:
        return None
    try:
        answer: dict[str, Any] = decode(done.stdout)
    except Malformed:  # it ended before it could begin
        raise BackchannelError(f"nothing was done to {name}: {why_it_ended(done)}", hint="backchannel doctor") from None
    if "error" in answer:
        raise error_for(**answer["error"])
    return answer
