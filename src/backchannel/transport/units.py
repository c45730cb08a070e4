"""Whether an agent is a service, and how its service manager is asked.

systemd's own word counts: the link that `systemctl enable` made for the agent's inbox, beside a unit that serves from
our STATE. The files are written by `backchannel service`; here nothing is written and nothing is run.
"""

import os

from .paths import Places

SYSTEM_FOLDER = "/etc/systemd/system"
_STATE_KEY = "State="  # in the section [X-Backchannel], which systemd leaves alone


class Unit:
    """One agent's units: two sockets, and the service that they start. `folder` is where their files lie."""

    __slots__ = ("folder", "is_system", "name")

    def __init__(self, name: str, folder: str, *, is_system: bool) -> None:
        self.name = name
        self.folder = folder
        self.is_system = is_system

    @property
    def sockets(self) -> list[str]:
        return [f"backchannel-inbox@{self.name}.socket", f"backchannel-control@{self.name}.socket"]

    @property
    def service(self) -> str:
        return f"backchannel@{self.name}.service"

    @property
    def manager(self) -> str:
        return "system" if self.is_system else "user"

    def systemctl(self, *words: str) -> list[str]:
        """The command that asks the manager."""
        return ["systemctl", f"--{self.manager}", "--no-ask-password", *words]

    @property
    def journal(self) -> str:
        """The command that shows what the daemon said, for a person to type."""
        return f"journalctl {'-u' if self.is_system else '--user -u'} {self.service}"

    @property
    def is_enabled(self) -> bool:
        return os.path.lexists(f"{self.folder}/sockets.target.wants/{self.sockets[0]}")

    def serves_from(self, state_dir: str) -> bool:
        """Whether these units are about the mailboxes in this STATE."""
        try:
            with open(f"{self.folder}/backchannel@.service") as file:
                states = [line[len(_STATE_KEY) :].strip() for line in file if line.startswith(_STATE_KEY)]
        except OSError:
            return False
        return state_dir in (state.replace("%i", self.name) for state in states)


def unit_of(places: Places, name: str) -> Unit | None:
    """The agent's units, if it is a service."""
    for folder, is_system in ((user_folder(), False), (SYSTEM_FOLDER, True)):
        unit = Unit(name, folder, is_system=is_system)
        if unit.is_enabled and unit.serves_from(places.state_dir):
            return unit
    return None


def user_folder() -> str:
    """Where systemd looks for the units that a user wrote."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (base if base.startswith("/") else os.path.expanduser("~/.config")) + "/systemd/user"


def environment() -> dict[str, str]:
    """What `systemctl` needs to find its manager, also from a program with a bare environment."""
    env = dict(os.environ)
    env.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")
    return env
