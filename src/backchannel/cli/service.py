"""`backchannel service install|uninstall|status NAME...`: agents as services of systemd.

systemd opens their sockets at boot and starts a daemon when somebody connects; one with nothing to do ends, and costs
nothing. The units are templates (`units/`), one for all agents under a manager, enabled once for each. What would
change is worked out first, whole, so that `--dry-run` is the same road, ended early.
"""

import argparse
import grp
import os
import pwd
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..client import calls, wire
from ..client.drive import run
from ..errors import BackchannelError, LocalProtocolError, NotPermitted, PeerAbsent, TimedOut
from ..protocol.names import AgentName
from ..transport import start
from ..transport.lock import served_in
from ..transport.paths import CONTROL, POLICY, SOCKET_PATH_BYTES_MAX, Places, check_private, register
from ..transport.policy import DIR, GROUP, read_policy
from ..transport.units import SYSTEM_FOLDER, Unit, environment, unit_of, user_folder
from .common import each, say
from .init import TextChange, read

SYSTEM_STATE = "/var/lib/backchannel"
USER_CHARS_MAX = 31  # of a user's name; systemd and useradd refuse longer ones
TEMPLATES = ("backchannel-inbox@.socket", "backchannel-control@.socket", "backchannel@.service")
SYSTEMCTL_S = 100.0  # longer than any of our units may take to stop; a start does not wait for the daemon
STOP_S = 5.0
_RUNNING = ("running", "degraded", "starting", "initializing", "maintenance")


def add_commands(command: Callable[..., Any]) -> None:
    """`command` is the parser's: name, function, text -> its own parser."""
    added = command("service", service, "Let systemd hold agents' sockets, and run a daemon only while it is needed.")
    added.add_argument("what", choices=("install", "uninstall", "status"))
    added.add_argument("names", nargs="+", metavar="NAME")
    added.add_argument("--system", action="store_true", help="of the machine, with a uid for each agent (root)")
    added.add_argument("--dry-run", action="store_true", help="only show what it would write and run")


def service(options: argparse.Namespace) -> int:
    names = [AgentName(name) for name in dict.fromkeys(options.names)]
    layout = System() if options.system else User(wire.Caller(None).places)
    act = {"install": _install, "uninstall": _uninstall, "status": _status}[options.what]
    if options.what != "status":
        layout.check()
    if options.what == "install":
        layout.check_names(names)
    if options.dry_run:
        _show(layout, names, options)
        return 0
    _require_manager(layout)
    return act(layout, names, options)


# --- where units go ---------------------------------------------------------------------------------------------------


class Layout:
    """Under which manager, and what our three files say there."""

    manager: str
    folder: str

    def unit(self, name: str) -> Unit:
        return Unit(name, self.folder, is_system=self.manager == "system")

    def systemctl(self, *words: str) -> list[str]:
        return self.unit("").systemctl(*words)

    def is_service(self, name: str) -> bool:
        return self.unit(name).is_enabled and self.unit(name).serves_from(self.places(name).state_dir)

    def places(self, name: str) -> Places:
        """Where this agent's things lie."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises what forbids us to change anything here."""
        raise NotImplementedError

    def check_names(self, names: list[AgentName]) -> None:
        """Raises what makes these names impossible as services."""
        raise NotImplementedError

    def values(self) -> dict[str, str]:
        """What stands in the templates' places."""
        raise NotImplementedError

    def changes(self, names: list[AgentName]) -> list[TextChange]:
        """What `install` comes to."""
        texts = rendered(self.manager, self.values())
        return [_change(f"{self.folder}/{file}", text) for file, text in texts.items()]

    def prepare(self, names: list[AgentName]) -> list[list[str]]:
        """The commands that have to run after the files are written, before the manager reads them."""
        return []

    def is_current(self) -> bool:
        """Whether the three files are those of this installation."""
        texts = rendered(self.manager, self.values())
        return all(read(f"{self.folder}/{file}") == text for file, text in texts.items())

    def enabled(self) -> list[str]:
        """The names of all agents that are services here."""
        try:
            links = os.listdir(f"{self.folder}/sockets.target.wants")
        except OSError:
            return []
        prefix, suffix = "backchannel-inbox@", ".socket"
        return [link[len(prefix) : -len(suffix)] for link in links if link.startswith(prefix) and link.endswith(suffix)]


class User(Layout):
    """Units of the user's own manager, for the mailboxes in STATE."""

    manager = "user"

    def __init__(self, places: Places) -> None:
        self.folder = user_folder()
        self._places = places

    def places(self, name: str) -> Places:
        return self._places

    def check(self) -> None:
        others = [n for n in self.enabled() if not self.unit(n).serves_from(self._places.state_dir)]
        if others:
            raise LocalProtocolError(
                f"the units in {self.folder} serve {', '.join(others)} from another STATE", code="usage",
                hint="a user has one STATE for services: uninstall those first, or unset BACKCHANNEL_STATE",
            )  # fmt: skip

    def check_names(self, names: list[AgentName]) -> None:
        _check_words(self._places.state_dir, self._places.socket_dir)
        if os.path.lexists(self._places.socket_dir):
            check_private(self._places.socket_dir)
        for name in names:
            _check_path(self._places, name)

    def values(self) -> dict[str, str]:
        state, sockets = self._places.state_dir, self._places.socket_dir
        return {"@BACKCHANNELD@": " ".join(start.DAEMON), "@STATE@": state, "@DIR@": sockets}


class System(Layout):
    """Units of the machine: every agent has a uid of its own (docs/a-uid-per-agent.md), and root says so."""

    manager = "system"
    folder = SYSTEM_FOLDER

    def __init__(self) -> None:
        self.policy = read_policy(POLICY)
        self.socket_dir = self.policy.socket_dir if self.policy else DIR

    def places(self, name: str) -> Places:
        return Places(self.socket_dir, f"{SYSTEM_STATE}/{name}")

    def check(self) -> None:
        if os.geteuid() != 0:
            raise NotPermitted("units of the system are root's to write", hint="use sudo, or leave out --system")

    def check_names(self, names: list[AgentName]) -> None:
        _check_words(self.socket_dir)
        for path in (sys.executable, os.path.dirname(__file__)):
            if closed := _closed_to_others(path):
                raise NotPermitted(
                    f"{path} cannot be used by other users ({closed} is closed to them)",
                    hint="install Backchannel for all: python3 -m venv /opt/backchannel",
                )
        if self.policy is not None and self.policy.gid != _gid(GROUP):
            raise LocalProtocolError(
                f"the group of {POLICY} is not {GROUP}", code="usage", hint=f'the units need group = "{GROUP}"'
            )
        for name in names:
            _check_path(self.places(name), name)
            if len(user_of(name)) > USER_CHARS_MAX:
                raise LocalProtocolError(
                    f"{name} is too long: its user would be {user_of(name)}", code="bad_name",
                    hint=f"use at most {USER_CHARS_MAX - len(user_of(''))} characters",
                )  # fmt: skip
            owner = self.policy.owners.get(name) if self.policy else None
            if owner is not None and owner != _uid(user_of(name)):
                raise LocalProtocolError(
                    f"{POLICY} gives {name} to uid {owner}, and its unit would run as {user_of(name)}", code="usage",
                    hint=f'write {name} = "{user_of(name)}" there',
                )  # fmt: skip

    def values(self) -> dict[str, str]:
        return {"@BACKCHANNELD@": " ".join(start.DAEMON), "@DIR@": self.socket_dir}

    def changes(self, names: list[AgentName]) -> list[TextChange]:
        found = super().changes(names)
        for name in names:
            user, home, sockets = user_of(name), f"{SYSTEM_STATE}/{name}", f"{self.socket_dir}/{name}"
            users = f'g {GROUP} -\nu {user} -:{GROUP} "Backchannel agent {name}" {home}\n'
            folders = f"d {self.socket_dir} 0755 root root\nd {sockets} 2750 {user} {GROUP}\n"
            found.append(_change(f"/etc/sysusers.d/backchannel-{name}.conf", users))
            found.append(_change(f"/etc/tmpfiles.d/backchannel-{name}.conf", folders))
        return [*found, self._policy_change(names)]

    def _policy_change(self, names: list[AgentName]) -> TextChange:
        """The policy with these names in it. Raises `LocalProtocolError` where only a person can add them."""
        before = read(POLICY)
        lines = [f'{name} = "{user_of(name)}"\n' for name in names if not self.policy or name not in self.policy.owners]
        if before is None:
            head = f'dir = "{self.socket_dir}"\ngroup = "{GROUP}"\nusers = []\n\n[agents]\n'
            return TextChange(POLICY, None, head + "".join(lines))
        if not lines:
            return TextChange(POLICY, before, before)
        head, table, rest = before.partition("[agents]\n")
        if not table:
            raise LocalProtocolError(
                f"{POLICY} has no line [agents]",
                code="usage",
                hint=f"add it, and below it: {'; '.join(line.strip() for line in lines)}",
            )
        return TextChange(POLICY, before, head + table + "".join(lines) + rest)

    def prepare(self, names: list[AgentName]) -> list[list[str]]:
        found = []
        for name in names:
            found.append(["systemd-sysusers", f"/etc/sysusers.d/backchannel-{name}.conf"])
            found.append(["systemd-tmpfiles", "--create", f"/etc/tmpfiles.d/backchannel-{name}.conf"])
        return found


def rendered(manager: str, values: dict[str, str]) -> dict[str, str]:
    """Our three files for this manager, by name."""
    folder = f"{os.path.dirname(os.path.dirname(__file__))}/units/{manager}"
    texts = {}
    for file in TEMPLATES:
        with open(f"{folder}/{file}") as template:
            text = template.read()
        for place, value in values.items():
            text = text.replace(place, value)
        texts[file] = text
    return texts


def user_of(name: str) -> str:
    """Whose uid an agent's daemon has in the system layout."""
    return f"bc-{name}"


# --- what is asked for ------------------------------------------------------------------------------------------------


def _install(layout: Layout, names: list[AgentName], options: argparse.Namespace) -> int:
    is_changed = not layout.is_current()
    needed = [change for change in layout.changes(names) if change.is_needed]
    if layout.manager == "user":
        for name in names:
            register(layout.places(name), name)
            start.record(layout.places(name), name)
    else:
        os.umask(0o022)  # what the system's agents have to read is written for all
    for change in needed:
        if change.path != POLICY:
            change.apply()
    for command in layout.prepare(names):
        _run(command)
    for change in needed:
        if change.path == POLICY:  # it names users that exist by now
            change.apply()
    if is_changed:
        _run(layout.systemctl("daemon-reload"))
    status = each(names, options, lambda name: _install_one(layout, name, is_changed), _line)
    if layout.manager == "user" and not options.json and not os.path.exists(f"/var/lib/systemd/linger/{_me()}"):
        print("note: your services end with your last session; to keep them: loginctl enable-linger")
    return status


def _install_one(layout: Layout, name: str, is_changed: bool) -> dict[str, Any]:
    unit, places = layout.unit(name), layout.places(name)
    was_enabled = unit.is_enabled
    if not was_enabled:
        _run(unit.systemctl("enable", *unit.sockets))
    is_down = os.path.exists(places.state(name, "down"))
    was_active = _is_active(unit)
    if is_changed or not was_active:
        # From here on a push asks the manager. A daemon that `up` started must be gone before its sockets are opened.
        stop_unit(unit)
        run(calls.stop(wire.Caller(None, places), AgentName(name), STOP_S))
        if not is_down:
            start_unit(unit)
    did = "installed" if not was_enabled else "updated" if is_changed else "is a service already"
    if is_down:
        did += f" (down: backchannel up {name})"
    elif was_enabled and not is_changed and not was_active:
        did = "started"
    return {"name": name, "manager": layout.manager, "did": did, "down": is_down}


def _uninstall(layout: Layout, names: list[AgentName], options: argparse.Namespace) -> int:
    def act(name: str) -> dict[str, Any]:
        unit = layout.unit(name)
        if not unit.is_enabled:
            return {"name": name, "manager": layout.manager, "did": "was no service"}
        for command in _ending(unit):
            _run(command)
        return {"name": name, "manager": layout.manager, "did": "uninstalled"}

    status = each(names, options, act, _line)
    gone = _leftover(layout, names, set(layout.enabled()))
    for path in gone:
        os.unlink(path)
    if gone:
        _run(layout.systemctl("daemon-reload"))
    return status


def _ending(unit: Unit) -> list[list[str]]:
    return [unit.systemctl("disable", *unit.sockets), _stopping(unit)]


def _leftover(layout: Layout, names: list[AgentName], enabled: set[str]) -> list[str]:
    """The files that nobody needs when only those are services that are `enabled`. Users and their mail stay."""
    paths = [] if enabled else [f"{layout.folder}/{file}" for file in TEMPLATES]
    if layout.manager == "system":
        paths += [f"/etc/tmpfiles.d/backchannel-{name}.conf" for name in names if name not in enabled]
    return [path for path in paths if os.path.exists(path)]


def _status(layout: Layout, names: list[AgentName], options: argparse.Namespace) -> int:
    def act(name: str) -> dict[str, Any]:
        unit = layout.unit(name)
        is_installed = os.path.exists(f"{layout.folder}/{TEMPLATES[-1]}")
        active = dict(zip((*unit.sockets, unit.service), _active(unit), strict=True))
        return {
            "name": name,
            "manager": layout.manager,
            "installed": is_installed,
            "stale": is_installed and not layout.is_current(),
            "enabled": layout.is_service(name),
            "sockets": [active[socket] for socket in unit.sockets],
            "service": active[unit.service],
        }

    return each(names, options, act, _status_line)


def _status_line(found: dict[str, Any]) -> str:
    if not found["enabled"]:
        return f"{found['name']}  is no service: backchannel service install {found['name']}{flag(found['manager'])}"
    sockets = "/".join(dict.fromkeys(found["sockets"]))
    stale = f"; stale: backchannel service install {found['name']}{flag(found['manager'])}" if found["stale"] else ""
    return f"{found['name']}  enabled, sockets {sockets}, daemon {found['service']}{stale}"


def _line(outcome: dict[str, Any]) -> str:
    return f"{outcome['name']}  {outcome['did']}"


def flag(manager: str) -> str:
    return " --system" if manager == "system" else ""


def _show(layout: Layout, names: list[AgentName], options: argparse.Namespace) -> None:
    """What it would write and run, and nothing of it done."""
    units = [layout.unit(name) for name in names]
    commands: list[list[str]] = []
    changes: list[TextChange] = []
    if options.what == "install":
        changes = [change for change in layout.changes(names) if change.is_needed]
        for change in changes:
            say({"would": "write", "path": change.path, "diff": change.diff()}, change.diff() + "\n", options)
        for name in names:
            if layout.manager == "user" and not layout.places(name).is_ours(name):
                say({"would": "make", "name": name}, f"would make the agent {name}", options)
        is_changed = not layout.is_current()
        commands = layout.prepare(names)
        if is_changed:
            commands.append(layout.systemctl("daemon-reload"))
        for unit in units:
            places = layout.places(unit.name)
            if unit.is_enabled and not is_changed and _would_be_active(layout, unit):
                continue
            if served_in(places.state(unit.name, "lock")) is not None:
                line = f"would end the daemon of {unit.name} that runs now"
                say({"would": "end", "name": unit.name}, line, options)
            if not unit.is_enabled:
                commands.append(unit.systemctl("enable", *unit.sockets))
            commands.append(_stopping(unit))
            if not os.path.exists(places.state(unit.name, "down")):
                commands += _starting(unit)
    elif options.what == "uninstall":
        commands = [command for unit in units if unit.is_enabled for command in _ending(unit)]
        gone = _leftover(layout, names, set(layout.enabled()) - set(names))
        commands += [["rm", path] for path in gone]
        if gone:
            commands.append(layout.systemctl("daemon-reload"))
    else:
        commands = [unit.systemctl("is-active", *_all(unit)) for unit in units]
    for command in commands:
        say({"would": "run", "command": command}, "would run: " + " ".join(command), options)
    if not commands and not changes and not options.json:
        print("nothing to change")


def _would_be_active(layout: Layout, unit: Unit) -> bool:
    """Whether the sockets are open, as the manager says; where there is none to ask, those of a service are."""
    return _manager_state(layout.unit("")) not in _RUNNING or _is_active(unit)


# --- for `up`, `down` and `doctor` ------------------------------------------------------------------------------------


def start_unit(unit: Unit) -> None:
    """Opens the agent's sockets, after whatever kept them from it. The daemon starts when somebody connects."""
    forgetting, starting = _starting(unit)
    _run(forgetting, may_fail=True)
    _run(starting)


def _starting(unit: Unit) -> list[list[str]]:
    return [unit.systemctl("reset-failed", *_all(unit)), unit.systemctl("start", *unit.sockets)]


def stop_unit(unit: Unit) -> None:
    """Closes the sockets, and ends the daemon. Whoever only ended it would see it come back with the next push."""
    _run(_stopping(unit))


def _stopping(unit: Unit) -> list[str]:
    return unit.systemctl("stop", *_all(unit))


class UnitFinding(NamedTuple):
    """What `doctor` says of an agent's units: verdict, subject, text, and the command that mends it."""

    verdict: str
    subject: str
    says: str
    mend: str = ""


def examine_units(places: Places) -> Iterator[UnitFinding]:
    """A line for each agent that is a service, and one if its manager is not there, or its units are old."""
    found = [unit for name in places.own() if (unit := unit_of(places, name)) is not None]
    for manager in dict.fromkeys(unit.manager for unit in found):
        layout = System() if manager == "system" else User(places)
        mine = [unit for unit in found if unit.manager == manager]
        state = _manager_state(mine[0])
        if state not in _RUNNING:
            bring_up = "systemctl status" if manager == "system" else f"loginctl enable-linger {_me()}"
            says = f"{len(mine)} agents are its services, and it does not run ({state})"
            yield UnitFinding("fail", f"systemd ({manager})", says, bring_up)
            continue
        if not layout.is_current():
            says = "the units are of another version or installation"
            mend = f"backchannel service install {' '.join(unit.name for unit in mine)}{flag(manager)}"
            yield UnitFinding("warn", f"systemd ({manager})", says, mend)
        for unit in mine:
            yield _examine(places, unit)


def _examine(places: Places, unit: Unit) -> UnitFinding:
    inbox, control, daemon = _active(unit)
    if "failed" in (inbox, control, daemon):
        return UnitFinding("fail", unit.service, "has failed; the next push starts it again", unit.journal)
    if os.path.exists(places.state(unit.name, "down")):
        return UnitFinding("ok", unit.service, "is down")
    if (inbox, control) != ("active", "active"):
        says = f"its sockets are {inbox} and {control}; the next push opens them"
        return UnitFinding("warn", unit.service, says, f"backchannel up {unit.name}")
    if daemon != "active" and served_in(places.state(unit.name, "lock")) is not None:
        says = "another daemon serves it, which the manager did not start"
        return UnitFinding("fail", unit.service, says, f"backchannel down {unit.name} && backchannel up {unit.name}")
    return UnitFinding("ok", unit.service, f"sockets are open, the daemon is {daemon}")


# --- asking the manager -----------------------------------------------------------------------------------------------


def _require_manager(layout: Layout) -> None:
    """Raises `PeerAbsent` if there is no systemd to ask."""
    state = _manager_state(layout.unit(""))
    if state not in _RUNNING:
        whose = "of the system" if layout.manager == "system" else f"of the user {_me()}"
        raise PeerAbsent(
            f"no systemd manager {whose} runs here ({state})", code="unreachable",
            hint="backchannel up NAME needs none",
        )  # fmt: skip


def _manager_state(unit: Unit) -> str:
    """systemd's word for it, or why there is none."""
    try:
        done = _ask(unit.systemctl("is-system-running"))
    except FileNotFoundError:
        return "there is no systemctl"
    return done.stdout.strip() or " ".join(done.stderr.split()) or "no answer"


def _is_active(unit: Unit) -> bool:
    return _active(unit)[:2] == ["active", "active"]


def _active(unit: Unit) -> list[str]:
    """What the manager says of the inbox, the control socket and the daemon: active, inactive, failed, ..."""
    words = _ask(unit.systemctl("is-active", *_all(unit))).stdout.split()
    return words if len(words) == 3 else ["unknown"] * 3


def _all(unit: Unit) -> list[str]:
    return [*unit.sockets, unit.service]


def _run(command: list[str], *, may_fail: bool = False) -> None:
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


# --- helpers ----------------------------------------------------------------------------------------------------------


def _change(path: str, text: str) -> TextChange:
    return TextChange(path, read(path), text)


def _check_words(*paths: str) -> None:
    """A unit has its own meaning for blanks, quotes, `%` and `$`: paths with those are refused, and not quoted in four
    different ways."""
    for path in (*paths, sys.executable):
        if not re.fullmatch(r"[\w/.+@:,=~-]+", path):
            raise LocalProtocolError(f"{path!r} cannot stand in a unit", code="usage", hint="use a plainer path")


def _check_path(places: Places, name: str) -> None:
    path = f"{places.sockets(name)}/{CONTROL}"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise LocalProtocolError(
            f"{path} is longer than the {SOCKET_PATH_BYTES_MAX} bytes that a socket of a service may have",
            code="usage", hint="set BACKCHANNEL_DIR to a shorter path",
        )  # fmt: skip


def _closed_to_others(path: str) -> str:
    """The first directory on the way there that other users may not enter, or ""."""
    path = os.path.abspath(path)
    for place in {path, os.path.realpath(path)}:
        parts = place.split("/")
        for count in range(2, len(parts) + 1):
            part = "/".join(parts[:count])
            if not stat.S_IMODE(os.stat(part).st_mode) & 0o001:
                return part
    return ""


def _uid(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _gid(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
