"""The log of a daemon that nobody's service manager runs: bounded, by the daemon itself, whatever interrupts it."""

import os
import signal

import pytest

from backchannel.transport.start import start

from ..world import World, eventually

LINE = "2026-01-31T12:00:00 info something was said before\n"
BYTES_MAX = 4096


def fill(world: World, name: str, file: str = "log") -> None:
    path = world.state / name / file
    path.write_text(LINE * (BYTES_MAX // len(LINE) + 1))


def served_again(world: World, name: str = "bob") -> None:
    """Ends the daemon and lets a client start another, as the next push would."""
    agent = world.agent(name)
    agent.close()
    os.kill(world.only_process(name), signal.SIGKILL)
    eventually(lambda: not world.processes(name))
    world.agent(name).close()


@pytest.fixture
def bob(world: World) -> World:
    world.configure("bob", f"log_bytes_max = {BYTES_MAX}\nlog_files_kept = 2\n")
    world.agent("bob").close()
    return world


def files(world: World) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (world.state / "bob").glob("log*")}


def test_a_log_that_grew_too_long_is_turned_over_and_only_so_many_are_kept(bob: World) -> None:
    for _ in range(4):
        fill(bob, "bob")
        served_again(bob)
    found = files(bob)
    assert sorted(found) == ["log", "log.1", "log.2"]
    assert found["log"] < BYTES_MAX
    assert found["log.1"] >= BYTES_MAX
    assert all((bob.state / "bob" / name).stat().st_mode & 0o777 == 0o600 for name in found)


def test_it_is_turned_over_while_the_daemon_runs(bob: World) -> None:
    fill(bob, "bob")
    with bob.link("bob") as link:
        link.send(b"no JSON\n")  # which is worth a line in the log
        link.line()
    eventually(lambda: files(bob).get("log.1", 0) >= BYTES_MAX)
    assert "malformed" in (bob.state / "bob" / "log").read_text()


def test_fewer_files_than_before_are_kept_when_the_setting_says_so(bob: World) -> None:
    for number in (1, 2, 3, 4):
        fill(bob, "bob", f"log.{number}")
    fill(bob, "bob")
    served_again(bob)
    assert sorted(files(bob)) == ["log", "log.1", "log.2"]


def test_a_turn_that_was_interrupted_is_finished_by_the_next(bob: World) -> None:
    """A kill between two renames leaves a number out."""
    fill(bob, "bob", "log.2")
    fill(bob, "bob")
    served_again(bob)
    assert sorted(files(bob)) == ["log", "log.1", "log.2"]


def test_what_keeps_a_daemon_from_starting_is_found_behind_a_turn_as_well(bob: World) -> None:
    fill(bob, "bob")
    os.kill(bob.only_process("bob"), signal.SIGKILL)
    eventually(lambda: not bob.processes("bob"))
    bob.configure("bob", f"log_bytes_max = {BYTES_MAX}\ncolour = 'green'\n")
    (bob.state / "bob" / "log").write_text(LINE * ((2 << 20) // len(LINE)))
    with pytest.raises(Exception, match="unknown setting 'colour'"):
        bob.agent("bob")


def test_standard_error_that_is_no_log_of_ours_is_left_alone(world: World) -> None:
    world.configure("bob", f"log_bytes_max = {BYTES_MAX}\n")
    daemon = world.start("bob")
    assert daemon.stop() == 0
    assert "bob is served" in daemon.said()
    assert not list((world.state / "bob").glob("log*"))


def test_a_daemon_that_comes_in_vain_turns_nothing_over_that_the_settings_keep(world: World) -> None:
    world.configure("bob", "log_bytes_max = 8388608\nlog_files_kept = 5\n")
    world.agent("bob").close()
    for number in (1, 2, 3, 4, 5):
        fill(world, "bob", f"log.{number}")
    log = world.state / "bob" / "log"
    with log.open("a") as file:
        file.write(LINE * ((2 << 20) // len(LINE)))
    start(world.places, "bob")
    eventually(lambda: "served by another daemon" in log.read_text())
    assert sorted(files(world)) == ["log", "log.1", "log.2", "log.3", "log.4", "log.5"]
