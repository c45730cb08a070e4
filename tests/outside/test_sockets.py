"""The sockets: closed to others from birth, never absent while the daemon lives, never a way to stop it."""

import os
import re
import select
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..world import STRANGER, Failed, Link, World, eventually, request, result, stays, wait_for_closing
from .manager import Sockets

EXIT_UNAVAILABLE = 69
EXIT_PERMISSION = 77

PERMISSIVE = [sys.executable, "-c", "import os, sys; os.umask(0); os.execvp(sys.argv[1], sys.argv[1:])"]
CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(sys.argv[1])
    except PermissionError:
        print("closed")
"""
ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.sendall(sys.argv[2].encode())
    with sock.makefile() as answers:
        print(answers.readline(), end="")
"""


def mode(path: Path | str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


# --- who may come in --------------------------------------------------------------------------------------------------


def test_sockets_are_0600_and_directories_0700_whatever_the_umask(world: World) -> None:
    world.start("bob", wrap=PERMISSIVE)
    for which in ("inbox", "control"):
        assert mode(world.path("bob", which)) == 0o600
    for folder in (world.dir, world.dir / "bob", world.state, world.state / "bob"):
        assert mode(folder) == 0o700
    for file in (world.state / "bob").iterdir():
        assert mode(file) == 0o600, file


def test_a_socket_has_its_mode_before_it_has_a_name(world: World) -> None:
    """No chmod of a path anywhere: between bind and chmod a stranger could connect."""
    if not shutil.which("strace"):
        pytest.skip("strace is not here")
    trace = world.root / "trace"
    calls = "trace=bind,listen,chmod,fchmodat,fchmod,rename,renameat,renameat2"
    world.start("bob", wrap=["strace", "-D", "-f", "-qq", "-e", calls, "-o", str(trace)])
    world.push("bob")
    lines = [re.sub(r"^\d+ +", "", line) for line in trace.read_text().splitlines()]
    assert not [line for line in lines if line.startswith(("chmod(", "fchmodat("))]
    binds = [number for number, line in enumerate(lines) if line.startswith("bind(")]
    assert len(binds) == 2
    for number in binds:
        before, after, renamed = lines[number - 1], lines[number + 1], lines[number + 2]
        fd = re.match(r"bind\((\d+),", lines[number])
        assert fd
        assert before.startswith(f"fchmod({fd[1]}, 0600)")
        assert after.startswith(f"listen({fd[1]},")
        assert renamed.startswith("rename"), "it takes its name only when it listens"


def test_a_stranger_gets_nowhere(world: World, other_uid: list[str]) -> None:
    world.start("bob")
    for which in ("inbox", "control"):
        assert world.run(CONNECT, world.path("bob", which), wrap=other_uid) == "closed\n"
    for folder in (world.root, world.dir, world.dir / "bob"):  # even where somebody was careless later
        folder.chmod(0o711)
    for which in ("inbox", "control"):
        assert world.run(CONNECT, world.path("bob", which), wrap=other_uid) == "closed\n"


# --- places that are not safe -----------------------------------------------------------------------------------------


def refused(world: World, path: Path) -> None:
    daemon = world.spawn("bob")
    assert daemon.ended() == EXIT_PERMISSION
    last = daemon.said().splitlines()[-1]
    assert str(path) in last
    assert "Traceback" not in daemon.said()


@pytest.mark.parametrize("which", ["dir", "dir/bob", "state", "state/bob"])
def test_a_directory_that_is_a_link_is_refused(world: World, which: str) -> None:
    path = place(world, which)
    elsewhere = world.root / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    path.symlink_to(elsewhere)
    refused(world, path)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("which", ["dir", "dir/bob", "state", "state/bob"])
def test_a_directory_that_others_may_read_is_refused(world: World, which: str) -> None:
    path = place(world, which)
    path.mkdir()
    path.chmod(0o755)
    refused(world, path)
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("which", ["dir", "dir/bob", "state", "state/bob"])
def test_a_directory_of_somebody_else_is_refused(world: World, other_uid: list[str], which: str) -> None:
    path = place(world, which)
    path.mkdir(mode=0o700)
    os.chown(path, STRANGER, STRANGER)
    refused(world, path)
    assert list(path.iterdir()) == []


def place(world: World, which: str) -> Path:
    root, _, name = which.partition("/")
    path = world.dir if root == "dir" else world.state
    if not name:
        return path
    path.mkdir(mode=0o700)
    return path / name


def test_a_state_directory_that_cannot_be_written_is_a_clear_error(world: World, other_uid: list[str]) -> None:
    world.root.chmod(0o711)
    for folder, permission in ((world.state, 0o500), (world.dir, 0o700)):
        folder.mkdir()
        folder.chmod(permission)
        os.chown(folder, STRANGER, STRANGER)
    daemon = world.spawn("bob", wrap=other_uid)
    assert daemon.ended() == EXIT_PERMISSION
    assert str(world.state) in daemon.said()
    assert "Traceback" not in daemon.said()


def test_a_registered_agent_on_a_read_only_state_is_a_clear_error(world: World, other_uid: list[str]) -> None:
    world.root.chmod(0o711)
    for folder in (world.state, world.dir):
        folder.mkdir(mode=0o700)
        os.chown(folder, STRANGER, STRANGER)
    assert world.start("bob", wrap=other_uid).stop() == 0
    (world.state / "bob" / "mailbox.db").chmod(0o400)
    daemon = world.spawn("bob", wrap=other_uid)
    assert daemon.ended() not in (0, 75)
    assert "mailbox.db" in daemon.said()
    assert "Traceback" not in daemon.said()


# --- long paths -------------------------------------------------------------------------------------------------------


def test_a_path_longer_than_the_kernel_takes_is_served_and_reached(world: World) -> None:
    world.dir = world.root / ("d" * 100) / ("e" * 100)
    name = "n" * 63
    world.dir.parent.mkdir(mode=0o700)
    world.start(name)
    assert len(world.path(name)) > 260
    agent = world.agent(name)
    assert agent.send(name, "far").stage == "stored"
    assert [delivery.text for delivery in agent.receive()] == ["far"]


# --- socket files that change under us --------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["inbox", "control"])
def test_a_removed_socket_is_bound_again(world: World, which: str) -> None:
    daemon = world.start("bob")
    os.unlink(world.path("bob", which))
    eventually(lambda: os.path.exists(world.path("bob", which)))
    assert world.call("bob", "ping", which=which)["agent"] == "bob"
    assert mode(world.path("bob", which)) == 0o600
    assert "was removed or replaced" in daemon.said()


@pytest.mark.parametrize("by", ["file", "socket", "link"])
def test_a_replaced_socket_is_bound_again(world: World, by: str) -> None:
    daemon = world.start("bob")
    thing = world.root / "thing"
    if by == "file":
        thing.write_text("mine now")
    elif by == "link":
        thing.symlink_to("/dev/null")
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(thing))
    os.rename(thing, world.path("bob"))
    world.await_answer(daemon)
    assert mode(world.path("bob")) == 0o600


def test_connections_live_on_when_the_socket_file_goes(world: World) -> None:
    daemon = world.start("bob")
    control = world.control("bob")
    waiting = control.ask("take", {"wait": 30})
    os.unlink(world.path("bob"))
    world.await_answer(daemon)
    world.push("bob", "still there?")
    answer = control.answer()
    assert answer["id"] == waiting
    assert result(answer)["messages"][0]["text"] == "still there?"


@pytest.mark.parametrize("gone", ["dir/bob", "dir"])
def test_a_removed_socket_directory_ends_the_daemon_with_69(world: World, gone: str) -> None:
    daemon = world.start("bob")
    receipt = world.push("bob")
    daemon.freeze()  # or it would bind the first socket again while the second is being removed
    shutil.rmtree(world.dir / "bob" if gone == "dir/bob" else world.dir)
    daemon.thaw()
    assert daemon.ended() == EXIT_UNAVAILABLE
    assert "Traceback" not in daemon.said()
    world.restart(daemon)
    assert world.receipt("bob", receipt["id"])["stage"] == "stored"


def test_a_socket_directory_replaced_by_an_unsafe_one_ends_the_daemon(world: World) -> None:
    daemon = world.start("bob")
    elsewhere = world.root / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    daemon.freeze()
    shutil.rmtree(world.dir / "bob")
    elsewhere.rename(world.dir / "bob")
    daemon.thaw()
    assert daemon.ended() == EXIT_UNAVAILABLE
    assert "is open to others" in daemon.said()
    assert "Traceback" not in daemon.said()
    assert list((world.dir / "bob").iterdir()) == []


def test_a_socket_directory_made_anew_is_watched_as_the_first_was(world: World) -> None:
    daemon = world.start("bob")
    for _ in range(2):
        daemon.freeze()
        shutil.rmtree(world.dir / "bob")
        (world.dir / "bob").mkdir(mode=0o700)
        daemon.thaw()
        world.await_answer(daemon)


def test_a_stale_socket_after_a_kill_is_taken_over(world: World) -> None:
    daemon = world.start("bob")
    daemon.kill()
    with pytest.raises(ConnectionRefusedError):
        Link(world.path("bob"))
    world.restart(daemon)
    assert world.push("bob")["stage"] == "stored"


def test_an_orderly_end_leaves_no_socket_behind(world: World) -> None:
    assert world.start("bob").stop() == 0
    assert list((world.dir / "bob").iterdir()) == []


# --- too much of everything -------------------------------------------------------------------------------------------


def test_passed_descriptors_are_never_received(world: World) -> None:
    daemon = world.start("bob")
    link = world.link("bob")
    link.call("ping")
    before = daemon.descriptors()
    with open("/dev/null") as null:
        for number in range(20):
            socket.send_fds(link.sock, [request("ping", {}, number)], [null.fileno()] * 200)
            assert link.answer()["id"] == number
    assert daemon.descriptors() == before


def test_silent_connections_do_not_lock_anybody_out(world: World) -> None:
    daemon = world.start("bob")
    control = world.control("bob")
    silent = [world.link("bob") for _ in range(600)]
    begin = time.monotonic()
    assert world.push("bob", "through the crowd")["stage"] == "stored"
    assert control.call("take")["messages"][0]["text"] == "through the crowd"
    assert world.call("bob", "ping", which="control")["agent"] == "bob"
    assert time.monotonic() - begin < 2
    assert silent[0].is_closed_by_peer(), "the oldest idle one left for them"
    assert daemon.is_running
    assert len(wait_for_closing(silent, within=6)) == len(silent), "and all go, having said nothing for 2 s"


def test_of_those_who_wait_for_a_stage_128_stay_and_the_others_are_told_to_ask_again(world: World) -> None:
    world.start("bob")
    receipt = world.push("bob")
    links = [world.link("bob") for _ in range(300)]
    for link in links:
        link.ask("wait", {"id": receipt["id"], "stage": "acked", "timeout": 60})
    eventually(lambda: len(readable(links)) == 300 - 128)
    sent_away = readable(links)
    errors = [link.answer()["error"]["data"] for link in sent_away]
    assert all(error["code"] == "again" and error["retry"] for error in errors)
    assert world.texts("bob") == ["hello"]
    assert {result(link.answer())["stage"] for link in links if link not in sent_away} == {"acked"}


def readable(links: list[Link]) -> list[Link]:
    poll = select.poll()
    for link in links:
        poll.register(link.sock, select.POLLIN)
    found = {fd for fd, _ in poll.poll(0)}
    return [link for link in links if link.sock.fileno() in found]


def test_the_control_socket_has_128_places_and_says_when_they_are_taken(world: World) -> None:
    world.start("bob")
    links = [world.control("bob") for _ in range(128)]
    for link in links:
        link.call("ping")
    one_more = world.control("bob")
    error = one_more.answer()["error"]
    assert error["data"]["code"] == "busy"
    assert error["data"]["retry"]
    links[0].close()
    eventually(lambda: control_answers(world))


def control_answers(world: World) -> bool:
    try:
        return bool(world.call("bob", "ping", which="control")["agent"])
    except (Failed, AssertionError):
        return False


def test_silence_and_slowness_are_cut_and_patience_is_not(world: World) -> None:
    world.start("bob")
    receipt = world.push("bob")
    silent, kept, half, waiting = (world.link("bob") for _ in range(4))
    kept.call("ping")
    half.send(b'{"jsonrpc":')
    waiting.ask("wait", {"id": receipt["id"], "stage": "acked", "timeout": 60})
    control = world.control("bob")
    control.send(b'{"jsonrpc":')  # the agent itself may take its time
    closed = wait_for_closing([silent, kept, half, waiting, control], within=11.5)
    assert 1.9 < closed[silent] < 4
    assert 4.9 < closed[kept] < 7
    assert closed[half] > 9.9
    assert waiting not in closed
    assert control not in closed


def test_a_reader_who_does_not_read_costs_the_others_nothing(world: World) -> None:
    daemon = world.start("bob")
    deaf = world.link("bob")
    deaf.sock.setblocking(False)
    before = daemon.memory_bytes()
    lines = request("ping", {}, "x" * 1000) * 50
    eventually(lambda: is_full(deaf, lines), "the daemon stops reading from who does not read")
    assert world.push("bob")["stage"] == "stored"
    assert daemon.memory_bytes() - before < 32 << 20


def is_full(link: Link, data: bytes) -> bool:
    """Whether nothing more can be sent, after much of it was."""
    try:
        while link.sock.send(data):
            pass
    except BlockingIOError:
        return stays(lambda: not select.select([], [link.sock], [], 0)[1], during=0.3)
    return False


LOW = ["prlimit", "--nofile=64:64"]


def test_without_descriptors_it_neither_ends_nor_spins_and_comes_back(world: World) -> None:
    daemon = world.start("bob", wrap=LOW)
    receipt = world.push("bob")
    held = [world.control("bob") for _ in range(100)]  # control connections are never swept
    eventually(lambda: daemon.descriptors() == 64)
    cpu = daemon.cpu_s()
    assert stays(lambda: daemon.is_running, during=1.0)
    assert daemon.cpu_s() - cpu < 0.2
    assert "no connection can be accepted" in daemon.said()
    for link in held:
        link.close()
    world.await_answer(daemon)
    assert world.receipt("bob", receipt["id"])["stage"] == "stored"


def test_without_descriptors_a_good_key_is_not_called_a_wrong_one(world: World) -> None:
    world.start("alice", wrap=LOW).stop()
    daemon = world.start("bob", wrap=LOW)
    link = world.control("bob")
    link.call("ping")
    for _ in range(100):
        world.control("bob")
    eventually(lambda: daemon.descriptors() == 64)
    with pytest.raises(Failed) as failed:
        link.call("push", world.push_params("bob", "hello", sender="alice"))
    assert failed.value.code == "busy"
    assert failed.value.retry, "try again, not: you are somebody else"


def test_inherited_sockets_that_are_too_open_let_no_stranger_do_anything(world: World, other_uid: list[str]) -> None:
    """A `SocketMode=0666` that somebody forgot: the kernel's word still decides."""
    sockets = Sockets(world)
    daemon = world.spawn("bob", wrap=sockets.wrap(), pass_fds=sockets.fds)
    world.await_answer(daemon)
    receipt = world.push("bob", "private")
    for folder in (world.root, world.dir, world.dir / "bob"):
        folder.chmod(0o711)
    for which in ("inbox", "control"):
        os.chmod(world.path("bob", which), 0o666)
    attempts = [
        ("inbox", "push", {"to": "bob", "text": "x"}),
        ("inbox", "cancel", {"id": receipt["id"]}),
        ("inbox", "receipt", {"id": receipt["id"]}),
        ("control", "take", {}),
        ("control", "stop", {}),
    ]
    for which, method, params in attempts:
        said = world.run(ASK, world.path("bob", which), request(method, params).decode(), wrap=other_uid)
        assert '"not_permitted"' in said, (method, said)
        assert "private" not in said
    assert world.texts("bob") == ["private"]


# --- the end ----------------------------------------------------------------------------------------------------------


def test_sigterm_ends_it_in_two_seconds_with_0_whoever_is_connected(world: World) -> None:
    daemon = world.start("bob")
    receipt = world.push("bob")
    waiting, half, kept = (world.link("bob") for _ in range(3))
    waiting.ask("wait", {"id": receipt["id"], "stage": "acked", "timeout": 60})
    half.send(b'{"jsonrpc"')
    kept.call("ping")
    taker = world.control("bob")
    assert taker.call("take")["messages"]
    taker.ask("take", {"wait": 60})
    begin = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begin < 2
    assert "Traceback" not in daemon.said()
    world.restart(daemon)
    assert world.receipt("bob", receipt["id"])["stage"] == "taken", "a restart is not the end of a lease"


def test_stop_on_the_control_socket_answers_and_ends_it(world: World) -> None:
    daemon = world.start("bob")
    assert world.call("bob", "stop", which="control")["stopping"]
    assert daemon.ended() == 0


def test_a_half_close_means_no_more_requests_and_pending_ones_are_answered(world: World) -> None:
    world.start("bob")
    receipt = world.push("bob")
    link = world.link("bob")
    link.send(request("ping", {}, 1) + request("wait", {"id": receipt["id"], "stage": "acked", "timeout": 60}, 2))
    link.half_close()
    assert link.answer()["id"] == 1
    assert world.texts("bob") == ["hello"]
    assert link.answer()["result"]["stage"] == "acked"
    assert link.line() == b""


def test_netcat_is_a_full_client(world: World) -> None:
    netcat = shutil.which("nc")
    if not netcat or "-U" not in subprocess.run([netcat, "-h"], capture_output=True, text=True).stderr:
        pytest.skip("no nc that knows unix sockets")
    world.start("bob")
    ran = subprocess.run(
        [netcat, "-NU", world.path("bob")],
        input=request("push", {"to": "bob", "text": "from a shell"}),
        capture_output=True,
        timeout=10,
    )
    assert b'"stage":"stored"' in ran.stdout
    assert world.texts("bob") == ["from a shell"]
