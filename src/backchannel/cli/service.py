"""`backchannel service install|uninstall|status NAME...`: agents as services of systemd.

systemd opens their sockets at boot and starts a daemon when somebody connects; one with nothing to do ends, and costs
nothing. The units are templates (`units/`), one for all agents under a manager, enabled once for each. What would
change is worked out first, whole, so that `--dry-run` is the same road, ended early.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..client import calls, wire
from ..client.drive import run
from ..protocol.names import AgentName
from ..transport import start
from ..transport.lock import served_in
from ..transport.paths import POLICY, Places, register
from ..transport.units import Unit, unit_of
from . import systemctl
from .common import each, say
from .init import TextChange
from .layouts import TEMPLATES, Layout, System, User

STOP_S = 5.0


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
    systemctl.require_manager(layout.unit(""))
    return act(layout, names, options)


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
        systemctl.do(command)
    for change in needed:
        if change.path == POLICY:  # it names users that exist by now
            change.apply()
    if is_changed:
        systemctl.do(layout.systemctl("daemon-reload"))
    status = each(names, options, lambda name: _install_one(layout, name, is_changed), _line)
    lingers = os.path.exists(f"/var/lib/systemd/linger/{systemctl.user_name()}")
    if layout.manager == "user" and not options.json and not lingers:
        print("note: your services end with your last session; to keep them: loginctl enable-linger")
    return status


def _install_one(layout: Layout, name: str, is_changed: bool) -> dict[str, Any]:
    unit, places = layout.unit(name), layout.places(name)
    was_enabled = unit.is_enabled
    if not was_enabled:
        systemctl.do(unit.systemctl("enable", *unit.sockets))
    is_down = os.path.exists(places.state(name, "down"))
    was_active = systemctl.is_active(unit)
    if is_changed or not was_active:
        # From here on a push asks the manager. A daemon that `up` started must be gone before its sockets are opened.
        systemctl.stop_unit(unit)
        run(calls.stop(wire.Caller(None, places), AgentName(name), STOP_S))
        if not is_down:
            systemctl.start_unit(unit)
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
            systemctl.do(command)
        return {"name": name, "manager": layout.manager, "did": "uninstalled"}

    status = each(names, options, act, _line)
    gone = _leftover(layout, names, set(layout.enabled()))
    for path in gone:
        os.unlink(path)
    if gone:
        systemctl.do(layout.systemctl("daemon-reload"))
    return status


def _ending(unit: Unit) -> list[list[str]]:
    return [unit.systemctl("disable", *unit.sockets), systemctl.stopping(unit)]


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
        active = dict(zip((*unit.sockets, unit.service), systemctl.active_states(unit), strict=True))
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
            commands.append(systemctl.stopping(unit))
            if not os.path.exists(places.state(unit.name, "down")):
                commands += systemctl.starting(unit)
    elif options.what == "uninstall":
        commands = [command for unit in units if unit.is_enabled for command in _ending(unit)]
        gone = _leftover(layout, names, set(layout.enabled()) - set(names))
        commands += [["rm", path] for path in gone]
        if gone:
            commands.append(layout.systemctl("daemon-reload"))
    else:
        commands = [unit.systemctl("is-active", *systemctl.units_of(unit)) for unit in units]
    for command in commands:
        say({"would": "run", "command": command}, "would run: " + " ".join(command), options)
    if not commands and not changes and not options.json:
        print("nothing to change")


def _would_be_active(layout: Layout, unit: Unit) -> bool:
    """Whether the sockets are open, as the manager says; where there is none to ask, those of a service are."""
    return systemctl.state_of_manager(layout.unit("")) not in systemctl.RUNNING or systemctl.is_active(unit)


# --- for `doctor` -----------------------------------------------------------------------------------------------------


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
        state = systemctl.state_of_manager(mine[0])
        if state not in systemctl.RUNNING:
            bring_up = "systemctl status" if manager == "system" else f"loginctl enable-linger {systemctl.user_name()}"
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
    inbox, control, daemon = systemctl.active_states(unit)
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
