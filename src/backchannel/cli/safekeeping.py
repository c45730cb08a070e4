"""`backup` and `restore`: a copy of a mailbox, made by whoever has the file: its daemon, or for a stopped agent a
process that holds its lock."""

import argparse
import os
import subprocess
import sys
from typing import Any

from ..client import calls, wire
from ..client.drive import run
from ..errors import BackchannelError, NotPermitted, PeerAbsent, Refused
from ..protocol.codec import Malformed, decode
from ..protocol.codes import error_for
from ..protocol.names import AgentName
from ..transport.lock import served_in
from ..transport.paths import write_private
from .common import say

BACKUP_S = 3600.0  # a large mailbox on a slow disk
STOP_S = 30.0  # an orderly end; nobody waits for this one
NAME_TAKEN = 75  # exit status of a daemon that found the lock held


def backup(options: argparse.Namespace) -> int:
    caller = wire.Caller(None)
    name = AgentName(options.name)
    _require_ours(caller, name)
    path = os.path.abspath(options.file) if options.file else None
    done = _backed_up(caller, name, path)
    say(done, f"{name}  {done['bytes']} bytes, checked  {done['path']}", options)
    return 0


def _backed_up(caller: wire.Caller, name: AgentName, path: str | None) -> dict[str, Any]:
    while True:
        if served_in(caller.places.state(name, "lock")) is not None:
            try:
                return run(calls.running(caller, name, "backup", BACKUP_S, path=path))
            except PeerAbsent:
                pass  # it ended just now
        done = run_stopped(caller, name, ["--backup", path or ""])
        if done is not None:
            return done


def restore(options: argparse.Namespace) -> int:
    caller = wire.Caller(None)
    name = AgentName(options.name)
    _require_ours(caller, name)
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
    try:
        run(calls.stop(caller, name, STOP_S))
        done = run_stopped(caller, name, ["--restore", path])
        if done is None:
            raise Refused(f"another process holds the lock of {name}", hint="try again", retry=True)
    finally:
        if not was_down:
            os.unlink(mark)
        if is_running:
            run(calls.ping(caller, name))
    kept = f"; the one before is kept as {done['kept']}" if done["kept"] else ""
    ended = f"; {done['open_sessions']} open sessions will be reset" if done["open_sessions"] else ""
    say(
        {"name": name, "did": "restored", **done},
        f"{name}  restored: {done['waiting']} messages wait{ended}{kept}",
        options,
    )
    return 0


def run_stopped(caller: wire.Caller, name: str, words: list[str]) -> dict[str, Any] | None:
    """What a mode of `backchanneld` for a stopped agent did; None if its daemon runs. Raises why it did not."""
    places = caller.places
    command = [sys.executable, "-P", "-m", "backchannel.daemon", name, "--state", places.state_dir]
    command += ["--dir", places.socket_dir, *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == NAME_TAKEN:
        return None
    try:
        answer: dict[str, Any] = decode(done.stdout)
    except Malformed:  # it ended before it could begin
        said = done.stderr.strip().splitlines()
        reason = said[-1].partition(" error ")[2] or said[-1] if said else f"exit status {done.returncode}"
        raise BackchannelError(f"nothing was done to {name}: {reason}", hint="backchannel doctor") from None
    if "error" in answer:
        raise error_for(**answer["error"])
    return answer


def _require_ours(caller: wire.Caller, name: AgentName) -> None:
    if not os.path.exists(caller.places.state(name, "key")):
        wire.check_startable(caller, name, may_start=False)
        raise NotPermitted(f"{name} is another user's agent", hint="its owner can do that")
