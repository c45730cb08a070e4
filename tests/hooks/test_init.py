"""`init` and `uninit` from outside: shown first, written when told to, the same a second time, and taken back whole."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backchannel.cli import mcpclients
from backchannel.testing import World, command

FILES = {"claude": ".claude/settings.local.json", "codex": ".codex/hooks.json", "gemini": ".gemini/settings.json"}
SERVERS = {"claude": ".mcp.json", "codex": ".codex/config.toml", "gemini": ".gemini/settings.json"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place = tmp_path / "My Shop"
    place.mkdir()
    return place


@pytest.fixture
def world() -> Iterator[World]:
    with World() as found:
        yield found


def run(world: World, project: Path, *words: str, code: int = 0, **env: str) -> str:
    done = subprocess.run(
        [command(), *words], cwd=project, env=world.env | {"HOME": str(project.parent)} | env, capture_output=True,
        text=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_three_programs_are_set_up_and_taken_back(world: World, project: Path) -> None:
    for what, file in FILES.items():
        shown = run(world, project, "init", what, "--dry-run")
        assert f"+++ {project / file}" in shown
        assert not (project / file).exists()
        assert "my-shop" not in world.paths.registered() or what != "claude"
        run(world, project, "init", what, "--yes")
        text = (project / file).read_text()
        assert command() in text  # the whole path: a hook has another PATH
        assert "nothing to change" in run(world, project, "init", what, "--yes")
    agents = [json.loads(line) for line in run(world, project, "agents", "--json").splitlines()]
    (shop,) = agents
    assert shop["name"] == "my-shop"
    assert {a["name"]: (a["wakes"], a["mid_turn"], a["evidence"]) for a in shop["adapters"]} == {
        "claude": (True, True, "turn"), "codex": (True, True, "turn"), "gemini": (False, True, "turn"),
    }  # fmt: skip
    config = run(world, project, "config", "show", "--as", "my-shop")
    assert "model" in config
    assert "3600" in config
    for what, file in FILES.items():
        run(world, project, "uninit", what, "--yes")
        assert not (project / file).exists()
        assert "nothing to change" in run(world, project, "uninit", what, "--yes")
    assert "adapters" not in os.listdir(world.paths.state("my-shop")) or not os.listdir(
        world.paths.state("my-shop", "adapters")
    )
    assert "my-shop" in world.paths.registered()  # it and its mail stay


def test_a_server_of_tools_is_set_up_and_taken_back(world: World, project: Path) -> None:
    (project / ".gemini").mkdir()
    (project / ".gemini/settings.json").write_text('{"theme": "dark"}\n')
    for client, file in SERVERS.items():
        run(world, project, "init", "mcp", client, "--yes")
        assert command() in (project / file).read_text()
        assert "nothing to change" in run(world, project, "init", "mcp", client, "--yes")
        run(world, project, "uninit", "mcp", client, "--yes")
    assert not (project / ".mcp.json").exists()
    assert not (project / ".codex/config.toml").exists()
    assert json.loads((project / ".gemini/settings.json").read_text()) == {"theme": "dark"}


def test_a_server_that_another_program_still_has_stays_declared(world: World, project: Path) -> None:
    run(world, project, "init", "mcp", "claude", "--yes")
    run(world, project, "init", "mcp", "codex", "--yes")
    run(world, project, "uninit", "mcp", "claude", "--yes")
    assert '"mcp"' in run(world, project, "agents", "--json")
    run(world, project, "uninit", "mcp", "codex", "--yes")
    assert '"mcp"' not in run(world, project, "agents", "--json")


def test_without_a_person_nothing_is_written(world: World, project: Path) -> None:
    assert "nobody can be asked" in run(world, project, "init", "claude", code=2)
    assert not (project / FILES["claude"]).exists()


def test_what_a_program_cannot_do_is_refused_and_not_left_out(world: World, project: Path) -> None:
    assert "cannot be woken" in run(world, project, "init", "gemini", "--wake", "--yes", code=2)
    assert not (project / FILES["gemini"]).exists()
    assert "cannot wake" in run(world, project, "init", "mcp", "claude", "--wake", "--yes", code=2)
    run(world, project, "init", "claude", "--wake", "--yes")


def test_words_that_do_not_fit_are_refused(world: World, project: Path) -> None:
    assert "mcp needs a CLIENT" in run(world, project, "init", "mcp", code=2)
    assert "takes no 'codex'" in run(world, project, "init", "claude", "codex", code=2)


def test_a_directory_that_is_not_there_is_not_made(world: World, project: Path) -> None:
    assert "nowhere is no directory" in run(world, project, "init", "claude", "--dir", "nowhere", "--yes", code=2)
    assert "nowhere is no directory" in run(world, project, "init", "mcp", "codex", "--dir", "nowhere", code=2)
    assert os.listdir(project) == []
    run(world, project, "uninit", "claude", "--dir", "nowhere", "--yes")  # one that is gone can be taken back


def test_a_link_to_settings_stays_a_link(world: World, project: Path) -> None:
    theirs = project.parent / "dotfiles.json"
    theirs.write_text('{"model": "opus"}\n')
    settings = project / FILES["claude"]
    settings.parent.mkdir()
    settings.symlink_to(theirs)
    run(world, project, "init", "claude", "--yes")
    assert settings.is_symlink()
    assert command() in theirs.read_text()
    run(world, project, "uninit", "claude", "--yes")
    assert settings.is_symlink()
    assert json.loads(theirs.read_text()) == {"model": "opus"}


def test_files_that_cannot_be_read_are_named(world: World, project: Path) -> None:
    settings = project / FILES["claude"]
    settings.parent.mkdir()
    settings.write_bytes(b'{"model": "\xff"}')
    assert f"{settings} is not UTF-8" in run(world, project, "init", "claude", "--yes", code=2)
    settings.unlink()
    run(world, project, "init", "claude", "--yes")
    config = Path(world.paths.state("my-shop", "config.toml"))
    config.write_text("lease_s = = 5\n")
    assert f"{config} is not TOML" in run(world, project, "init", "claude", "--yes", code=2)


def test_init_says_that_the_server_needs_the_extra(
    world: World, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcpclients, "own_command", command)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert "cannot run here yet" not in str(mcpclients.plan_init(world.paths, "claude", str(project), None).warnings)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "cannot run here yet" in str(mcpclients.plan_init(world.paths, "claude", str(project), None).warnings)


def test_doctor_looks_at_the_servers_of_tools_too(world: World, project: Path) -> None:
    for client in SERVERS:
        run(world, project, "init", "mcp", client, "--yes")
    said = run(world, project, "doctor")
    for client, file in SERVERS.items():
        assert f"ok    mcp {client} my-shop: {project / file} has the MCP server" in said
    moved = (project / SERVERS["codex"]).read_text().replace(command(), "/gone/backchannel")
    (project / SERVERS["codex"]).write_text(moved)
    (project / SERVERS["claude"]).write_text("[]")
    said = run(world, project, "doctor", code=1)
    assert "runs /gone/backchannel, which is gone  -> cd " in said
    assert "does not have the MCP server of my-shop  -> cd " in said
    (project / SERVERS["claude"]).unlink()
    for client in SERVERS:
        run(world, project, "uninit", "mcp", client, "--yes")
    assert "MCP server" not in run(world, project, "doctor")


@pytest.mark.parametrize("odd", [b"[]", b"{", b'"\xff"'])
def test_doctor_goes_on_over_settings_that_nobody_can_read(world: World, project: Path, odd: bytes) -> None:
    for what in FILES:
        run(world, project, "init", what, "--yes")
    home = project.parent
    (home / ".codex").mkdir()
    (home / ".codex/config.toml").write_text("features = 1\n")
    (home / ".claude").mkdir()
    (home / ".claude/settings.json").write_bytes(odd)
    (project / FILES["gemini"]).write_bytes(odd)
    said = run(world, project, "doctor", code=1)
    assert "warn  claude my-shop: " in said
    assert "warn  codex my-shop: some settings of codex have a form we do not know" in said
    assert "fail  gemini my-shop: " in said


def test_a_name_is_kept_from_one_init_to_the_next(world: World, project: Path) -> None:
    run(world, project, "init", "claude", "--agent", "till", "--yes")
    assert "nothing to change" in run(world, project, "init", "claude", "--yes")
    run(world, project, "init", "claude", "--agent", "counter", "--yes")
    assert "till" not in (project / FILES["claude"]).read_text()
    said = run(world, project, "doctor")
    assert "claude counter: " in said
    assert "claude till: " not in said


def test_an_agent_that_is_there_already_is_not_shared_in_silence(world: World, project: Path) -> None:
    world.up("my-shop")
    warning = "my-shop is there already, and its mail will be read here too"
    assert warning in run(world, project, "init", "mcp", "claude", "--dry-run")
    assert warning in run(world, project, "init", "claude", "--yes")
    assert warning not in run(world, project, "init", "claude", "--yes")
    assert warning not in run(world, project, "init", "codex", "--dry-run")
    assert warning not in run(world, project, "init", "gemini", "--dry-run", "--agent", "my-shop")


def test_two_directories_of_one_name_are_two_agents(world: World, project: Path) -> None:
    run(world, project, "init", "claude", "--yes")
    other = project.parent / "elsewhere" / "my-shop"
    other.mkdir(parents=True)
    assert f"my-shop is the agent of {project}" in run(world, other, "init", "codex", "--yes", code=2)
    assert f"my-shop is the agent of {project}" in run(world, other, "init", "mcp", "codex", "--yes", code=2)
    run(world, other, "init", "mcp", "codex", "--agent", "my-shop", "--yes")  # by name it may share the mailbox
    run(world, other, "init", "codex", "--agent", "our-shop", "--yes")


def test_doctor_says_what_is_wrong_with_each(world: World, project: Path) -> None:
    bin_ = project.parent / "bin"
    bin_.mkdir()
    for name, version in (("claude", "2.1.332 (Claude Code)"), ("codex", "codex-cli 0.12.0"), ("gemini", "0.61.0")):
        (bin_ / name).write_text(f"#!/bin/sh\necho '{version}'\n")
        (bin_ / name).chmod(0o755)
    path = f"{bin_}:{os.environ['PATH']}"
    for what in FILES:
        run(world, project, "init", what, "--yes", PATH=path)
    said = run(world, project, "doctor", PATH=path)
    assert "ok    claude my-shop: " in said
    assert "warn  codex my-shop: codex 0.12.0 is older than what was tried" in said
    assert f"warn  codex my-shop: Codex does not trust {project} yet" in said
    assert f"warn  gemini my-shop: Gemini CLI does not trust {project} yet" in said

    home = project.parent
    (home / ".codex").mkdir()
    (home / ".codex/config.toml").write_text(f'[projects."{project}"]\ntrust_level = "trusted"\n')
    (home / ".gemini").mkdir()
    (home / ".gemini/trustedFolders.json").write_text(json.dumps({str(project): "TRUST_FOLDER"}))
    settings = json.loads((project / FILES["claude"]).read_text())
    (project / FILES["claude"]).write_text(json.dumps(settings | {"disableAllHooks": True}))
    said = run(world, project, "doctor", PATH=path)
    assert "turns all hooks off (disableAllHooks)" in said
    assert "Codex does not trust the hooks of" in said
    assert "ok    gemini my-shop: " in said

    keys = [f"{project / FILES['codex']}:{event}:0:0" for event in "abcde"]
    with (home / ".codex/config.toml").open("a") as file:
        file.writelines(f'[hooks.state."{key}"]\ntrusted_hash = "sha256:1"\n' for key in keys)
    moved = (project / FILES["claude"]).read_text().replace(command(), "/gone/backchannel")
    (project / FILES["claude"]).write_text(moved)
    (project / FILES["gemini"]).unlink()
    said = run(world, project, "doctor", PATH=path, code=1)
    assert "runs /gone/backchannel, which is gone  -> cd " in said
    assert "ok    codex my-shop: " in said
    assert "fail  gemini my-shop: " in said
    assert "has 0 of its 5 hooks" in said
