"""One name, one daemon: the second leaves with 75 and has changed nothing. And one daemon for several names."""

import os
import socket
import time
from functools import partial
from pathlib import Path

import pytest

from ..world import Daemon, Link, World, eventually, stays

EXIT_TEMPORARY = 75
EXIT_CONFIG = 78


def fingerprint(world: World) -> dict[str, tuple[int, int, bytes]]:
    """Inode, mode and, of small files, content, of everything here."""
    found = {}
    for root in (world.state, world.dir):
        for path in sorted(root.rglob("*")):
            status = os.lstat(path)
            content = path.read_bytes() if path.name in ("key", "lock", "config.toml", "run") else b""
            found[str(path)] = (status.st_ino, status.st_mode, content)
    return found


def test_the_second_daemon_leaves_with_75_within_a_second_and_changes_nothing(world: World) -> None:
    first = world.start("bob")
    receipt = world.push("bob")
    before = fingerprint(world)
    second = world.spawn("bob")
    assert second.ended(within=1 + interpreter_start(world)) == EXIT_TEMPORARY
    assert "bob is served by another daemon already" in second.said()
    assert fingerprint(world) == before
    assert world.receipt("bob", receipt["id"])["stage"] == "stored"
    assert first.is_running


def interpreter_start(world: World) -> float:
    """What a daemon that only says its version takes on this machine now, with room for a machine that is busy."""
    begin = time.monotonic()
    assert world.spawn("bob", options=["--version"]).ended() == 0
    return 5 * (time.monotonic() - begin)


def test_the_second_daemon_does_not_even_serve_elsewhere(world: World) -> None:
    world.start("bob")
    before = fingerprint(world)
    elsewhere = world.root / "elsewhere"
    second = world.spawn("bob", options=["--dir", str(elsewhere)])
    assert second.ended() == EXIT_TEMPORARY
    assert not elsewhere.exists()
    assert fingerprint(world) == before


@pytest.mark.parametrize("attempt", range(3))
def test_of_many_that_start_at_once_exactly_one_serves(world: World, attempt: int) -> None:
    daemons = [world.spawn("bob") for _ in range(6)]
    eventually(lambda: sum(daemon.is_running for daemon in daemons) == 1, within=20)
    (winner,) = [daemon for daemon in daemons if daemon.is_running]
    world.await_answer(winner)
    assert [daemon.ended() for daemon in daemons if daemon is not winner] == [EXIT_TEMPORARY] * 5
    assert world.push("bob")["stage"] == "stored"
    assert winner.is_running


@pytest.mark.parametrize(
    "times", [pytest.param(5, marks=pytest.mark.proof), pytest.param(200, marks=pytest.mark.night)]
)
@pytest.mark.timeout(900)
def test_two_that_start_at_once_over_a_killed_one_are_never_both_nor_none(world: World, times: int) -> None:
    """Each time the one before is killed, two start together; the kernel says who of them is behind the sockets."""
    receipts = []
    winner = None
    for number in range(times):
        if winner is not None:
            winner.kill()
        pair = [world.spawn("bob"), world.spawn("bob")]
        eventually(lambda pair=pair: sum(d.is_running for d in pair) == 1, "one of the two leaves", within=20)  # type: ignore[misc]
        (winner,) = [daemon for daemon in pair if daemon.is_running]
        (loser,) = [daemon for daemon in pair if daemon is not winner]
        assert loser.process.returncode == EXIT_TEMPORARY
        world.await_answer(winner)
        assert [served_by(world, which) for which in ("inbox", "control")] == [winner.pid] * 2
        receipts.append(world.push("bob", str(number)))
    assert winner is not None
    assert world.texts("bob") == [str(number) for number in range(times)]
    assert [receipt["msg_no"] for receipt in receipts] == list(range(1, times + 1))


def served_by(world: World, which: str) -> int:
    """The pid of the process that listens there."""
    with Link(world.path("bob", which)) as link:
        return int.from_bytes(link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")


@pytest.mark.parametrize(
    "times", [pytest.param(5, marks=pytest.mark.proof), pytest.param(200, marks=pytest.mark.night)]
)
@pytest.mark.timeout(900)
def test_of_each_pair_that_starts_at_once_one_serves_a_name_of_its_own(world: World, times: int) -> None:
    for number in range(times):
        name = f"name-{number}"
        pair = [world.spawn(name), world.spawn(name)]
        eventually(lambda pair=pair: sum(d.is_running for d in pair) == 1, "one of the two leaves", within=20)  # type: ignore[misc]
        (winner,) = [daemon for daemon in pair if daemon.is_running]
        world.await_answer(winner)
        before = fingerprint(world)
        assert world.spawn(name).ended() == EXIT_TEMPORARY
        assert fingerprint(world) == before, "who comes third changes nothing either"
        winner.kill()


def test_when_the_daemon_is_killed_the_next_one_takes_over_at_once(world: World) -> None:
    daemon = world.start("bob")
    ids = []
    for _ in range(3):
        ids.append(world.push("bob")["id"])
        daemon.kill()
        daemon = world.restart(daemon)
    assert [message["id"] for message in world.take("bob", 10)] == ids


def test_the_lock_says_where_the_name_is_served(world: World) -> None:
    daemon = world.start("bob")
    assert (world.state / "bob" / "lock").read_text() == f"{world.dir}\n"
    assert daemon.stop() == 0
    world.dir = world.root / "r"
    world.start("bob")
    assert (world.state / "bob" / "lock").read_text() == f"{world.dir}\n", "nothing of the longer one is left"


# --- several names in one process -------------------------------------------------------------------------------------


def test_one_daemon_serves_several_names_each_with_its_own_mailbox(world: World) -> None:
    daemon = world.start("a", "b", "c")
    for name in "abc":
        world.push(name, f"for {name}")
    assert [world.texts(name) for name in "abc"] == [["for a"], ["for b"], ["for c"]]
    assert len({world.call(name, "ping")["mailbox_id"] for name in "abc"}) == 3
    assert daemon.stop() == 0


def test_stopping_one_of_several_names_leaves_the_others(world: World) -> None:
    daemon = world.start("a", "b")
    receipt = world.push("a", "kept")
    assert world.call("a", "stop", which="control")["stopping"]
    assert world.push("b")["stage"] == "stored"
    assert daemon.is_running
    other = world.start("a")
    assert world.receipt("a", receipt["id"])["stage"] == "stored"
    world.call("b", "stop", which="control")
    assert daemon.ended() == 0, "the last one ends the process"
    assert other.is_running


def test_if_one_of_several_names_is_taken_none_is_served(world: World) -> None:
    world.start("b")
    second = world.spawn("a", "b", "c")
    assert second.ended() == EXIT_TEMPORARY
    third = world.start("a", "c")
    assert third.is_running


# --- how it is called -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 'green'\n", "unknown setting 'colour'"),
        ("lease_seconds = 5\n", "unknown setting 'lease_seconds'"),
        ("lease_s = 'long'\n", "lease_s = 'long'"),
        ("lease_s = true\n", "lease_s = True"),
        ("lease_s = 0\n", "use 1 to"),
        ("line_bytes_max = 99999999\n", "use 4096 to 16777216"),
        ("messages_max = nan\n", "messages_max = nan"),
        ("messages_max = 1.5\n", "messages_max = 1.5"),
        ("durability = 'forever'\n", "use process or power"),
        ("durability = []\n", "durability = []"),
        ("lease_s = \n", "is not TOML"),
        ("lease_s = 5\nlease_s = 6\n", "is not TOML"),
        ("\xff", "is not TOML"),
    ],
)
@pytest.mark.parametrize("where", ["bob", ""])
def test_a_typo_in_the_config_ends_it_with_78_and_one_clear_line(
    world: World, text: str, said: str, where: str
) -> None:
    world.configure("bob", "")
    path = world.state / where / "config.toml"
    path.write_bytes(text.encode("latin-1"))
    daemon = world.spawn("bob")
    assert daemon.ended() == EXIT_CONFIG
    (line,) = daemon.said().splitlines()
    assert str(path) in line
    assert said in line
    assert "Traceback" not in line


def test_the_agents_own_config_wins_over_the_common_one(world: World) -> None:
    world.configure("bob", "line_bytes_max = 4096\n")
    (world.state / "config.toml").write_text("line_bytes_max = 8192\n")
    world.start("bob", "carol")
    assert refuses(world, "bob", 5000)
    assert not refuses(world, "carol", 5000)
    assert refuses(world, "carol", 9000)


def refuses(world: World, name: str, size: int) -> bool:
    link = world.link(name)
    link.send(b" " * size + b"\n")
    link.half_close()
    return b"oversize" in link.line()


@pytest.mark.parametrize("name", ["a/b", "..", "@user", "A", "-x", "a" * 64, "", "a b", "a\n"])
def test_a_bad_name_makes_nothing(world: World, name: str) -> None:
    daemon = world.spawn("--", name) if name.startswith("-") else world.spawn(name)
    assert daemon.ended() == 2
    assert "Traceback" not in daemon.said()
    assert not world.state.exists()
    assert not world.dir.exists()


def test_relative_places_are_refused(world: World) -> None:
    daemon = world.spawn("bob", options=["--state", "somewhere"])
    assert daemon.ended() == 2
    assert "not an absolute path" in daemon.said()


# --- at rest ----------------------------------------------------------------------------------------------------------


def resting(daemon: Daemon) -> int:
    """How often it had woken when it came to rest: its log is in the file a second after the last commit."""
    while True:
        woken = daemon.wakeups()
        if stays(partial(has_woken, daemon, woken), during=1.5):
            return woken


def has_woken(daemon: Daemon, times: int) -> bool:
    return daemon.wakeups() == times


def test_an_idle_daemon_does_not_wake(world: World) -> None:
    daemon = world.start("bob", "carol")
    world.push("bob")
    waiting = world.control("carol")
    waiting.ask("take", {"wait": None})
    woken, cpu = resting(daemon), daemon.cpu_s()
    assert stays(partial(has_woken, daemon, woken), during=2.0)
    assert daemon.cpu_s() == cpu
    world.push("carol", "good morning")
    assert waiting.answer()["result"]["messages"][0]["text"] == "good morning"


def test_the_log_never_contains_a_text_or_a_key(world: World) -> None:
    secret = "xyzzy-plugh"
    daemon = world.start("bob", "alice")
    key = world.key("alice")
    link = world.control("bob")
    lines = [
        world.push_params("bob", secret, sender="alice", headers={"k": secret}),
        world.push_params("bob", secret) | {"from": "alice", "auth": secret},
        world.push_params("bob", secret, ttl=-1),
        world.push_params("bob", secret, priority=secret),
        world.push_params("carol", secret),
        world.push_params("bob", secret, id=secret + "\n"),
        {"to": "bob", "text": [secret]},
    ]
    for params in lines:
        link.ask("push", params)
        link.answer()
    (message,) = link.call("take")["messages"]
    link.call("reject", {"id": message["id"], "reason": secret})
    for noise in (secret.encode() + b"\n", b'{"%b":\n' % secret.encode(), secret.encode() * 200_000):
        stranger = world.link("bob")
        try:
            stranger.send(noise)
            stranger.half_close()
        except OSError:
            pass
        stranger.line()
    assert daemon.stop() == 0
    for path in [daemon.log, *world.state.rglob("log*")]:
        assert secret not in path.read_text()
        assert key not in path.read_text()


def test_a_core_would_hold_mail_so_there_is_none_and_files_are_kept_open_by_nobody_else(world: World) -> None:
    daemon = world.start("bob")
    limits = Path(f"/proc/{daemon.pid}/limits").read_text()
    (core,) = [line.split() for line in limits.splitlines() if line.startswith("Max core")]
    assert core[4:6] == ["0", "0"]


def test_a_daemon_that_was_started_for_a_push_and_comes_late_does_not_undo_a_down(world: World) -> None:
    """On a busy machine a second one is started beside the first, and may get its turn when the first was stopped."""
    world.start("bob").stop()
    (world.state / "bob" / "down").write_text("by a person\n")
    late = world.spawn("bob", env={"BACKCHANNEL_ON_DEMAND": "1"})
    assert late.ended() == 75
    assert "bob is down" in late.said()
    world.start("bob")  # who types `backchanneld bob` means it
