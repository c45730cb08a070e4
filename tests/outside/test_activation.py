"""A daemon of a service manager's: it serves the sockets it is given, says when it is ready, ends when it is idle."""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from ..world import Link, World, eventually, request, stays
from .manager import ACTIVATE, FIRST_FD, SHORT_IDLE, Manager, Sockets, SocketUnit

EXIT_PERMISSION = 77
EXIT_CONFIG = 78
IDLE_S = 0.3


@pytest.fixture
def unit(world: World) -> Iterator[SocketUnit]:
    """The agent bob as a socket unit, whose daemon ends after a third of a second without anything to do."""
    world.configure("bob", f"idle_exit_s = {IDLE_S}\n")
    found = SocketUnit(world)
    yield found
    found.close()


@pytest.fixture
def manager(world: World) -> Manager:
    return Manager(world)


def inodes(world: World) -> list[int]:
    return [os.lstat(world.path("bob", which)).st_ino for which in ("inbox", "control")]


# --- the sockets it is given ------------------------------------------------------------------------------------------


def test_inherited_sockets_are_served_and_never_removed(world: World) -> None:
    sockets = Sockets(world)
    before = inodes(world)
    daemon = world.spawn("bob", wrap=sockets.wrap(), pass_fds=sockets.fds)
    world.await_answer(daemon)
    assert world.push("bob")["stage"] == "stored"
    assert len(world.take("bob")) == 1
    assert daemon.stop() == 0
    assert inodes(world) == before
    link = world.link("bob")  # the manager holds them: what comes now is not lost
    link.ask("ping")
    world.spawn("bob", wrap=sockets.wrap(), pass_fds=sockets.fds)
    assert link.answer()["result"]["agent"] == "bob"


def test_a_crash_of_the_daemon_leaves_inherited_sockets_as_they_are(world: World) -> None:
    sockets = Sockets(world)
    before = inodes(world)
    daemon = world.spawn("bob", wrap=sockets.wrap(), pass_fds=sockets.fds)
    world.await_answer(daemon)
    daemon.kill()
    assert inodes(world) == before


def test_their_order_does_not_matter_their_names_do(world: World) -> None:
    sockets = Sockets(world)
    sockets.fds.reverse()
    daemon = world.spawn("bob", wrap=sockets.wrap("control:inbox"), pass_fds=sockets.fds)
    world.await_answer(daemon)
    assert world.push("bob")["stage"] == "stored"
    assert world.texts("bob") == ["hello"]


@pytest.mark.parametrize("names", ["", "inbox", "inbox:inbox", "inbox:other", "a:b", "inbox:control:more"])
def test_inherited_sockets_with_wrong_names_are_refused(world: World, names: str) -> None:
    sockets = Sockets(world)
    daemon = world.spawn("bob", wrap=sockets.wrap(names), pass_fds=sockets.fds)
    assert daemon.ended() == EXIT_CONFIG
    assert "needed are inbox and control" in daemon.said()


def test_half_of_them_is_refused(world: World) -> None:
    sockets = Sockets(world)
    os.close(sockets.fds.pop())
    daemon = world.spawn("bob", wrap=sockets.wrap("inbox"), pass_fds=sockets.fds)
    assert daemon.ended() == EXIT_CONFIG
    assert "needed are inbox and control" in daemon.said()


def test_inherited_descriptors_that_do_not_listen_are_refused(world: World) -> None:
    sockets = Sockets(world, listening=False)
    daemon = world.spawn("bob", wrap=sockets.wrap(), pass_fds=sockets.fds)
    assert daemon.ended() == EXIT_CONFIG
    assert "does not listen" in daemon.said()


@pytest.mark.parametrize(
    "make",
    [
        lambda: socket.socket(socket.AF_INET),
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET),
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    ],
    ids=["a port", "packets", "datagrams"],
)
def test_inherited_sockets_of_another_kind_are_refused(world: World, make: Callable[[], socket.socket]) -> None:
    sockets = Sockets(world, make=make, listening=False)
    daemon = world.spawn("bob", wrap=sockets.wrap(), pass_fds=sockets.fds)
    assert daemon.ended() == EXIT_CONFIG
    assert "no unix stream socket" in daemon.said()


def test_an_inherited_descriptor_that_is_no_socket_is_refused(world: World) -> None:
    with open("/dev/null") as null:
        fds = [os.dup2(null.fileno(), FIRST_FD + number) for number in range(2)]
        wrap = [sys.executable, "-c", ACTIVATE, "inbox:control", ",".join(map(str, fds))]
        daemon = world.spawn("bob", wrap=wrap, pass_fds=fds)
        assert daemon.ended() == EXIT_CONFIG
        assert "is no socket" in daemon.said()
        for fd in fds:
            os.close(fd)


def test_inherited_descriptors_that_are_not_there_are_refused(world: World) -> None:
    claim = 'LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=inbox:control exec "$@"'
    daemon = world.spawn("bob", wrap=["/bin/sh", "-c", claim, "sh"])
    assert daemon.ended() == EXIT_CONFIG
    assert "is not open" in daemon.said()


def test_the_sockets_of_another_agent_are_refused(world: World) -> None:
    sockets = Sockets(world, "alice")
    daemon = world.spawn("bob", wrap=sockets.wrap(), pass_fds=sockets.fds)
    assert daemon.ended() == EXIT_CONFIG
    assert "/alice/inbox.sock" in daemon.said()
    assert not (world.state / "bob").exists(), "nothing was touched"


def test_sockets_meant_for_another_process_are_not_taken(world: World) -> None:
    env = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "inbox:control"}
    daemon = world.start("bob", env=env)
    assert world.push("bob")["stage"] == "stored"
    assert daemon.stop() == 0


def test_a_socket_that_somebody_keeps_is_not_taken_away_from_him(world: World) -> None:
    """LISTEN_PID names another process, say a shell around the daemon: binding would leave the manager with sockets
    that nobody finds any more."""
    sockets = Sockets(world)
    before = inodes(world)
    env = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "inbox:control"}
    daemon = world.spawn("bob", env=env)
    assert daemon.ended() == EXIT_PERMISSION
    assert f"another program listens at {world.path('bob')}" in daemon.said()
    assert inodes(world) == before
    sockets.close()
    world.start("bob")  # they are nobody's now, and may be replaced


# --- idle -------------------------------------------------------------------------------------------------------------


def test_an_idle_agent_costs_no_process_and_the_first_connection_is_kept(world: World, unit: SocketUnit) -> None:
    before = inodes(world)
    for number in range(1, 4):
        assert world.push("bob", f"text {number}")["stage"] == "stored"
        unit.await_idle(number)
        assert not world.processes("bob")
    assert inodes(world) == before
    assert world.texts("bob") == ["text 1", "text 2", "text 3"]
    assert "nothing to do for 0.3 s" in unit.said()


@pytest.mark.proof
def test_stored_mail_and_a_pause_need_no_process(world: World, unit: SocketUnit) -> None:
    world.push("bob")
    world.call("bob", "pause", which="control")
    unit.await_idle(1)
    assert world.take("bob") == []
    unit.await_idle(2)
    world.call("bob", "resume", which="control")
    assert world.texts("bob") == ["hello"]


def still_there(unit: SocketUnit) -> bool:
    starts = unit.starts
    return stays(lambda: not unit.is_idle and unit.starts == starts, during=3 * IDLE_S)


@pytest.mark.proof
def test_a_connection_that_is_open_keeps_it(world: World, unit: SocketUnit) -> None:
    with Link(world.path("bob", "control")) as link:
        link.call("ping")
        assert still_there(unit)
    unit.await_idle(1)


@pytest.mark.proof
def test_a_detached_lease_keeps_it(world: World, unit: SocketUnit) -> None:
    world.push("bob")
    (message,) = world.take("bob")
    assert still_there(unit)
    token = {"id": message["id"], "from": message["from"], "delivery": message["delivery"]}
    world.call("bob", "ack", token, "control")
    unit.await_idle(1)


@pytest.mark.proof
def test_a_ttl_that_has_not_passed_keeps_it(world: World, unit: SocketUnit) -> None:
    receipt = world.push("bob", ttl=60)
    assert still_there(unit)
    world.call("bob", "cancel", {"id": receipt["id"]})
    unit.await_idle(1)


def test_a_row_of_the_outbox_keeps_it_until_the_target_has_it(world: World, unit: SocketUnit) -> None:
    alice = world.start("alice")
    alice.freeze()  # it is there, and does not answer
    sends = [{"to": "alice", "id": "m-1", "text": "hello"}]
    world.call("bob", "commit", {"sends": sends}, "control")
    assert still_there(unit)
    alice.thaw()
    unit.await_idle(1)
    assert world.texts("alice") == ["hello"]


@pytest.mark.proof
def test_an_open_session_keeps_it_and_one_that_is_over_does_not(world: World, unit: SocketUnit) -> None:
    alice = world.start("alice")
    opened = world.call("bob", "open", {"to": "alice", "text": "look at this"}, "control")
    assert still_there(unit)
    world.call("bob", "abort", {"session": opened["id"], "reason": "enough"}, "control")
    unit.await_idle(1)
    assert world.call("bob", "sessions", {}, "control")["sessions"][0]["state"] == "CLOSED"
    alice.stop()


@pytest.mark.proof
def test_a_model_that_thinks_is_not_forgotten_to_have_been_told(world: World) -> None:
    """What its next message inherits is in memory only, for ten minutes."""
    world.configure("bob", f"idle_exit_s = {IDLE_S}\ndriven_by = 'model'\n")
    unit = SocketUnit(world)
    world.push("bob")
    assert world.texts("bob") == ["hello"]
    assert still_there(unit)
    unit.close()


@pytest.mark.proof
def test_whoever_connects_while_it_ends_is_served_by_the_next(world: World, unit: SocketUnit) -> None:
    """Connections that come around the moment in which it decides; each is served, whichever daemon does it."""
    begin = time.monotonic()
    count = 0
    while unit.starts < 5 and time.monotonic() - begin < 30:
        count += 1
        assert world.call("bob", "ping")["agent"] == "bob"
        time.sleep(IDLE_S * (0.96 + 0.02 * (count % 5)))
    assert unit.starts > 1


def test_a_connection_in_the_backlog_outlives_the_end(world: World, unit: SocketUnit, manager: Manager) -> None:
    world.push("bob")
    process = unit.process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    link = world.link("bob")
    link.ask("ping")  # waits in the backlog of the manager's socket
    os.kill(process.pid, signal.SIGKILL)
    assert link.answer()["result"]["agent"] == "bob"
    assert unit.starts == 2


@pytest.mark.proof
def test_a_daemon_with_sockets_of_its_own_never_leaves_them(world: World) -> None:
    world.configure("bob", f"idle_exit_s = {IDLE_S}\n")
    # The last words of the command are the daemon's own; the wrapper takes them from there.
    script = SHORT_IDLE.replace("sys.argv[1:]", "sys.argv[5:]")
    daemon = world.start("bob", wrap=[sys.executable, "-P", "-c", script])
    assert stays(lambda: daemon.is_running, during=3 * IDLE_S)


def test_less_than_a_minute_is_no_setting(world: World) -> None:
    world.configure("bob", "idle_exit_s = 59\n")
    daemon = world.spawn("bob")
    assert daemon.ended() == EXIT_CONFIG
    assert "idle_exit_s = 59" in daemon.said()


def test_systemd_socket_activate_starts_it_on_the_first_connection(world: World) -> None:
    activate = shutil.which("systemd-socket-activate")
    if not activate:
        pytest.skip("systemd-socket-activate is not here")
    (world.dir / "bob").mkdir(mode=0o700, parents=True)
    paths = [world.path("bob", which) for which in ("inbox", "control")]
    wrap = [activate, "--fdname=inbox:control", *(f"--listen={path}" for path in paths)]
    if "PYTHONPATH" in os.environ:
        wrap.append(f"--setenv=PYTHONPATH={os.environ['PYTHONPATH']}")
    daemon = world.spawn("bob", wrap=wrap)
    eventually(lambda: "Listening on" in daemon.said() or daemon.process.poll())
    first = world.link("bob")
    first.send(request("push", {"to": "bob", "text": "the first"}))
    assert first.answer()["result"]["stage"] == "stored", "the connection that started it is served"
    assert world.texts("bob") == ["the first"]
    assert daemon.stop() == 0
    assert all(os.path.exists(path) for path in paths)


# --- what it tells the manager ----------------------------------------------------------------------------------------


def test_ready_is_said_when_the_first_push_is_answered_and_stopping_at_the_end(world: World, manager: Manager) -> None:
    daemon = world.spawn("bob", "carol", env={"NOTIFY_SOCKET": manager.path})
    assert "READY=1" in manager.told()
    assert world.push("bob")["stage"] == "stored", "at once, no second try"
    assert world.push("carol")["stage"] == "stored"
    daemon.process.terminate()
    assert manager.told() == ["STOPPING=1"]
    assert daemon.ended() == 0


@pytest.mark.proof
def test_ready_comes_after_the_recovery(world: World, manager: Manager) -> None:
    """A killed daemon's mail is there at READY, before anybody asked."""
    daemon = world.start("bob")
    for number in range(20):
        world.push("bob", str(number))
    daemon.kill()
    world.spawn("bob", env={"NOTIFY_SOCKET": manager.path})
    assert "READY=1" in manager.told()
    assert world.texts("bob") == [str(number) for number in range(20)]


def test_a_daemon_that_waits_for_the_lock_is_not_ready(world: World, manager: Manager) -> None:
    world.start("bob")
    second = world.spawn("bob", env={"NOTIFY_SOCKET": manager.path})
    assert second.ended() == 75
    assert manager.is_silent(), "neither READY nor STOPPING: it never served"


def test_a_daemon_that_cannot_serve_never_says_ready(world: World, manager: Manager) -> None:
    world.configure("bob", "colour = 'green'\n")
    assert world.spawn("bob", env={"NOTIFY_SOCKET": manager.path}).ended() == EXIT_CONFIG
    assert manager.is_silent()


@pytest.mark.proof
def test_stopping_is_said_when_it_ends_because_it_is_idle(world: World, manager: Manager) -> None:
    world.configure("bob", f"idle_exit_s = {IDLE_S}\n")
    unit = SocketUnit(world, environment={"NOTIFY_SOCKET": manager.path})
    assert world.push("bob")["stage"] == "stored"
    assert "READY=1" in manager.told()
    assert manager.told() == ["STOPPING=1"]
    unit.close()


def test_the_watchdog_is_fed_by_the_loop_and_only_by_it(world: World, manager: Manager) -> None:
    daemon = world.spawn("bob", env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "200000"})
    assert "READY=1" in manager.told()
    begin = time.monotonic()
    for _ in range(5):
        assert manager.told() == ["WATCHDOG=1"]
    assert 0.3 < time.monotonic() - begin < 3
    daemon.freeze()
    eventually(manager.is_silent)
    assert stays(manager.is_silent, during=0.5)
    daemon.thaw()
    assert manager.told() == ["WATCHDOG=1"]


# Is the daemon, until a commit meets the file: then the disk hangs.
HANGING = """
import os, sys, time
from backchannel.mailbox.mailbox import Mailbox
commit, flag = Mailbox.commit, sys.argv[1]
def hang(mailbox):
    while os.path.exists(flag):
        time.sleep(0.01)
    commit(mailbox)
Mailbox.commit = hang
from backchannel.daemon.run import main
main(sys.argv[6:])
"""


def test_a_commit_that_hangs_silences_the_watchdog(world: World, manager: Manager) -> None:
    """The process lives, and its other thread too; only the loop stands still, in a commit."""
    flag = world.root / "hang"
    env = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "200000"}
    daemon = world.spawn("bob", wrap=[sys.executable, "-P", "-c", HANGING, str(flag)], env=env)
    assert "READY=1" in manager.told()
    assert world.push("bob")["stage"] == "stored"
    assert manager.told() == ["WATCHDOG=1"]
    flag.touch()
    link = world.link("bob")
    link.send(request("push", {"to": "bob", "text": "never answered"}))
    eventually(manager.is_silent)
    assert stays(manager.is_silent, during=0.6)
    daemon.kill()  # what the service manager does then
    assert link.line() == b""
    world.restart(daemon)
    assert world.texts("bob") == ["hello"]


@pytest.mark.proof
def test_without_a_manager_nothing_is_told(world: World) -> None:
    daemon = world.start("bob", env={"NOTIFY_SOCKET": str(world.root / "nobody"), "WATCHDOG_USEC": "200000"})
    assert world.push("bob")["stage"] == "stored", "a manager that is gone is no error"
    assert daemon.stop() == 0
