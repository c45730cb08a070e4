"""The units as systemd itself judges them: `systemd-analyze` needs no running manager."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backchannel.cli.layouts import TEMPLATES, rendered
from backchannel.transport.start import DAEMON

SCORE_MAX = {"system": 10, "user": 35}  # exposure in tenths: 1.0 and 3.5
# What is so under every user's manager, and may not stand in his units (systemd would not start them). Without these
# lines the score is that of a service which root runs.
TRUE_OF_USERS = "[Service]\nUser=1000\nCapabilityBoundingSet=\n"
VALUES = {"@BACKCHANNELD@": " ".join(DAEMON), "@STATE@": "/srv/state", "@DIR@": "/run/backchannel"}

Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """The units of one manager, in a directory of their own."""

    def write(manager: str) -> Path:
        for file, text in rendered(manager, VALUES).items():
            (tmp_path / file).write_text(text)
        return tmp_path

    return write


def analyze(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not here")
    env = os.environ | {"XDG_RUNTIME_DIR": str(folder), "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    return subprocess.run(
        [program, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=50, check=False
    )


def verify(folder: Path, manager: str) -> "subprocess.CompletedProcess[str]":
    return analyze(
        folder, f"--{manager}", "verify", "--man=no", "--recursive-errors=yes", *(f"./{t}" for t in TEMPLATES)
    )


@pytest.mark.parametrize("manager", ["system", "user"])
def test_systemd_finds_nothing_wrong_with_the_units(written: Written, manager: str) -> None:
    folder = written(manager)
    done = verify(folder, manager)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    service = folder / "backchannel@.service"
    service.write_text(service.read_text().replace("WatchdogSec=", "WatchDogSec="))
    done = verify(folder, manager)
    assert done.returncode, "what it would say of a wrong one"
    assert "WatchDogSec" in done.stderr


@pytest.mark.parametrize("manager", ["system", "user"])
def test_the_exposure_is_within_what_we_promise(written: Written, manager: str) -> None:
    folder = written(manager)
    service = folder / "backchannel@.service"
    if manager == "user":
        service.write_text(service.read_text() + TRUE_OF_USERS)
    words = ["security", "--offline=true", f"--threshold={SCORE_MAX[manager]}", "./backchannel@.service"]
    done = analyze(folder, *words)
    assert done.returncode == 0, done.stdout
    service.write_text(
        re.sub(r"^(Restrict|Protect|Private|System|NoNew|Capab).*\n", "", service.read_text(), flags=re.M)
    )
    assert analyze(folder, *words).returncode, "what it would say without the hardening"


@pytest.mark.parametrize("manager", ["system", "user"])
def test_a_unit_has_no_place_that_nobody_filled(manager: str) -> None:
    for file, text in rendered(manager, VALUES).items():
        assert not re.search(r"@[A-Z]+@", text), file


@pytest.mark.parametrize("manager", ["system", "user"])
def test_the_sockets_fit_the_service(manager: str) -> None:
    texts = rendered(manager, VALUES)
    for which, mode in (("inbox", "0660" if manager == "system" else "0600"), ("control", "0600")):
        text = texts[f"backchannel-{which}@.socket"]
        for line in (
            f"ListenStream=/run/backchannel/%i/{which}.sock",
            f"FileDescriptorName={which}",
            f"SocketMode={mode}",
            "Service=backchannel@%i.service",
        ):
            assert f"\n{line}\n" in text
        assert "DirectoryMode=" in text
    service = texts["backchannel@.service"]
    for line in ("Type=notify", "RestrictAddressFamilies=AF_UNIX", "PrivateNetwork=yes", "Restart=on-failure"):
        assert f"\n{line}\n" in service
    assert re.search(r"^RestartPreventExitStatus=.*\b75\b", service, re.MULTILINE)
    assert "\nPrivateUsers=" not in service, "every other agent would look like uid 65534"


def test_a_users_unit_drops_no_capability_that_his_manager_does_not_have() -> None:
    """systemd would refuse to start it (218/CAPABILITIES)."""
    service = rendered("user", VALUES)["backchannel@.service"]
    dropping = ("CapabilityBoundingSet", "PrivateDevices", "ProtectClock", "ProtectKernelModules", "ProtectKernelLogs")
    assert not re.search(rf"^({'|'.join(dropping)})=", service, re.MULTILINE)


def test_a_start_that_failed_for_good_is_not_repeated() -> None:
    """Each of the daemon's exit statuses is either worth a restart, or in the units' list."""
    from tools.facts import DAEMON_EXIT_STATUS

    restarts = {0, 1, 3, 69, 74}  # 0 is no failure, 3 is --remove's, 69 cannot happen with inherited sockets
    for manager in ("system", "user"):
        (listed,) = re.findall(
            r"^RestartPreventExitStatus=(.*)$", rendered(manager, VALUES)["backchannel@.service"], re.M
        )
        assert {int(word) for word in listed.split()} == {status for status, _ in DAEMON_EXIT_STATUS} - restarts
