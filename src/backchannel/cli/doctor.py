"""`backchannel doctor`: what is wrong here, a line a check, each with the command that mends it."""

import errno
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from .. import __version__
from ..client import calls, sandbox, wire
from ..client.drive import run
from ..client.health import round_trip
from ..errors import BackchannelError, NotPermitted, PeerAbsent
from ..protocol.codec import encode
from ..transport import start
from ..transport.dial import connect
from ..transport.lock import served_in
from ..transport.paths import CONTROL, SOCKET_PATH_BYTES_MAX, Places, check_private, check_socket_dir, find_places
from . import coding, mcpclients
from .common import ago, why_it_ended
from .hermes import examine_profiles
from .service import examine_units
from .terminal import is_coloured

SQLITE_MIN = (3, 35, 0)
OLD_S = 3600.0
CHECK_S = 15.0
ANSWER_S = 5.0
RESERVE_BYTES = 16 << 20
_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}


class Finding(NamedTuple):
    """One check. `verdict` is ok, warn or fail; `mend` the command to type, if there is one; `times` are the seconds
    that the stages of a round trip took."""

    verdict: str
    subject: str
    says: str
    mend: str = ""
    times: dict[str, float] | None = None


# What looks at the programs around us: (verdict, subject, says, mend) for each thing found. A new one is a line here.
Examiner = Callable[[Places], Iterable[tuple[str, str, str, str]]]
EXAMINERS: tuple[Examiner, ...] = (examine_units, examine_profiles, coding.examine, mcpclients.examine)


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
    yield from _sandbox(places)
    try:
        names = places.registered()
    except BackchannelError:  # a policy that cannot be used, as is said above; who is ours stands in STATE
        names = places.own()
    if not names:
        yield Finding("ok", "agents", "none yet", "backchannel up NAME")
    caller = wire.Caller(None, places)
    for name in names:
        yield from _agent(caller, name)
    for examine_more in EXAMINERS:
        try:
            for found in examine_more(places):
                yield Finding(*found)
        except BackchannelError as error:
            yield Finding("fail", "programs", error.message, error.hint)


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


def _sandbox(places: Places) -> Iterator[Finding]:
    """Whether Unix sockets can be used at all: asked of one that nobody can have, since its name is no agent's."""
    path = f"{places.socket_dir}/@doctor/{CONTROL}"
    try:
        connect(path, 1.0).close()
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EAFNOSUPPORT):
            why = sandbox.refused(path, error.errno)
            yield Finding("fail", "sandbox", why.message, why.hint)
            return
    yield Finding("ok", "sandbox", "Unix sockets may be used")


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
    return why_it_ended(done) if done.returncode else ""


def _running(caller: wire.Caller, name: str) -> Iterator[Finding]:
    """The daemon that holds the lock: does it answer, is it of this version, does it store, has it room, who waits."""
    try:
        times, pid, state = run(round_trip(caller, name, ANSWER_S))
    except NotPermitted as error:
        yield Finding("fail", name, error.message, error.hint)
        return
    except BackchannelError as error:
        if error.code not in ("full", "unknown_method"):
            yield Finding("fail", name, error.message, f"backchannel down {name} && backchannel up {name}")
            return
        if error.code == "full":
            yield Finding("fail", name, error.message, f"df {caller.places.state(name)}")
        try:
            times, pid, state = {}, 0, run(calls.running(caller, name, "status", ANSWER_S))
        except BackchannelError as gone:  # meanwhile
            yield Finding("fail", name, gone.message, gone.hint)
            return
    if times:
        shown = ", ".join(f"{stage} {_duration(seconds)}" for stage, seconds in times.items())
        yield Finding("ok", name, f"round trip: {shown}", times=times)
    holder = f"pid {pid} holds the lock, " if pid else ""
    says = f"{holder}version {state['version']}, schema {state.get('schema', 'unknown')}"
    if state["version"] != __version__:
        yield Finding("warn", name, f"{says}; this is {__version__}", f"backchannel up {name}")
    else:
        yield Finding("ok", name, says)
    yield _disk(caller.places, name, state)
    yield _mail(name, state)


def _disk(places: Places, name: str, state: dict[str, Any]) -> Finding:
    reserve = state.get("reserve_bytes", RESERVE_BYTES)
    says = f"{_bytes(state['free_bytes'])} of disk are free, {_bytes(reserve)} are kept in reserve"
    if state.get("storage_low", state["free_bytes"] < reserve):
        return Finding("fail", name, f"{says}: pushes are refused", f"df {places.state(name)}")
    return Finding("warn" if state["free_bytes"] < 4 * reserve else "ok", name, says)


def _mail(name: str, state: dict[str, Any]) -> Finding:
    oldest = state["oldest_unacked"]
    waits = f"{state['backlog']} unacked" + (f", the oldest for {ago(oldest)}" if oldest else "")
    unreachable = ", ".join(sorted(state["unreachable"]))
    if state["paused"]:
        return Finding("warn", name, f"{waits}; it is paused", f"backchannel resume {name}")
    if oldest is not None and time.time() - oldest > OLD_S and not state["receiving"]:
        return Finding("warn", name, f"{waits}; nobody takes them", f"backchannel recv --as {name}")
    if unreachable:
        return Finding("warn", name, f"{waits}; it cannot reach {unreachable}", f"backchannel up {unreachable}")
    return Finding("ok", name, waits)


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 30 else f"{count >> 20} MiB"
