"""What every test may ask for: a private world, or one shared by the tests of a module."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .world import World, as_stranger


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world of this test's own; the environment points to it."""
    found = World()
    monkeypatch.setenv("BACKCHANNEL_STATE", str(found.state))
    monkeypatch.setenv("BACKCHANNEL_DIR", str(found.dir))
    monkeypatch.delenv("BACKCHANNEL_AGENT", raising=False)
    yield found
    found.close()


@pytest.fixture(scope="module")
def shared_world() -> Iterator[World]:
    """A world for tests that leave nothing behind but mail."""
    found = World()
    yield found
    found.close()


@pytest.fixture
def other_uid() -> list[str]:
    """The words before a command that run it under a uid that owns nothing here. Needs root."""
    if not can_change_uid():
        pytest.skip("needs root, setpriv, and an interpreter that others may run")
    return as_stranger()


@pytest.fixture
def small_disk(world: World) -> World:
    """The world, able to mount small disks. Needs root."""
    if not _can_mount():
        pytest.skip("may not mount")
    return world


@functools.cache
def can_change_uid() -> bool:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return False
    test = [*as_stranger(), sys.executable, "-P", "-c", "import backchannel.daemon.run"]
    return subprocess.run(test, capture_output=True, timeout=30, cwd="/").returncode == 0


@functools.cache
def _can_mount() -> bool:
    if os.geteuid() != 0:
        return False
    test = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(test, capture_output=True, timeout=30).returncode == 0
