"""The doctor: every line says what is so, and each that is not well the command that mends it."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

from backchannel import __version__
from backchannel.testing import World

from .helpers import configure, control, status, until


def findings(world: World, *, code: int = 0) -> dict[str, list[dict[str, Any]]]:
    """By subject."""
    done = world.cli("doctor", "--json")
    assert (done.returncode, done.stderr) == (code, ""), done.stdout
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in map(json.loads, done.stdout.splitlines()):
        assert finding["verdict"] in ("ok", "warn", "fail")
        found.setdefault(finding["subject"], []).append(finding)
    return found


def says(found: dict[str, list[dict[str, Any]]], subject: str, words: str) -> dict[str, Any]:
    matching = [finding for finding in found[subject] if words in finding["says"]]
    assert len(matching) == 1, found[subject]
    return matching[0]


def test_a_daemon_that_is_well_is_described_and_tried_stage_by_stage(world: World) -> None:
    world.up("bob")
    found = findings(world)
    assert {finding["verdict"] for of_subject in found.values() for finding in of_subject} == {"ok"}
    times = says(found, "bob", "round trip")["times"]
    assert list(times) == ["connect", "answer", "commit", "flush"]
    assert all(seconds > 0 for seconds in times.values())
    assert says(found, "bob", f"version {__version__}, schema ")["says"].startswith(f"pid {world.pid('bob')} holds")
    assert says(found, "bob", "kept in reserve")
    assert says(found, "bob", "0 unacked")


def test_a_policy_that_cannot_be_used_fails_and_the_rest_is_looked_at_all_the_same(
    world: World, tmp_path: Path
) -> None:
    world.up("bob")
    policy = tmp_path / "policy.toml"
    policy.write_text("agents = [")
    policy.chmod(0o644)
    world.env["BACKCHANNEL_POLICY"] = str(policy)
    found = findings(world, code=1)
    assert says(found, "DIR", "policy.toml")["verdict"] == "fail"
    assert says(found, "bob", "round trip")["verdict"] == "ok"


def test_a_look_by_the_doctor_wakes_nobody_takes_nothing_and_counts_nothing(world: World) -> None:
    bob = world.agent("bob")
    world.agent("alice").send("bob", "hello")
    came: list[str] = []
    offers = threading.Thread(target=lambda: came.extend(d.kind for d in bob.receive(wait=1, kinds=("offer",))))
    offers.start()
    until(lambda: status(world, "bob")["receiving"], "somebody to wait")
    before = control(world, "bob", "log"), status(world, "bob")["counters"]
    findings(world)
    findings(world)
    assert (control(world, "bob", "log"), status(world, "bob")["counters"]) == before
    offers.join()
    assert came == []


def test_the_check_is_there_after_a_kill_and_is_one_row(world: World) -> None:
    world.up("bob")
    for flush in (False, True):
        assert control(world, "bob", "check", flush=flush) == {"agent": "bob", "flushed": flush}
    world.kill("bob")
    world.up("bob")
    assert (status(world, "bob")["backlog"], control(world, "bob", "log")["messages"]) == (0, [])


def test_a_daemon_that_does_not_answer_fails_with_the_command_that_mends_it(world: World) -> None:
    world.up("bob")
    pid = world.pid("bob")
    os.kill(pid, signal.SIGSTOP)
    try:
        (finding,) = findings(world, code=1)["bob"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert finding["verdict"] == "fail"
    assert "did not answer within" in finding["says"]
    assert finding["mend"] == "backchannel down bob && backchannel up bob"


def test_a_disk_below_the_reserve_fails(world: World) -> None:
    configure(world, "bob", f"reserve_bytes = {1 << 40}\n")
    world.up("bob")
    finding = says(findings(world, code=1), "bob", "pushes are refused")
    assert (finding["verdict"], finding["mend"]) == ("fail", f"df {world.paths.state('bob')}")


def test_who_is_paused_or_cannot_reach_somebody_is_a_warning(world: World) -> None:
    alice = world.agent("alice")
    world.up("bob", "carol")
    assert world.cli("pause", "carol").returncode == 0
    assert world.cli("down", "bob").returncode == 0
    alice.commit(sends=[("bob", "later")])
    until(lambda: status(world, "alice")["unreachable"], "the first attempt")
    found = findings(world)
    assert says(found, "carol", "is paused")["mend"] == "backchannel resume carol"
    assert says(found, "alice", "cannot reach bob")["verdict"] == "warn"
    assert says(found, "bob", "is down")["mend"] == "backchannel up bob"


def test_an_open_key_or_directory_is_named_with_its_mode(world: World) -> None:
    world.up("bob")
    os.chmod(world.paths.state("bob", "key"), 0o644)
    finding = says(findings(world, code=1), "bob", "mode 0644")
    assert finding["mend"] == f"chmod 600 {world.paths.state('bob', 'key')}"
    os.chmod(world.paths.state("bob", "key"), 0o600)
    os.chmod(world.paths.state("bob"), 0o755)
    assert "mode 0755" in findings(world, code=1)["bob"][0]["says"]
    os.chmod(world.paths.state("bob"), 0o700)
