"""What the daemons counted, for whoever collects: read back by the format's own parsers."""

import os
import stat
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import parser as text_format
from prometheus_client.openmetrics import parser as openmetrics

from backchannel.cli.metrics import exposition
from backchannel.daemon.histogram import BOUNDS_S, Histogram
from backchannel.testing import World

from .helpers import Refusal, collect, control, established


def read(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """By a sample's name its values by labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in openmetrics.text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def counted(world: World, *args: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    done = world.cli("metrics", *args)
    assert (done.returncode, done.stderr) == (0, "")
    return read(done.stdout)


def of(agent: str, **labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"agent": agent, **labels}.items()))


def test_every_message_is_counted_where_it_is_and_how_it_ended(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    for text in ("one", "two"):
        analyst.send("executor", text)
    collect(executor, 2)
    rejected = analyst.send("executor", "three")
    next(executor.receive(wait=5)).reject("busy")
    assert rejected.refresh().stage == "rejected"
    analyst.cancel(analyst.send("executor", "four").id)
    analyst.send("executor", "five")
    with pytest.raises(Refusal):
        control(world, "executor", "ack", id="nothing")
    found = counted(world)
    assert found["backchannel_messages_stored_total"][of("executor")] == 5
    ended = found["backchannel_messages_ended_total"]
    assert {dict(key)["outcome"]: n for key, n in ended.items() if ("agent", "executor") in key} == {
        "acked": 2, "rejected": 1, "expired": 0, "cancelled": 1, "dead": 0,
    }  # fmt: skip
    assert found["backchannel_backlog_messages"][of("executor", stage="stored")] == 1
    assert found["backchannel_oldest_unacked_seconds"][of("executor")] >= 0
    assert found["backchannel_requests_refused_total"][of("executor", code="no_such_message")] == 1
    assert found["backchannel_commits_total"][of("executor")] >= 5
    assert found["backchannel_up"] == {of("analyst"): 1, of("executor"): 1}


def test_sessions_are_counted_by_state_and_by_their_end(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    opened, _ = established(analyst, executor)
    established(analyst, executor)
    opened.abort("enough")
    found = counted(world, "analyst")
    assert found["backchannel_sessions"][of("analyst", state="ESTABLISHED")] == 1
    assert found["backchannel_sessions_opened_total"][of("analyst", role="initiator")] == 2
    assert found["backchannel_sessions_ended_total"][of("analyst", role="initiator", cause="aborted")] == 1
    assert not any(("agent", "executor") in key for key in found["backchannel_up"])


def test_how_long_a_stage_took_is_a_histogram(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    for _ in range(3):
        analyst.send("executor", "hello")
    collect(executor, 3)
    executor.commit(sends=[("analyst", "back")])
    collect(analyst, 1)
    found = counted(world)
    count = found["backchannel_stage_seconds_count"]
    assert count[of("executor", stage="waited")] == count[of("executor", stage="handled")] == 3
    assert count[of("executor", stage="queued")] == 1
    assert count[of("executor", stage="committed")] >= 6
    assert found["backchannel_stage_seconds_sum"][of("executor", stage="committed")] > 0


def test_who_does_not_run_is_not_started_to_be_counted(world: World) -> None:
    world.up("bob", "carol")
    world.stop("bob")
    assert world.cli("down", "carol").returncode == 0
    found = counted(world)
    assert found["backchannel_up"] == {of("bob"): 0, of("carol"): 0}
    assert set(found) == {"backchannel_up"}
    assert not world.stop("bob"), "it was started"
    unknown = world.cli("metrics", "nobody")
    assert (unknown.returncode, unknown.stdout) == (5, "")


def test_a_textfile_is_there_whole_or_not_at_all_and_fit_for_node_exporter(world: World, tmp_path: Path) -> None:
    world.up("bob")
    path = tmp_path / "backchannel.prom"
    path.write_text("old")
    done = world.cli("metrics", "--textfile", str(path))
    assert (done.returncode, done.stdout) == (0, "")
    assert read(path.read_text())["backchannel_up"] == {of("bob"): 1}
    families = {family.name: family for family in text_format.text_string_to_metric_families(path.read_text())}
    assert families["backchannel_stage_seconds"].type == "histogram"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    failed = world.cli("metrics", "--textfile", str(tmp_path / "nowhere" / "x.prom"))
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert f"{tmp_path}/nowhere/x.prom could not be written (No such file or directory): look" in failed.stderr
    assert os.listdir(tmp_path) == ["backchannel.prom"]


def test_a_textfile_is_for_the_collector_whatever_the_umask_of_who_writes_it(world: World, tmp_path: Path) -> None:
    path = tmp_path / "backchannel.prom"
    before = os.umask(0o077)
    try:
        assert world.cli("metrics", "--textfile", str(path)).returncode == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644


def test_a_name_cannot_break_a_line() -> None:
    text = "".join(f"{line}\n" for line in exposition({'a"b\\c\nd': None}, 0.0))
    assert list(read(text)["backchannel_up"]) == [(("agent", 'a"b\\c\nd'),)]


def test_a_histogram_counts_each_time_once_wherever_it_falls() -> None:
    histogram = Histogram()
    times = [-1.0, 0.0, BOUNDS_S[0], BOUNDS_S[0] * 1.01, 0.3, BOUNDS_S[-1], 1e9]
    for seconds in times:
        histogram.observe(seconds)
    shown: dict[str, Any] = histogram.shown()
    assert sum(shown["counts"]) == len(times)
    assert shown["counts"][:2] == [3, 1]
    assert shown["counts"][-1] == 1
    assert len(shown["counts"]) == len(shown["bounds"]) + 1


def test_the_command_ends_when_its_reader_has_gone(world: World) -> None:
    world.up("bob")
    script = '"$0" metrics | head -n 1; echo "${PIPESTATUS[0]}" >&2'
    command = ["bash", "-c", script, f"{sysconfig.get_path('scripts')}/backchannel"]
    done = subprocess.run(command, env=world.env, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("# HELP")
    assert "Traceback" not in done.stderr
