"""A real daemon whose n-th system call on its mailbox fails: the receipts it gave are true, and it ends as documented.

An error of the disk ends it with status 74, whatever it was doing; a disk without room, or a call that a signal broke
off, does not. A start that cannot open the file is no damage to it.
"""

import random
import shutil

import pytest

from ..world import Daemon, Failed, World, eventually, stays

EXIT_IO = 74

# call, error, the file it happens to, and whether a daemon that serves lives on
FAULTS = [
    ("pwrite64", "EIO", "mailbox.db-wal", False),
    ("pwrite64", "EIO", "mailbox.db", False),
    ("pwrite64", "ENOSPC", "mailbox.db-wal", True),
    ("pwrite64", "ENOSPC", "mailbox.db", True),
    ("pwrite64", "EINTR", "mailbox.db-wal", True),
    ("fdatasync", "EIO", "mailbox.db-wal", False),
    ("fdatasync", "EIO", "mailbox.db", False),
    ("openat", "EIO", "mailbox.db", False),
    ("openat", "EIO", "mailbox.db-wal", False),
    ("ftruncate", "EIO", "mailbox.db", False),
]

pytestmark = [pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here"), pytest.mark.timeout(600)]


def broken_daemon(world: World, call: str, error: str, file: str, when: int) -> Daemon:
    path = world.state / "bob" / file
    strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", str(path), "-e", f"trace={call}"]
    return world.spawn("bob", wrap=[*strace, "-e", f"inject={call}:error={error}:when={when}"])


@pytest.mark.parametrize(("call", "error", "file", "may_live"), FAULTS, ids=lambda value: str(value))
@pytest.mark.parametrize("runs", [pytest.param(3, marks=pytest.mark.proof), pytest.param(30, marks=pytest.mark.night)])
def test_receipts_are_true_whichever_call_fails(
    world: World, runs: int, call: str, error: str, file: str, may_live: bool
) -> None:
    dice = random.Random(f"{call} {error} {file}")
    world.start("bob").stop()
    told: dict[str, str] = {}
    ended = 0
    for run in range(runs):
        when = run + 1 if run < 2 else dice.randrange(3, 60)
        daemon = broken_daemon(world, call, error, file, when)
        has_served = work(world, daemon, run, told, until_checkpoint=file == "mailbox.db")
        if not daemon.is_running:
            ended += 1
            assert daemon.ended() == EXIT_IO, daemon.said()
            assert "damaged" not in daemon.said()
            assert not (may_live and has_served), f"{call} {error} at {when} ended the daemon: {daemon.said()}"
        daemon.kill()
        assert "Traceback" not in daemon.said(), daemon.said()
        daemon = world.start("bob")
        with world.link("bob") as link:
            for key, stage in told.items():
                found = link.call("receipt", {"id": key})["stage"]
                assert stage in ("stored", found), f"{key} was {stage} and is {found} after {call} {error} at {when}"
        daemon.stop()
    print(f"{call} {error} on {file}: {ended} of {runs} daemons ended, {len(told)} receipts true")
    assert may_live or ended, "it never failed"


def work(world: World, daemon: Daemon, run: int, told: dict[str, str], *, until_checkpoint: bool) -> bool:
    """Pushes of both durabilities, takes and acks, until they are done or the daemon is gone. Whether it served."""
    try:
        world.await_answer(daemon)
    except AssertionError:
        if daemon.is_running:
            raise
        return False
    file = world.state / "bob" / "mailbox.db"
    try:
        with world.link("bob") as link, world.control("bob") as control:
            for number in range(12):
                key = f"r{run}-{number}"
                params = {"to": "bob", "id": key, "text": key * 300, "durability": ("process", "power")[number % 2]}
                try:
                    link.call("push", params)
                    told[key] = "stored"
                    for message in control.call("take", {"max": 2})["messages"]:
                        control.call("ack", {"id": message["id"]})
                        told[message["id"]] = "acked"
                except Failed as failed:
                    if failed.code != "full":
                        raise
        if until_checkpoint:
            before = file.stat().st_mtime_ns
            eventually(lambda: not daemon.is_running or file.stat().st_mtime_ns > before, "the log goes into the file")
            stays(lambda: daemon.is_running, 0.3)  # it is flushed last
    except (ConnectionError, AssertionError):
        eventually(lambda: not daemon.is_running, "a broken connection means that it ended")
    return True
