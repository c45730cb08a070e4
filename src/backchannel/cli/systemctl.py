"""systemd, asked through `systemctl`: how a unit is, and to start and stop it."""

import os
import pwd
import subprocess

from ..errors import BackchannelError, PeerAbsent, TimedOut
from ..transport.units import Unit, environment

SYSTEMCTL_S = 100.0  # longer than any of our units may take to stop; a start does not wait for the daemon
RUNNING = ("running", "degraded", "starting", "initializing", "maintenance")  # of a manager, in its own words


def start_unit(unit: Unit) -> None:
    """Opens the agent's sockets, after whatever kept them from it. The daemon starts when somebody connects."""
    forgetting, opening = starting(unit)
    do(forgetting, may_fail=True)
    do(opening)


def starting(unit: Unit) -> list[list[str]]:
    """The commands of it: the first may fail."""
    return [unit.systemctl("reset-failed", *units_of(unit)), unit.systemctl("start", *unit.sockets)]


def stop_unit(unit: Unit) -> None:
    """Closes the sockets, and ends the daemon. Whoever only ended it would see it come back with the next push."""
    do(stopping(unit))


def stopping(unit: Unit) -> list[str]:
    return unit.systemctl("stop", *units_of(unit))


def require_manager(unit: Unit) -> None:
    """Raises `PeerAbsent` if there is no systemd to ask."""
    state = state_of_manager(unit)
    if state not in RUNNING:
        whose = "of the system" if unit.is_system else f"of the user {user_name()}"
        raise PeerAbsent(
            f"no systemd manager {whose} runs here ({state})", code="unreachable",
            hint="backchannel up NAME needs none",
        )  # fmt: skip


def state_of_manager(unit: Unit) -> str:
    """systemd's word for it, or why there is none."""
    try:
        done = _ask(unit.systemctl("is-system-running"))
    except FileNotFoundError:
        return "there is no systemctl"
    return done.stdout.strip() or " ".join(done.stderr.split()) or "no answer"


def is_active(unit: Unit) -> bool:
    return active_states(unit)[:2] == ["active", "active"]


def active_states(unit: Unit) -> list[str]:
    """What the manager says of the inbox, the control socket and the daemon: active, inactive, failed, ..."""
    words = _ask(unit.systemctl("is-active", *units_of(unit))).stdout.split()
    return words if len(words) == 3 else ["unknown"] * 3


def units_of(unit: Unit) -> list[str]:
    return [*unit.sockets, unit.service]


def do(command: list[str], *, may_fail: bool = False) -> None:
    """Runs a command. Raises `BackchannelError` with its own words if it fails."""
    try:
        done = _ask(command)
    except OSError as error:
        raise BackchannelError(f"{command[0]} cannot be run ({error.strerror})", code="os_error") from None
    if done.returncode and not may_fail:
        why = " ".join((done.stderr or done.stdout).split()) or f"exit status {done.returncode}"
        raise BackchannelError(f"{' '.join(command)}: {why}", code="service", hint="systemctl status says more")


def _ask(command: list[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SYSTEMCTL_S, check=False,
            env=environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TimedOut(
            f"{' '.join(command)} did not end within {SYSTEMCTL_S:g} s",
            hint="systemctl list-jobs shows what it waits for",
        ) from None


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
