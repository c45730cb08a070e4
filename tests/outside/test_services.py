"""Agents as services: what is written, what the manager is asked, and that everything else then goes through it.

The manager here is `systemctl.py`, which reads the units that were written and activates by sockets. What
systemd itself thinks of them is in test_units.py.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backchannel import Refused
from backchannel.cli import commands
from backchannel.transport.units import Unit

from ..world import World, eventually

PROGRAM = "from backchannel.cli.main import main; main()"
SOCKETS = ["backchannel-inbox@bob.socket", "backchannel-control@bob.socket"]
ALL = [*SOCKETS, "backchannel@bob.service"]


class Machine:
    """A world with a service manager, for as long as `has_manager`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.units = world.root / ".config/systemd/user"
        self.folder = world.root / "manager"
        self.folder.mkdir()
        bin_folder = world.root / "bin"
        bin_folder.mkdir()
        (bin_folder / "systemctl").symlink_to(Path(__file__).with_name("systemctl.py"))
        self.env = world.environment() | {"SYSTEMCTL_FOLDER": str(self.folder)}
        self.env["PATH"] = f"{bin_folder}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"

    def cli(self, *words: str, status: int = 0, **env: str) -> str:
        """What a command printed, on both streams."""
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self.env | env, timeout=50, check=False,
        )  # fmt: skip
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def json(self, *words: str, status: int = 0) -> Any:
        return json.loads(self.cli(*words, "--json", status=status))

    def asked(self) -> list[list[str]]:
        """What the manager was asked to do since the last look, without questions."""
        path = self.folder / "calls"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        words = [[word for word in call if not word.startswith("--")] for call in calls]
        return [found for found in words if not found[0].startswith("is-")]

    def journal(self) -> str:
        path = self.folder / "journal"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        for path in self.folder.glob("*.sockets"):
            self.cli_systemctl("stop", f"backchannel@{path.stem}.service")

    def cli_systemctl(self, *words: str) -> None:
        subprocess.run(["systemctl", *words], env=self.env, check=True, capture_output=True)


@pytest.fixture
def machine(world: World) -> Iterator[Machine]:
    found = Machine(world)
    yield found
    found.close()


def test_install_writes_units_and_opens_the_sockets(machine: Machine) -> None:
    assert machine.cli("service", "install", "bob").startswith("bob  installed\n")
    assert machine.asked() == [
        ["daemon-reload"], ["enable", *SOCKETS], ["stop", *ALL], ["reset-failed", *ALL], ["start", *SOCKETS],
    ]  # fmt: skip
    assert sorted(path.name for path in machine.units.iterdir() if path.is_file()) == sorted(
        ["backchannel-control@.socket", "backchannel-inbox@.socket", "backchannel@.service"]
    )
    for path in machine.units.iterdir():
        assert "@STATE@" not in (text := path.read_text() if path.is_file() else "")
        assert "@DIR@" not in text
    service = (machine.units / "backchannel@.service").read_text()
    assert f"ExecStart={sys.executable} -P -m backchannel.daemon %i --state {machine.world.state}" in service
    assert not machine.world.processes("bob"), "nothing runs before somebody connects"
    assert machine.world.push("bob")["stage"] == "stored"
    assert "is served" in machine.journal()


@pytest.mark.proof
def test_installing_again_changes_nothing_and_says_so(machine: Machine) -> None:
    machine.cli("service", "install", "bob")
    machine.world.push("bob")
    pid = machine.world.only_process("bob")
    machine.asked()
    assert machine.cli("service", "install", "bob").startswith("bob  is a service already\n")
    assert machine.asked() == []
    machine.cli("service", "install", "bob", "carol")
    assert machine.world.only_process("bob") == pid, "another agent beside it is none of its business"


@pytest.mark.proof
def test_install_ends_the_daemon_that_up_started_and_its_mail_stays(machine: Machine) -> None:
    machine.cli("up", "bob")
    machine.cli("send", "bob", "before")
    by_hand = machine.world.only_process("bob")
    machine.cli("service", "install", "bob")
    machine.cli("send", "bob", "after")
    assert machine.world.only_process("bob") != by_hand
    assert machine.world.texts("bob") == ["before", "after"]


def test_a_dry_run_shows_all_and_does_nothing_even_without_a_manager(machine: Machine) -> None:
    said = machine.cli("service", "install", "bob", "--dry-run", SYSTEMCTL_STATE="offline")
    assert "+RestrictAddressFamilies=AF_UNIX" in said
    assert "would make the agent bob\n" in said
    assert "would run: systemctl --user --no-ask-password enable backchannel-inbox@bob.socket" in said
    assert not machine.units.exists()
    assert not (machine.world.state / "bob").exists()
    assert machine.asked() == []
    machine.cli("service", "install", "bob")
    machine.asked()
    said = machine.cli("service", "uninstall", "bob", "--dry-run")
    assert "would run: systemctl --user --no-ask-password disable" in said
    assert f"would run: rm {machine.units}/backchannel@.service" in said
    assert machine.asked() == []


def test_what_a_dry_run_names_is_what_is_run_then_and_in_that_order(machine: Machine) -> None:
    def named(what: str) -> list[list[str]]:
        said = machine.cli("service", what, "bob", "--dry-run", "--json")
        steps = [json.loads(line) for line in said.splitlines()]
        commands = [step["command"] for step in steps if step["would"] == "run"]
        return [
            [word for word in command[1:] if not word.startswith("--")] for command in commands if "rm" not in command
        ]

    for what in ("install", "uninstall"):
        would = named(what)
        machine.cli("service", what, "bob")
        assert machine.asked() == would
        assert named(what) == [], "a second time there is nothing to do"


def test_without_a_manager_it_says_so_and_points_to_up(machine: Machine) -> None:
    for what in ("install", "uninstall", "status"):
        said = machine.cli("service", what, "bob", SYSTEMCTL_STATE="offline", status=5)
        assert "no systemd manager of the user" in said
        assert "(offline)" in said
        assert "backchannel up NAME" in said
    assert not machine.units.exists()
    assert not (machine.world.state / "bob").exists()


def test_without_systemctl_as_well(machine: Machine) -> None:
    said = machine.cli("service", "install", "bob", PATH="/nowhere", status=5)
    assert "there is no systemctl" in said


@pytest.mark.proof
def test_uninstall_leaves_the_agent_and_its_mail(machine: Machine) -> None:
    machine.cli("service", "install", "bob", "carol")
    machine.cli("send", "bob", "hello")
    assert machine.cli("service", "uninstall", "bob") == "bob  uninstalled\n"
    assert (machine.units / "backchannel@.service").exists(), "carol needs it"
    assert not machine.world.processes("bob")
    machine.asked()
    assert machine.world.agent("bob").receive(wait=0) is not None, "it starts as any agent"
    assert machine.asked() == []
    machine.cli("service", "uninstall", "carol")
    assert not [path for path in machine.units.iterdir() if path.is_file()]
    assert machine.cli("service", "uninstall", "carol") == "carol  was no service\n"


@pytest.mark.proof
def test_status_tells_what_is_installed_and_whether_it_is_current(machine: Machine) -> None:
    found = machine.json("service", "status", "bob")
    assert (found["installed"], found["enabled"], found["stale"]) == (False, False, False)
    machine.cli("service", "install", "bob")
    found = machine.json("service", "status", "bob")
    assert found == {
        "name": "bob", "manager": "user", "installed": True, "stale": False, "enabled": True,
        "sockets": ["active", "active"], "service": "inactive",
    }  # fmt: skip
    assert machine.cli("service", "status", "bob") == "bob  enabled, sockets active, daemon inactive\n"
    machine.world.push("bob")
    assert machine.json("service", "status", "bob")["service"] == "active"
    service = machine.units / "backchannel@.service"
    service.write_text(service.read_text().replace("WatchdogSec=30s", "WatchdogSec=3s"))
    assert machine.json("service", "status", "bob")["stale"]
    assert "stale: backchannel service install bob" in machine.cli("service", "status", "bob")
    assert machine.cli("service", "install", "bob").startswith("bob  updated\n")
    assert not machine.json("service", "status", "bob")["stale"]


# --- the other commands -----------------------------------------------------------------------------------------------


def test_down_closes_the_sockets_and_up_opens_them(machine: Machine) -> None:
    machine.cli("service", "install", "bob")
    machine.cli("send", "bob", "hello")
    machine.asked()
    assert machine.cli("down", "bob") == "bob  stopped\n"
    assert machine.asked() == [["stop", *ALL]]
    assert "is down" in machine.cli("send", "bob", "x", status=5)
    machine.cli_systemctl("start", *SOCKETS)  # as at the next boot
    assert "is down" in machine.cli("send", "bob", "x", status=5)
    machine.asked()
    assert machine.cli("up", "bob") == "bob  started\n"
    assert machine.asked() == [["reset-failed", *ALL], ["start", *SOCKETS]]
    assert machine.world.texts("bob") == ["hello"]


@pytest.mark.proof
def test_install_leaves_an_agent_down_that_a_person_stopped(machine: Machine) -> None:
    machine.cli("up", "bob")
    machine.cli("down", "bob")
    assert "bob  installed (down: backchannel up bob)" in machine.cli("service", "install", "bob")
    assert "is down" in machine.cli("send", "bob", "x", status=5)
    assert machine.cli("up", "bob") == "bob  started\n"


def test_a_push_asks_the_manager_to_open_sockets_that_are_closed(machine: Machine) -> None:
    machine.cli("service", "install", "bob")
    machine.cli_systemctl("stop", *ALL)
    machine.asked()
    machine.cli("send", "bob", "hello")
    assert ["start", *SOCKETS] in machine.asked()
    assert machine.world.texts("bob") == ["hello"]
    assert "is served" in machine.journal()
    assert not (machine.world.state / "bob" / "log").read_text(), "the command of `up` was not run"


@pytest.mark.proof
def test_what_the_manager_refuses_is_told_at_once(machine: Machine) -> None:
    machine.cli("service", "install", "bob")
    machine.cli_systemctl("stop", *ALL)
    said = machine.cli("send", "bob", "hello", status=5, SYSTEMCTL_STATE="offline")
    assert "the daemon of bob did not start: Failed to connect to bus" in said


@pytest.mark.proof
def test_up_restarts_nothing_that_runs(machine: Machine) -> None:
    machine.cli("service", "install", "bob")
    machine.world.push("bob")
    pid = machine.world.only_process("bob")
    assert machine.cli("up", "bob") == "bob  runs already\n"
    assert machine.world.only_process("bob") == pid


@pytest.mark.proof
def test_a_service_is_not_removed_before_it_is_uninstalled(machine: Machine) -> None:
    machine.cli("service", "install", "bob")
    said = machine.cli("remove", "bob", status=3)
    assert "backchannel service uninstall bob" in said
    machine.cli("service", "uninstall", "bob")
    assert machine.cli("remove", "bob") == "bob  removed\n"


def test_who_removes_a_service_of_the_system_is_told_the_command_that_ends_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.cli("up", "bob")
    for key in ("BACKCHANNEL_STATE", "BACKCHANNEL_DIR"):
        monkeypatch.setenv(key, machine.env[key])
    monkeypatch.setattr(commands, "unit_of", lambda places, name: Unit(name, "/etc/systemd/system", is_system=True))
    with pytest.raises(Refused, match="backchannel service uninstall bob --system"):
        commands.run_command(["remove", "bob"])


@pytest.mark.proof
def test_units_of_another_state_are_not_overwritten_and_not_asked(machine: Machine, tmp_path: Path) -> None:
    machine.cli("service", "install", "bob")
    machine.env |= {"BACKCHANNEL_STATE": str(tmp_path / "state"), "BACKCHANNEL_DIR": str(machine.world.root / "run2")}
    said = machine.cli("service", "install", "bob", status=2)
    assert "serve bob from another STATE" in said
    machine.asked()
    machine.cli("up", "bob")
    machine.cli("down", "bob")
    assert machine.asked() == []


def test_paths_that_a_unit_cannot_hold_are_refused(machine: Machine) -> None:
    said = machine.cli("service", "install", "bob", status=2, BACKCHANNEL_STATE=f"{machine.world.root}/a b")
    assert "cannot stand in a unit" in said
    said = machine.cli("service", "install", "bob", status=2, BACKCHANNEL_DIR=f"{machine.world.root}/{'x' * 100}")
    assert "107 bytes" in said


def test_the_system_is_roots(machine: Machine, other_uid: list[str]) -> None:
    done = subprocess.run(
        [*other_uid, sys.executable, "-P", "-c", PROGRAM, "service", "install", "bob", "--system", "--dry-run"],
        env=machine.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 7
    assert "root's" in done.stderr


@pytest.mark.proof
def test_doctor_tells_of_services(machine: Machine) -> None:
    machine.cli("service", "install", "bob")

    def lines(**env: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, "doctor"],
            env=machine.env | env, capture_output=True, text=True, check=False, timeout=50,
        )  # fmt: skip
        return done.stdout

    assert "ok    backchannel@bob.service: sockets are open, the daemon is inactive\n" in lines()
    machine.cli("agents")
    machine.cli("metrics")
    assert not machine.world.processes("bob"), "to look wakes nobody"
    assert "fail  systemd (user): 1 agents are its services, and it does not run (offline)" in lines(
        SYSTEMCTL_STATE="offline"
    )
    machine.cli_systemctl("stop", *ALL)
    assert "warn  backchannel@bob.service: its sockets are inactive and inactive" in lines()
    service = machine.units / "backchannel@.service"
    service.write_text(service.read_text() + "# changed\n")
    assert "warn  systemd (user): the units are of another version or installation" in lines()
    eventually(lambda: not machine.world.processes("bob"))
