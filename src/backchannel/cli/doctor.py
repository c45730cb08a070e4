"""`backchannel doctor`: what is wrong here, a line a check, each with the command that mends it."""

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from .. import __version__
from ..client import calls, wire
from ..client.drive import run
from ..errors import BackchannelError, NotPermitted, PeerAbsent
from ..protocol.codec import encode
from ..transport import start
from ..transport.lock import served_in
from ..transport.paths import CONTROL, SOCKET_PATH_BYTES_MAX, Places, check_private, check_socket_dir, find_places
from .common import ago
from .hermes import examine_profiles
from .service import examine_units
from .terminal import is_coloured

SQLITE_MIN = (3, 35, 0)
OLD_S = 3600.0
CHECK_S = 15.0
RESERVE_BYTES = 16 << 20
_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}


class Finding(NamedTuple):
    """One check. `verdict` is ok, warn or fail; `mend` the command to type, if there is one."""

    verdict: str
    subject: str
    says: str
    mend: str = ""


def examine(*, as_json: bool) -> int:
    """Prints every finding. Returns 0 only if nothing fails."""
    failed = False
    coloured = is_coloured(sys.stdout, os.environ)
    for finding in _all():
        failed = failed or finding.verdict == "fail"
        if as_json:
            print(encode(finding._asdict()), flush=True)
            continue
        verdict = f"{finding.verdict:<4}"
        if coloured:
            verdict = f"\x1b[{_COLOURS[finding.verdict]}m{verdict}\x1b[0m"
        mend = f"  -> {finding.mend}" if finding.mend else ""
        print(f"{verdict}  {finding.subject}: {finding.says}{mend}", flush=True)
    return 1 if failed else 0


def _all() -> Iterator[Finding]:
    yield from _installation()
    try:
        places = find_places()
    except BackchannelError as error:
        yield Finding("fail", "places", error.message, error.hint)
        return
    yield from _places(places)
    names = places.registered()
    if not names:
        yield Finding("ok", "agents", "none yet", "backchannel up NAME")
    caller = wire.Caller(None, places)
    for name in names:
        yield from _agent(caller, name)
    for found in (*examine_units(places), *examine_profiles(places)):
        yield Finding(*found)


def _installation() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", "backchannel", f"{__version__}, Python {version} ({sys.executable})")
    if not start.can_serve():
        yield Finding(
            "fail", "msgspec", "is missing: no daemon can run here", f"{sys.executable} -m pip install msgspec"
        )
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        yield Finding(
            "fail", "sqlite", f"{sqlite3.sqlite_version} is too old", "use a Python with SQLite 3.35 or newer"
        )
    else:
        yield Finding("ok", "sqlite", sqlite3.sqlite_version)


def _places(places: Places) -> Iterator[Finding]:
    for variable, path in (("STATE", places.state_dir), ("DIR", places.socket_dir)):
        try:
            check_private(path) if variable == "STATE" else check_socket_dir(places)
        except FileNotFoundError:
            yield Finding("ok", variable, f"{path} will be made when it is needed")
        except BackchannelError as error:
            yield Finding("fail", variable, error.message, error.hint)
        else:
            yield Finding("ok", variable, path)
    if len(os.fsencode(places.socket_dir)) + 64 + len(CONTROL) > SOCKET_PATH_BYTES_MAX:
        yield Finding(
            "warn", "DIR", "long names make socket paths that programs without our library cannot reach",
            "set BACKCHANNEL_DIR to a shorter path",
        )  # fmt: skip


def _agent(caller: wire.Caller, name: str) -> Iterator[Finding]:
    places = caller.places
    if not places.is_ours(name):
        try:
            run(calls.ping(caller, name, 5.0, may_start=False))
            yield Finding("ok", name, "is another user's, and answers")
        except BackchannelError as error:
            yield Finding("warn", name, f"is another user's: {error.message}", error.hint)
        return
    try:
        check_private(places.state(name))
        mode = stat.S_IMODE(os.lstat(places.state(name, "key")).st_mode)
        if mode & 0o077:
            yield Finding(
                "fail", name, f"its key is open to others (mode {mode:04o})", f"chmod 600 {places.state(name, 'key')}"
            )
    except (NotPermitted, OSError) as error:
        yield Finding("fail", name, str(error))
        return
    served = served_in(places.state(name, "lock"))
    if served is None:
        yield from _stopped(places, name)
        return
    if served != places.socket_dir:
        yield Finding("ok", name, f"is served in {served}")
    yield from _running(caller, name)


def _stopped(places: Places, name: str) -> Iterator[Finding]:
    if os.path.exists(places.state(name, "down")):
        yield Finding("ok", name, "is down", f"backchannel up {name}")
        return
    try:
        command = start.command(places, name)
    except PeerAbsent as error:
        yield Finding("fail", name, error.message, f"backchannel up {name}")
        return
    if complaint := _complaint(command, places):
        yield Finding("fail", name, f"its daemon does not run, and cannot start: {complaint}")
    else:
        yield Finding("ok", name, "its daemon does not run; the next push starts it")


def _complaint(command: list[str], places: Places) -> str:
    """Why the daemon that `command` starts would not, or ""; nothing is started."""
    try:
        done = subprocess.run(
            [*command, "--dir", places.socket_dir, "--check"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CHECK_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    words = done.stderr.strip().splitlines()
    return words[-1].partition(" error ")[2] or words[-1] if words else f"exit status {done.returncode}"


def _running(caller: wire.Caller, name: str) -> Iterator[Finding]:
    begun = time.perf_counter()
    try:
        state = run(calls.status(caller, name, 5.0))
    except BackchannelError as error:
        yield Finding("fail", name, error.message, f"backchannel down {name} && backchannel up {name}")
        return
    answered_us = (time.perf_counter() - begun) * 1e6
    if state["version"] != __version__:
        yield Finding("warn", name, f"runs version {state['version']}", f"backchannel up {name}")
    if state.get("storage_low", state["free_bytes"] < RESERVE_BYTES):
        yield Finding("fail", name, f"only {state['free_bytes'] >> 20} MiB of disk are free: pushes are refused")
    oldest = state["oldest_unacked"]
    waits = f"{state['backlog']} unacked" + (f", the oldest for {ago(oldest)}" if oldest else "")
    is_old = oldest is not None and time.time() - oldest > OLD_S and not state["receiving"]
    yield Finding(
        "warn" if is_old else "ok",
        name,
        f"answers in {answered_us:.0f} us; {waits}" + ("; nobody takes them" if is_old else ""),
        f"backchannel recv --as {name}" if is_old else "",
    )
