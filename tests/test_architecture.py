"""What must not grow together: the rings, the fast path, and the two front ends."""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backchannel.client import aio, aiosessions, blocking, sessions

ROOT = Path(__file__).parent.parent
# What costs a command more than its own work. `socket` is `_socket` there, `typing` a comment.
HEAVY = (
    "asyncio",
    "typing",
    "dataclasses",
    "logging",
    "json",
    "re",
    "msgspec",
    "socket",
    "argparse",
    "enum",
    "threading",
)


def imported_by(statement: str) -> set[str]:
    """What a fresh interpreter has imported after the statement. Without `site`, whose imports are not ours."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    return set(done.stdout.split())


def test_the_contracts_between_the_rings_hold() -> None:
    pytest.importorskip("importlinter")
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("heavy", HEAVY)
def test_the_fast_path_imports_nothing_heavy(heavy: str) -> None:
    loaded = fast_path()
    assert "backchannel.client.drive" in loaded
    assert heavy not in loaded


def fast_path(cache: list[set[str]] = []) -> set[str]:  # noqa: B006 - one interpreter for all of them
    if not cache:
        cache.append(imported_by("import backchannel.client.calls, backchannel.client.drive"))
    return cache[0]


def test_a_hook_with_nothing_to_say_imports_less_still() -> None:
    loaded = imported_by("import backchannel.hooks.engine")
    assert not loaded.intersection(HEAVY)
    ours = {name for name in loaded if name.startswith("backchannel.") and name.count(".") > 1}
    assert ours == {
        "backchannel.hooks.dialects", "backchannel.hooks.engine", "backchannel.hooks.windows",
        "backchannel.protocol.codec", "backchannel.protocol.names",
        "backchannel.transport.dial", "backchannel.transport.paths",
    }  # fmt: skip


# What takes memory in every daemon and serves none, or only those with settings, a policy or a wish of their own.
NOT_IN_A_DAEMON = (
    "_hashlib",
    "_ssl",
    "shutil",
    "importlib.resources",
    "ctypes",
    "dataclasses",
    "logging",
    "argparse",
    "json",
    "tomllib",
    "random",
    "subprocess",
    "backchannel.daemon.stopped",
)


@pytest.mark.parametrize("heavy", NOT_IN_A_DAEMON)
def test_a_daemon_imports_nothing_heavy(heavy: str) -> None:
    loaded = a_daemon()
    assert "backchannel.daemon.server" in loaded
    assert heavy not in loaded


def a_daemon(cache: list[set[str]] = []) -> set[str]:  # noqa: B006 - one interpreter for all of them
    if not cache:
        start = "run.parse(['bob', '--dir', '/d', '--state', '/s']); run.load(['/nowhere/config.toml'])"
        cache.append(imported_by(f"from backchannel.daemon import run; {start}"))
    return cache[0]


def test_importing_the_package_imports_nothing_of_it() -> None:
    loaded = imported_by("import backchannel")
    assert {name for name in loaded if name.startswith("backchannel")} == {"backchannel"}


def test_every_public_name_is_there_and_is_what_it_says() -> None:
    import backchannel

    for name in backchannel.__all__:
        assert getattr(backchannel, name) is not None
    with pytest.raises(AttributeError):
        backchannel.no_such_name  # noqa: B018


PAIRS = [
    (blocking.Agent, aio.AsyncAgent),
    (blocking.Receipt, aio.AsyncReceipt),
    (blocking.Delivery, aio.AsyncDelivery),
    (sessions.Request, aiosessions.AsyncRequest),
    (sessions.Session, aiosessions.AsyncSession),
]


def public(kind: type[Any]) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("blocks", "awaits"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_front_ends_have_the_same_names_and_parameters(blocks: type[Any], awaits: type[Any]) -> None:
    assert set(public(blocks)) == set(public(awaits))
    for name, member in public(blocks).items():
        if inspect.isfunction(member):
            assert parameters(member) == parameters(public(awaits)[name]), name


@pytest.mark.parametrize(("blocks", "awaits"), PAIRS, ids=lambda kind: kind.__name__)
def test_what_may_wait_is_awaited_in_one_front_end_and_blocks_in_the_other(
    blocks: type[Any], awaits: type[Any]
) -> None:
    for name, member in public(blocks).items():
        twin = public(awaits)[name]
        if inspect.isfunction(member) and member is not twin:
            assert not inspect.iscoroutinefunction(member), name
            assert inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin), name
            assert inspect.isgeneratorfunction(member) == inspect.isasyncgenfunction(twin), name


def test_both_agents_are_made_in_the_same_way_and_closed_by_with() -> None:
    assert parameters(blocking.Agent) == parameters(aio.AsyncAgent)
    assert {"__enter__", "__exit__"} <= set(dir(blocking.Agent))
    assert {"__aenter__", "__aexit__"} <= set(dir(aio.AsyncAgent))
