"""In the real sandbox of Codex: what `send` says there, and that the line it prints is the one that helps."""

import os
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from backchannel.testing import World, command

from .programs import CACHE, installed

MODE = 'sandbox_mode="workspace-write"'  # what Codex works in unless it is told otherwise


@pytest.fixture
def codex_home() -> Iterator[str]:
    """Not below /tmp, where Codex makes no sandbox."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as home:
        yield home


def confined(world: World, home: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*installed("codex"), "sandbox", "-c", MODE, "--", command(), *words],
        env=world.env | {"HOME": home, "CODEX_HOME": home}, cwd=home, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.timeout(1200)
def test_the_line_that_send_prints_in_codex_is_the_one_that_helps(codex_home: str) -> None:
    with World() as world:
        world.up("executor")
        refused = confined(world, codex_home, "send", "executor", "hello")
        if "bwrap" in refused.stderr:
            pytest.skip(f"no sandbox can be made here: {refused.stderr.strip()[-200:]}")
        assert refused.returncode == 7
        assert "a sandbox keeps this process from Unix sockets (EPERM" in refused.stderr
        assert "[sandbox_workspace_write] network_access = true" in refused.stderr
        assert "fail  sandbox: " in confined(world, codex_home, "doctor").stdout
        with open(os.path.join(codex_home, "config.toml"), "w") as file:
            file.write("[sandbox_workspace_write]\nnetwork_access = true\n")
        allowed = confined(world, codex_home, "send", "executor", "hello")
        assert (allowed.returncode, allowed.stdout.split()[:2]) == (0, ["stored", "executor"]), allowed.stderr
