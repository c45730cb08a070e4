"""The daemon does all its work inside what the units allow it: no network, few system calls, one writable directory.

As near as it goes without systemd as the first process: the filters are made from the unit (`confined.py`), the mounts
and namespaces by bubblewrap.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backchannel.cli.layouts import rendered
from backchannel.transport.start import DAEMON

from ..world import START_S, World, eventually
from .manager import SHORT_IDLE, Manager, Sockets

Wrap = Callable[[str], list[str]]
CONFINED = Path(__file__).with_name("confined.py")


@pytest.fixture
def confined(world: World) -> Wrap:
    """The words before a command that run it as the unit of this manager would."""
    for program in ("bwrap", "systemd-analyze"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    for folder in (world.state, world.dir):
        folder.mkdir(mode=0o700)

    def words(manager: str) -> list[str]:
        unit = world.root / "backchannel@.service"
        values = {"@BACKCHANNELD@": " ".join(DAEMON), "@STATE@": str(world.state), "@DIR@": str(world.dir)}
        unit.write_text(rendered(manager, values)["backchannel@.service"])
        sandbox = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--die-with-parent"]
        sandbox += ["--unshare-net", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]
        sandbox += ["--bind", str(world.state), str(world.state)]
        if manager == "user":
            sandbox += ["--bind", str(world.dir), str(world.dir)]
        return [*sandbox, sys.executable, str(CONFINED), str(unit)]

    if subprocess.run([*words("user"), "true"], capture_output=True, check=False).returncode:
        pytest.skip("bubblewrap or seccomp may not be used here")
    return words


ATTEMPTS = """
import errno, os, socket, sys, mmap
def tried(what, attempt):
    try:
        attempt()
    except OSError as error:
        print(what, errno.errorcode[error.errno])
    else:
        print(what, "done")
tried("ipv4", lambda: socket.socket(socket.AF_INET))
tried("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
tried("unix", lambda: socket.socket(socket.AF_UNIX))
tried("write", lambda: open("/etc/backchannel-test", "w"))
tried("state", lambda: open(sys.argv[1] + "/test", "w"))
tried("code", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC))
tried("root", lambda: os.chroot("/"))
tried("owner", lambda: os.chown(sys.argv[1], 4001, 4001))
"""


@pytest.mark.proof
@pytest.mark.parametrize("manager", ["system", "user"])
def test_what_the_unit_forbids_is_forbidden(world: World, confined: Wrap, manager: str) -> None:
    """The control of the tests below: this is no sandbox of paper."""
    command = [*confined(manager), sys.executable, "-c", ATTEMPTS, str(world.state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    assert found == {
        "ipv4": "EAFNOSUPPORT", "netlink": "EAFNOSUPPORT", "unix": "done", "write": "EROFS", "state": "done",
        "code": "EPERM", "root": "EPERM", "owner": "EPERM",
    }  # fmt: skip


@pytest.mark.proof
@pytest.mark.parametrize("manager", ["system", "user"])
def test_the_daemon_does_all_its_work_confined(world: World, confined: Wrap, manager: str) -> None:
    notified = Manager(world)
    alice = world.start("alice")
    sockets = Sockets(world)
    world.configure("bob", "idle_exit_s = 1\n")
    wrap = [*confined(manager), *sockets.wrap(), sys.executable, "-P", "-c", SHORT_IDLE.replace("[1:]", "[5:]")]
    env = {"NOTIFY_SOCKET": notified.path, "WATCHDOG_USEC": "2000000"}
    daemon = world.spawn("bob", wrap=wrap, pass_fds=sockets.fds, env=env)
    assert "READY=1" in notified.told(), daemon.said()
    assert world.push("bob")["stage"] == "stored"
    assert world.push("bob", "kept", durability="power")["durability"] == "power"
    assert world.texts("bob") == ["hello", "kept"]
    # Out of the sandbox: to another daemon's socket, which lies on a disk that is read-only in here.
    sends = [{"to": "alice", "id": "m-1", "text": "from within"}]
    world.call("bob", "commit", {"sends": sends}, "control")
    eventually(lambda: world.call("alice", "status", {}, "control")["backlog"] == 1)
    assert world.texts("alice") == ["from within"]
    opened = world.call("bob", "open", {"to": "alice", "text": "a task"}, "control")
    session = opened["id"]
    eventually(lambda: world.call("alice", "sessions", {}, "control")["sessions"])
    world.call("alice", "accept", {"session": session}, "control")
    eventually(lambda: world.call("bob", "sessions", {}, "control")["sessions"][0]["state"] == "ESTABLISHED")
    world.call("bob", "abort", {"session": session, "reason": "enough"}, "control")
    assert daemon.ended() == 0, daemon.said()
    assert "nothing to do" in daemon.said()
    assert "Traceback" not in daemon.said()
    assert " warning " not in daemon.said()
    assert " error " not in daemon.said()
    alice.stop()


def answers(world: World, name: str) -> bool:
    try:
        return bool(world.call(name, "ping")["agent"] == name)
    except OSError:
        return False


@pytest.mark.proof
def test_a_user_s_daemon_starts_others_from_within(world: World, confined: Wrap) -> None:
    """Carol is no service: whoever has mail for her starts her daemon, and it can serve where it then is."""
    world.agent("carol").close()
    os.kill(world.only_process("carol"), 9)
    eventually(lambda: not world.processes("carol"))
    sockets = Sockets(world)
    daemon = world.spawn("bob", wrap=[*confined("user"), *sockets.wrap()], pass_fds=sockets.fds)
    world.await_answer(daemon)
    world.call("bob", "commit", {"sends": [{"to": "carol", "id": "m-1", "text": "hello"}]}, "control")
    eventually(lambda: answers(world, "carol"), "carol is served", START_S)
    assert eventually(lambda: world.texts("carol"), "the row gets there", START_S) == ["hello"]


@pytest.mark.proof
def test_without_a_network_everything_works(world: World) -> None:
    """`unshare -n`: not even a loopback that is up."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare -n may not be used here")
    world.start("alice", wrap=[unshare, "-n"])
    world.start("bob", wrap=[unshare, "-n"])
    world.call("bob", "commit", {"sends": [{"to": "alice", "id": "m-1", "text": "hello"}]}, "control")
    eventually(lambda: world.call("alice", "status", {}, "control")["backlog"] == 1)
    assert world.texts("alice") == ["hello"]
