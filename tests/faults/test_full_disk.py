"""Small disks, filled by our own mail and by somebody else's file: refused with `full`, and nothing else goes wrong.

Inside the reserve every take and ack works; on a disk without a byte they may be refused, and then truthfully; as soon
as there is room again, so is service, without a restart. What had a receipt is there after a kill.
"""

import os
import random
import subprocess
from pathlib import Path

import pytest

from ..world import Daemon, Failed, Link, World, eventually

MIB = 1 << 20
POINTS_A_DISK = 10  # then a new one: what is acked stays as history, so a small disk is full of it some day


class SmallDisk:
    """One daemon on a disk of its own, and what it told us."""

    def __init__(self, world: World, number: int, mib: int, dice: random.Random) -> None:
        self.world = world
        self.dice = dice
        self.root = world.root / f"disk-{mib}-{number}"
        world.mount(self.root, f"{mib}m")
        world.state = self.root / "state"
        self.reserve = mib * MIB // 4  # what one take of ten texts writes has to fit into it
        world.configure("bob", f"reserve_bytes = {self.reserve}\n")
        self.daemon: Daemon = world.start("bob")
        self.stages: dict[str, str] = {}
        self._number = 0

    @property
    def free(self) -> int:
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def push(self, link: Link, size: int) -> bool:
        """Whether it was stored; if not, it was refused for want of room."""
        self._number += 1
        key = f"k{self._number}"
        try:
            link.call("push", {"to": "bob", "id": key, "text": "x" * size})
        except Failed as failed:
            if failed.code != "full":
                raise
            return False
        self.stages[key] = "stored"
        return True

    def fill_by_mail(self) -> None:
        with self.world.link("bob") as link:
            size = self.dice.choice((3000, 6000))
            for _ in range(10_000):
                if not self.push(link, size):
                    return
        raise AssertionError("a disk that never fills")

    def fill_by_a_film(self, leave: int) -> Path:
        film = self.root / "film.mkv"
        with film.open("wb") as file:
            if (size := self.free - leave) > 0:
                os.posix_fallocate(file.fileno(), 0, size)
        return film

    def take_all(self, *, may_be_full: bool = False) -> None:
        """Everything is taken and acked; with `may_be_full` as much as there is room for."""
        with self.world.control("bob") as control:
            try:
                while messages := control.call("take", {"max": 10})["messages"]:
                    for message in messages:
                        control.call("ack", {"id": message["id"]})
                        self.stages[message["id"]] = "acked"
            except Failed as failed:
                sizes = {file.name: file.stat().st_size for file in (self.root / "state/bob").glob("mailbox.db*")}
                assert failed.code == "full" and may_be_full, f"{failed}: {self.free} bytes free, {sizes}"  # noqa: PT017, PT018

    def grow(self) -> None:
        subprocess.run(["mount", "-o", "remount,size=100m", str(self.root)], check=True)

    def is_refused(self) -> None:
        with self.world.link("bob") as link:
            eventually(lambda: not self.push(link, 10), "it looks at the disk")

    def stores_again(self) -> None:
        def stored() -> bool:
            with self.world.link("bob") as link:
                return self.push(link, 10)

        eventually(stored, "there is room again, and it takes mail")

    def compare(self) -> None:
        with self.world.link("bob") as link:
            found_stages = {key: link.call("receipt", {"id": key})["stage"] for key in self.stages}
        for key, stage in self.stages.items():
            found = found_stages[key]
            assert found == stage or (stage, found) == ("stored", "taken"), f"{key} was {stage} and is {found}"


@pytest.mark.parametrize("mib", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "points",
    [
        pytest.param(50, marks=[pytest.mark.proof, pytest.mark.timeout(600)]),
        pytest.param(500, marks=[pytest.mark.night, pytest.mark.timeout(3600)]),
    ],
)
def test_a_full_disk_refuses_and_nothing_else_goes_wrong(small_disk: World, mib: int, points: int) -> None:
    dice = random.Random(mib)
    for number in range(points // POINTS_A_DISK):
        disk = SmallDisk(small_disk, number, mib, dice)
        for _ in range(POINTS_A_DISK - 1):
            if dice.random() < 0.5:
                film = disk.fill_by_a_film(int(disk.reserve * dice.uniform(0.7, 1.0)))
                disk.is_refused()
                disk.take_all()
            else:
                film = disk.fill_by_a_film(0)
                with small_disk.link("bob") as link:
                    for _ in range(20):
                        disk.push(link, 3000)
                disk.take_all(may_be_full=True)
            film.unlink()
            disk.stores_again()
        disk.fill_by_mail()
        disk.take_all()
        disk.grow()
        disk.stores_again()
        assert disk.daemon.is_running, disk.daemon.said()
        disk.compare()
        if number % 2:
            disk.daemon.kill()
        else:
            disk.daemon.stop()
        assert "Traceback" not in disk.daemon.said(), disk.daemon.said()
        disk.daemon = small_disk.restart(disk.daemon)
        disk.compare()
        disk.daemon.kill()
    print(f"{points} times a disk of {mib} MiB was full")
