"""The power is cut under a live daemon: its disk is copied in one instant, and the copy is started from.

The disk is an ext4 file system in a file, written past the page cache; the file lies on btrfs, which can copy it at
once (`cp --reflink`). What the copy holds is what a real disk would hold if the machine stopped there.
"""

import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from backchannel.mailbox.mailbox import Mailbox

from ..inside import rows_of
from ..world import Link, World, eventually
from .recording import LYING_FLUSH

TOOLS = ("mkfs.btrfs", "mkfs.ext4", "losetup", "mount")
CUTS = [
    pytest.param(50, marks=[pytest.mark.proof, pytest.mark.timeout(600)]),
    pytest.param(1000, marks=[pytest.mark.night, pytest.mark.timeout(3600)]),
]


class Told(NamedTuple):
    """A receipt, and when it was in hand."""

    key: str
    msg_no: int
    is_power: bool
    at: float


def command(*words: str | Path) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def disks(small_disk: World) -> Iterator[World]:
    """The world, its state on a disk that can be copied in one instant."""
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        pytest.skip(f"{', '.join(missing)} are not here")
    world, root = small_disk, small_disk.root
    pool, disk = root / "pool", root / "disk"
    pool.mkdir(parents=True)
    disk.mkdir()
    loop = ""
    try:
        command("truncate", "-s", "2G", root / "pool.img")
        command("mkfs.btrfs", "-q", root / "pool.img")
        try:
            command("mount", "-o", "loop", root / "pool.img", pool)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"btrfs cannot be mounted here: {error.stderr.strip()}")
        command("truncate", "-s", "512M", pool / "disk.img")
        command("mkfs.ext4", "-q", "-F", pool / "disk.img")
        loop = command("losetup", "--direct-io=on", "--show", "-f", pool / "disk.img")
        command("mount", loop, disk)
        disk.chmod(0o700)
        world.state = disk / "state"
        yield world
    finally:
        for daemon in world._daemons:
            if daemon.is_running:
                daemon.kill()
        for place in (root / "copy", disk):
            subprocess.run(["umount", str(place)], capture_output=True)
        if loop:
            eventually(lambda: subprocess.run(["losetup", "-d", loop], capture_output=True).returncode == 0)
        eventually(
            lambda: subprocess.run(["umount", str(pool)], capture_output=True).returncode == 0 or not pool.is_mount()
        )


class Sender:
    """Pushes without a pause, and writes down what it was told."""

    def __init__(self, world: World, name: str) -> None:
        self.told: list[Told] = []
        self._world = world
        self._name = name
        self._is_over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        dice = random.Random(7)
        with Link(self._world.path(self._name)) as inbox, Link(self._world.path(self._name, "control")) as control:
            for number in itertools.count():
                if self._is_over:
                    return
                is_power = dice.random() < 0.1
                params = {"to": self._name, "id": f"k{number}", "text": f"k{number} {'x' * dice.randrange(2000)}"}
                receipt = inbox.call("push", params | {"durability": "power" if is_power else "process"})
                self.told.append(Told(f"k{number}", receipt["msg_no"], is_power, time.monotonic()))
                if number % 20 == 0:
                    for message in control.call("take", {"max": 20})["messages"]:
                        control.call("ack", {"id": message["id"]})
                if number % 500 == 0:
                    time.sleep(1.2)  # idle for once: the log goes into the file

    def end(self) -> None:
        self._is_over = True
        self._thread.join()


@pytest.mark.parametrize("cuts", CUTS)
def test_no_receipt_of_power_is_untrue_after_a_cut_under_a_live_daemon(disks: World, cuts: int) -> None:
    lost = cut_often(disks, cuts)
    assert not [receipt for receipt, _ in lost if receipt.is_power]


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_a_daemon_that_does_not_flush_loses_what_it_promised(disks: World) -> None:
    lost = cut_often(disks, 5, LYING_FLUSH)
    assert [receipt for receipt, _ in lost if receipt.is_power]


def cut_often(world: World, cuts: int, script: str = "") -> list[tuple[Told, float]]:
    """The receipts that were untrue after one of the cuts, and how old each was then, seconds."""
    dice, lost = random.Random(cuts), []
    daemon = world.spawn("bob", wrap=[sys.executable, "-P", "-c", script] if script else [])
    world.await_answer(daemon)
    sender = Sender(world, "bob")
    began = time.monotonic()
    try:
        for _ in range(cuts):
            time.sleep(dice.uniform(0.0, 0.3))
            told, at = sender.told[:], time.monotonic()
            command("cp", "--reflink=always", world.root / "pool/disk.img", world.root / "pool/copy.img")
            lost += [(receipt, at - receipt.at) for receipt in look(world, told)]
    finally:
        sender.end()
    by_process = [age for receipt, age in lost if not receipt.is_power]
    print(
        f"{cuts} cuts in {time.monotonic() - began:.0f} s, {len(sender.told)} receipts: {len(lost) - len(by_process)}"
        f" of `power` lost, {len(by_process)} of `process`, at most {max(by_process, default=0) * 1000:.1f} ms old"
    )
    return lost


def look(world: World, told: list[Told]) -> list[Told]:
    """Starts from the copy. Which receipts are not true there."""
    copy, scratch = world.root / "copy", world.root / "scratch"
    copy.mkdir(exist_ok=True)
    command("mount", "-o", "loop", world.root / "pool/copy.img", copy)
    try:
        scratch.mkdir()
        for file in (copy / "state/bob").glob("mailbox.db*"):
            shutil.copy(file, scratch)
    finally:
        command("umount", copy)
    mailbox = Mailbox.open(
        str(scratch / "mailbox.db"), now=100.0, wall=time.time(), boot_id="after the cut", random=os.urandom
    )
    try:
        keys = [row.envelope.id for row in rows_of(mailbox)]
        assert mailbox.db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
    finally:
        mailbox.db.close()
        shutil.rmtree(scratch)
    assert keys == [f"k{number}" for number in range(len(keys))], "there is a hole"
    missing = [receipt for receipt in told if receipt.msg_no > len(keys)]
    # A flush covers all that was committed before it, whoever asked for it.
    sure = max((receipt.msg_no for receipt in told if receipt.is_power), default=0)
    return [receipt._replace(is_power=receipt.msg_no <= sure) for receipt in missing]
