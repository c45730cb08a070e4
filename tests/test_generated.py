"""What is made from the code is as the code is now, and works: completion in three shells, the manual pages."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest

from tools import generate, surface

SHARE = generate.ROOT / "share"
BASH = SHARE / "bash-completion/completions/backchannel"
ZSH = SHARE / "zsh/site-functions/_backchannel"
FISH = SHARE / "fish/vendor_completions.d/backchannel.fish"
PAGES = [SHARE / "man/man1/backchannel.1", SHARE / "man/man8/backchanneld.8"]
SHELL_S = 20.0

# What is typed, and all that may follow. The world below has three agents.
TYPED = [
    ("backchannel do", "doctor down"),
    ("backchannel --", "--help --version"),
    ("backchannel send ", "@all alice bob builder"),
    ("backchannel send b", "bob builder"),
    ("backchannel send alice,b", "alice,bob alice,builder"),
    ("backchannel send --priority urgent al", "alice"),
    ("backchannel send --wait ", "acked done stored taken"),
    ("backchannel send bob --dur", "--durability"),
    ("backchannel send bob ", ""),
    ("backchannel recv --ki", "--kind"),
    ("backchannel recv --as b", "bob builder"),
    ("backchannel up alice bu", "builder"),
    ("backchannel ask ", "alice bob builder"),
    ("backchannel open b", "bob builder"),
    ("backchannel serve --max 2 al", "alice"),
    ("backchannel recv --kind off", "offer"),
    ("backchannel status --to a", "alice"),
    ("backchannel config ", "show"),
]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """STATE with three agents, the directory of the sockets, and one that is being made."""
    for name in ("alice", "bob", "builder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "unfinished").mkdir()
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "BACKCHANNEL_STATE": str(tmp_path), "LANG": "C.UTF-8"}


def shell(name: str, *arguments: str, env: dict[str, str]) -> str:
    """What the shell printed. It is needed for the proof: where it is missing that is said, and nothing is claimed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: its file was compared, but could not be tried")
    done = subprocess.run(
        [path, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=SHELL_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_generated_file_is_as_the_code_is_now() -> None:
    assert generate.stale() == [], "run `nox -s docs` and commit what it wrote"


def test_no_file_is_left_over_from_an_earlier_generator() -> None:
    there = {str(path.relative_to(generate.ROOT)) for path in SHARE.rglob("*") if path.is_file()}
    assert there == {path for path in generate.files() if path.startswith("share/")}


def test_they_are_installed_with_the_package() -> None:
    installed = {str(Path(str(path.locate())).resolve()) for path in files("backchannel") or ()}
    for path in generate.files():
        if path.startswith("share/"):
            assert str(Path(sys.prefix, path).resolve()) in installed


def test_every_option_of_the_command_line_is_known() -> None:
    commands = {command.name: command for command in surface.client()}
    assert {option.flag for option in commands["send"].options} >= {"--wait", "--ttl", "--json"}
    assert commands["up"].words[0].value.names == surface.AGENT
    assert commands["send"].words[0].value.names == surface.TARGETS
    assert all(option.help for command in commands.values() for option in command.options)


# --- completion -------------------------------------------------------------------------------------------------------


def test_bash_can_read_its_completion(env: dict[str, str]) -> None:
    shell("bash", "-n", str(BASH), env=env)


@pytest.mark.parametrize(("typed", "expected"), TYPED)
def test_bash_completes(typed: str, expected: str, env: dict[str, str]) -> None:
    assert in_bash(typed.split(" "), env) == expected.split()


def test_bash_completes_what_readline_cut_at_a_sign(env: dict[str, str]) -> None:
    assert in_bash(["backchannel", "send", "--wait", "=", "t"], env) == ["taken"]
    assert in_bash(["backchannel", "send", "--wait", "="], env) == ["acked", "done", "stored", "taken"]
    assert in_bash(["backchannel", "send", "@", "a"], env) == ["all"]
    assert in_bash(["backchannel", "send", "--header", "K", "=", "V", "al"], env) == ["alice"]


def test_bash_finds_the_agents_where_the_commands_do(env: dict[str, str], tmp_path: Path) -> None:
    del env["BACKCHANNEL_STATE"]
    for place, found in ((".local/state/backchannel", "here"), ("xdg/backchannel", "there")):
        (tmp_path / place / found).mkdir(parents=True)
        (tmp_path / place / found / "key").touch()
    assert in_bash(["backchannel", "up", ""], env) == ["here"]
    assert in_bash(["backchannel", "up", ""], env | {"XDG_STATE_HOME": str(tmp_path / "xdg")}) == ["there"]
    assert in_bash(["backchannel", "up", ""], env | {"XDG_STATE_HOME": "relative"}) == ["here"]
    assert in_bash(["backchannel", "up", ""], env | {"BACKCHANNEL_STATE": str(tmp_path / "nowhere")}) == []


def in_bash(words: list[str], env: dict[str, str]) -> list[str]:
    script = """
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _backchannel
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    return sorted(shell("bash", "-uc", script, "-", str(BASH), *words, env=env).split())


def test_zsh_can_read_its_completion(env: dict[str, str]) -> None:
    shell("zsh", "-f", "-n", str(ZSH), env=env)


def test_zsh_loads_it_for_the_command(env: dict[str, str]) -> None:
    script = f"fpath=({ZSH.parent} $fpath); autoload -Uz compinit; compinit -u -D; print $_comps[backchannel]"
    assert shell("zsh", "-f", "-c", script, env=env).strip() == "_backchannel"


def test_fish_can_read_its_completion(env: dict[str, str]) -> None:
    shell("fish", "--no-config", "--no-execute", str(FISH), env=env)


def test_fish_completes(env: dict[str, str]) -> None:
    script = f'source {FISH}; for typed in $argv; echo ">$typed"; complete -C $typed; end'
    found: dict[str, list[str]] = {}
    for line in shell("fish", "--no-config", "-c", script, *(typed for typed, _ in TYPED), env=env).splitlines():
        if line.startswith(">"):
            offered = found.setdefault(line[1:], [])
        else:
            offered.append(line.partition("\t")[0])
    assert {typed: sorted(offers) for typed, offers in found.items()} == {t: e.split() for t, e in TYPED}


# --- manual pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_manual_page_has_no_errors(page: Path, env: dict[str, str]) -> None:
    if shutil.which("mandoc") is None and shutil.which("man"):
        shell("man", "--warnings", "-l", str(page), env=env | {"PAGER": "cat", "MANPAGER": "cat"})
    else:
        assert shell("mandoc", "-Tlint", "-W", "warning", str(page), env=env) == ""


@pytest.mark.parametrize("command", surface.client(), ids=lambda command: command.name)
def test_the_manual_page_tells_of_every_command(command: surface.Command) -> None:
    _, _, section = PAGES[0].read_text().partition(f"\n.Ss {command.name}\n")
    section = section.partition("\n.S")[0]
    for option in command.options:
        assert f".It Fl {option.flag[1:]}" in section
