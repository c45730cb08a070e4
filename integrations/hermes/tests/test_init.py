"""`backchannel init hermes`: what it shows is what it writes, the second time there is nothing to do, and all of it can
be taken back. With the real hermes command, and a home that nobody else uses."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backchannel.testing import World, command

CONFIG = "# mine\nmodel: {default: x}\nplugins: {enabled: [desk]}\n"


@pytest.fixture
def own() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A profile `coder` as a person has it."""
    home = tmp_path / ".hermes" / "profiles" / "coder"
    home.mkdir(parents=True)
    (home / "config.yaml").write_text(CONFIG)
    return home


def run(world: World, hermes: str, tmp_path: Path, *args: str, **more: str) -> "subprocess.CompletedProcess[str]":
    env = {**world.env, "HOME": str(tmp_path), **more}
    env.pop("HERMES_HOME", None)
    words = [*args, "--hermes", hermes] if args[0] != "doctor" else [*args]
    return subprocess.run(
        [command(), *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_is_shown_is_what_is_written_and_it_can_be_taken_back(
    own: World, hermes: str, home: Path, tmp_path: Path
) -> None:
    shown = run(own, hermes, tmp_path, "init", "hermes", "--profile", "coder", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert (home / "config.yaml").read_text() == CONFIG
    assert not (home / "plugins").exists()
    assert own.paths.registered() == []

    written = run(own, hermes, tmp_path, "init", "hermes", "--profile", "coder", "--yes")
    assert written.stdout.startswith(shown.stdout), written.stderr
    assert "+        agent: coder" in shown.stdout or "+      agent: coder" in shown.stdout
    assert f"{hermes} -p coder gateway restart" in written.stdout
    config = (home / "config.yaml").read_text()
    assert "backchannel" in config
    assert "desk" in config
    with open(own.paths.state("coder", "config.toml")) as file:
        assert file.read() == 'driven_by = "model"\n'
    assert '"driven_by","value":"model"' in own.cli("config", "show", "--json", agent="coder").stdout
    assert json.loads((home / "plugins" / "backchannel" / "installed.json").read_text())["hermes"] == hermes

    again = run(own, hermes, tmp_path, "init", "hermes", "--profile", "coder", "--yes")
    assert again.stdout.startswith("nothing to change"), again.stdout
    healthy = run(own, hermes, tmp_path, "doctor")
    assert "hermes coder: is the agent coder" in healthy.stdout

    back = run(own, hermes, tmp_path, "uninit", "hermes", "--profile", "coder", "--yes")
    assert back.returncode == 0, back.stderr
    assert (home / "config.yaml").read_text() == CONFIG
    assert not (home / "plugins" / "backchannel").exists()
    assert own.paths.registered() == ["coder"]  # the agent and its mail stay


def test_what_was_changed_since_stays_when_it_is_taken_back(
    own: World, hermes: str, home: Path, tmp_path: Path
) -> None:
    run(own, hermes, tmp_path, "init", "hermes", "--profile", "coder", "--yes")
    config = home / "config.yaml"
    config.write_text(config.read_text().replace("default: x", "default: y"))
    run(own, hermes, tmp_path, "uninit", "hermes", "--profile", "coder", "--yes")
    left = config.read_text()
    assert "default: y" in left
    assert "platforms" not in left or "backchannel" not in left.split("platforms")[1]


def test_nobody_there_to_ask_is_no_yes(own: World, hermes: str, home: Path, tmp_path: Path) -> None:
    asked = run(own, hermes, tmp_path, "init", "hermes", "--profile", "coder")
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    assert (home / "config.yaml").read_text() == CONFIG


def test_no_such_profile_and_no_hermes(own: World, hermes: str, tmp_path: Path) -> None:
    unknown = run(own, hermes, tmp_path, "init", "hermes", "--profile", "nobody", "--yes")
    assert (unknown.returncode, "profile create nobody" in unknown.stderr) == (5, True)
    missing = run(own, "/nowhere/hermes", tmp_path, "init", "hermes", "--yes")
    assert missing.returncode == 5


def test_a_unit_is_told_the_places_that_this_shell_chose(own: World, hermes: str, home: Path, tmp_path: Path) -> None:
    units = tmp_path / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "hermes-gateway-coder.service").write_text("[Service]\n")
    run(own, hermes, tmp_path, "init", "hermes", "--profile", "coder", "--yes")
    drop_in = units / "hermes-gateway-coder.service.d" / "backchannel.conf"
    assert f'"BACKCHANNEL_STATE={own.paths.state_dir}"' in drop_in.read_text()
    run(own, hermes, tmp_path, "uninit", "hermes", "--profile", "coder", "--yes")
    assert not drop_in.exists()


def test_doctor_finds_a_profile_that_was_switched_off(own: World, hermes: str, home: Path, tmp_path: Path) -> None:
    run(own, hermes, tmp_path, "init", "hermes", "--profile", "coder", "--yes")
    env = {**own.env, "HOME": str(tmp_path)}
    off = ["-p", "coder", "config", "set", "platforms.backchannel.enabled", "false"]
    subprocess.run([hermes, *off], env=env, check=True, capture_output=True)
    ill = run(own, hermes, tmp_path, "doctor")
    assert ill.returncode == 1
    assert "its config.yaml does not enable the plugin" in ill.stdout
    assert "backchannel init hermes --profile coder" in ill.stdout


def test_the_profile_needs_no_package_in_hermes_own_environment(
    own: World, hermes: str, home: Path, tmp_path: Path
) -> None:
    """Nothing of ours is installed there, msgspec neither; and the plugin is found, with its client beside it."""
    python = os.path.join(os.path.dirname(os.path.realpath(hermes)), "python")
    have = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('msgspec', 'backchannel'))))"
    assert subprocess.run([python, "-P", "-c", have], check=False).returncode == 0
    run(own, hermes, tmp_path, "init", "hermes", "--profile", "coder", "--yes")
    own.stop("coder")  # Hermes cannot run a daemon: it starts the one that `init` recorded
    use = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import backchannel.client\nfrom backchannel import Agent\n"
        "with Agent('coder') as me: print(me.agents()[0].name)\n"
        "assert 'msgspec' not in sys.modules"
    )
    client = str(home / "plugins" / "backchannel" / "client")
    used = subprocess.run(
        [python, "-P", "-c", use, client], env=own.env, capture_output=True, text=True, timeout=30, check=False
    )
    assert used.stdout == "coder\n", used.stderr
