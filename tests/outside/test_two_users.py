"""Two uids that may not meet: whatever the other prepares, watches or swaps, he gets no connection and no socket."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backchannel import NotPermitted
from backchannel.transport.listen import listen

from ..world import STRANGER, World

SPIN = """
import os, socket, sys
paths = sys.argv[1:]
print("begins", flush=True)
tries = 0
while os.getppid() > 1:
    for path in paths:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            print("connected to", path, flush=True)
        except OSError:
            pass
        sock.close()
    tries += 1
"""


@contextmanager
def spinning(other_uid: list[str], *paths: Path) -> Iterator["subprocess.Popen[str]"]:
    """Somebody else who connects, again and again, to where sockets are made."""
    program = subprocess.Popen(
        [*other_uid, sys.executable, "-c", SPIN, *map(str, paths)], stdout=subprocess.PIPE, text=True, cwd="/"
    )
    assert program.stdout
    try:
        assert program.stdout.readline() == "begins\n"
        yield program
        assert program.poll() is None
    finally:
        program.kill()
        said, _ = program.communicate()
        assert said == "", "not once"


def careless(world: World) -> Path:
    """The directories let everybody pass, as a person may have set them: only the sockets' own modes are left."""
    world.root.chmod(0o711)
    folder = world.dir / "bob"
    for path in (world.dir, folder):
        path.mkdir(mode=0o700)
    return folder


@pytest.mark.parametrize(
    "binds", [pytest.param(1000, marks=pytest.mark.proof), pytest.param(10_000, marks=pytest.mark.night)]
)
@pytest.mark.timeout(300)
def test_nobody_connects_between_bind_and_mode(world: World, other_uid: list[str], binds: int) -> None:
    folder = careless(world)
    before = os.umask(0)
    try:
        with spinning(other_uid, folder / "inbox.sock", folder / f".inbox.sock.{os.getpid()}"):
            for _ in range(binds):
                folder.chmod(0o700)
                listener = listen(str(folder), "inbox.sock")
                folder.chmod(0o711)
                world.dir.chmod(0o711)
                assert stat.S_IMODE(os.lstat(folder / "inbox.sock").st_mode) == 0o600
                listener.sock.close()  # its file stays, as after a kill
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "starts", [pytest.param(5, marks=pytest.mark.proof), pytest.param(200, marks=pytest.mark.night)]
)
@pytest.mark.timeout(900)
def test_nobody_connects_while_a_daemon_starts(world: World, other_uid: list[str], starts: int) -> None:
    folder = careless(world)
    with spinning(other_uid, folder / "inbox.sock", folder / "control.sock"):
        for number in range(starts):
            for path in (folder, world.dir):
                path.chmod(0o700)
            daemon = world.start("bob")
            for path in (folder, world.dir):
                path.chmod(0o711)
            assert world.push("bob", str(number))["stage"] == "stored"
            daemon.kill()


@pytest.mark.proof
def test_a_directory_swapped_at_any_moment_never_gets_a_socket(world: World, other_uid: list[str]) -> None:
    """Another's directory changes places with ours, all the time. What is bound lies in the one that was checked."""
    world.root.chmod(0o711)
    world.dir.mkdir(mode=0o700)
    ours, theirs = world.dir / "bob", world.dir / "other"
    ours.mkdir(mode=0o700)
    theirs.mkdir(mode=0o777)
    theirs.chmod(0o777)
    os.chown(theirs, STRANGER, STRANGER)
    swapper = subprocess.Popen(
        [sys.executable, "-c", SWAP, str(ours), str(theirs), str(world.dir / "third")], stdout=subprocess.PIPE
    )
    assert swapper.stdout
    made = refused = 0
    try:
        assert swapper.stdout.readline() == b"begins\n"
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                listen(str(ours), "inbox.sock", make=False).sock.close()
                made += 1
            except (OSError, NotPermitted):
                refused += 1
    finally:
        swapper.kill()
        swapper.wait()
        swapper.stdout.close()
    assert made, "sometimes it was ours"
    assert refused, "and sometimes not"
    for path in world.dir.iterdir():
        if path.lstat().st_uid == STRANGER:
            assert list(path.iterdir()) == []


SWAP = """
import os, sys
a, b, c = sys.argv[1:]
print("begins", flush=True)
while True:
    os.rename(a, c), os.rename(b, a), os.rename(c, b)
"""


@pytest.mark.parametrize("by", ["directory", "link"])
def test_a_directory_replaced_under_a_running_daemon_ends_it_and_stays_empty(
    world: World, other_uid: list[str], by: str
) -> None:
    daemon = world.start("bob")
    theirs = world.root / "theirs"
    theirs.mkdir(mode=0o777)
    os.chown(theirs, STRANGER, STRANGER)
    os.rename(world.dir / "bob", world.dir / "away")
    if by == "directory":
        os.rename(theirs, world.dir / "bob")
    else:
        (world.dir / "bob").symlink_to(theirs)
    assert daemon.ended() == 69
    assert list((world.dir / "bob").iterdir()) == []


def test_another_uid_sees_no_names(world: World, other_uid: list[str]) -> None:
    world.start("bob")
    for folder in (world.dir, world.dir / "bob", world.state, world.state / "bob"):
        world.root.chmod(0o711)
        listed = subprocess.run([*other_uid, "ls", str(folder)], capture_output=True, text=True, cwd="/")
        assert listed.returncode != 0
        assert listed.stdout == ""


def test_no_socket_of_a_daemon_has_an_abstract_name(world: World) -> None:
    """Those have no owner and no mode: everybody could connect."""
    daemon = world.start("bob")
    world.push("bob")
    inodes = set()
    for fd in Path(f"/proc/{daemon.pid}/fd").iterdir():
        link = os.readlink(fd)
        if link.startswith("socket:["):
            inodes.add(link[len("socket:[") : -1])
    assert len(inodes) >= 2
    for line in Path("/proc/net/unix").read_text().splitlines():
        fields = line.split()
        if fields[6] in inodes and len(fields) > 7:
            assert not fields[7].startswith("@"), line


@pytest.mark.proof
def test_what_a_stranger_makes_first_is_never_used(world: World, other_uid: list[str]) -> None:
    """In a directory where everybody may write, he makes DIR before us, again and again. We refuse or it is ours."""
    world.root.chmod(0o1777)
    for _ in range(3):
        maker = subprocess.Popen([*other_uid, "mkdir", "-p", str(world.dir / "bob")], cwd="/")
        daemon = world.spawn("bob")
        maker.wait(10)
        if world.dir.stat().st_uid == STRANGER:
            assert daemon.ended() == 77
            assert list((world.dir / "bob").iterdir()) == []
            (world.dir / "bob").rmdir()
            world.dir.rmdir()
        else:
            world.await_answer(daemon)
            daemon.kill()
            subprocess.run(["rm", "-r", str(world.dir)], check=True)
