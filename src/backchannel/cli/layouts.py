"""Where the units of a manager lie, and what stands in them: everything that `service` writes, worked out and not done.

The units are templates (`units/`), three files for all agents under a manager, enabled once for each agent.
"""

import grp
import os
import pwd
import re
import stat
import sys

from ..errors import LocalProtocolError, NotPermitted
from ..protocol.names import AgentName
from ..transport import start
from ..transport.paths import CONTROL, POLICY, SOCKET_PATH_BYTES_MAX, Places, check_private
from ..transport.policy import DIR, GROUP, read_policy
from ..transport.units import SYSTEM_FOLDER, Unit, user_folder
from .init import TextChange, read

SYSTEM_STATE = "/var/lib/backchannel"
USER_CHARS_MAX = 31  # of a user's name; systemd and useradd refuse longer ones
TEMPLATES = ("backchannel-inbox@.socket", "backchannel-control@.socket", "backchannel@.service")


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
