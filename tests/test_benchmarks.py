"""The benchmarks run, in sizes that say nothing; what they find in others is nobody's business here."""

import ast
import json
import os
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import page, targets
from benchmarks.__main__ import chosen, main
from benchmarks.bench import ROOT
from benchmarks.cases import BY_NAME, CASES, WORKS
from benchmarks.figures import PINNED, UNPINNED, figures
from benchmarks.targets import TARGETS, verdict
from benchmarks.tools import DEBIAN, PYPI


@pytest.mark.timeout(240)  # ten seconds on a quiet machine, of some eighty rows with fresh daemons
def test_every_row_that_needs_no_peer_runs_and_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    with tempfile.TemporaryDirectory(prefix="b-") as folder:  # short: a socket's path has to fit in 107 bytes
        assert main(["--tiny", "--cpu", UNPINNED, "--dir", folder, "--json", str(path)]) == 0
        assert os.listdir(folder) == [], "something was left behind"
    found = json.loads(path.read_text())
    missing = set(found["missing"])
    assert set(found["rows"]) == {case.name for case in CASES if not missing & set(case.needs)}
    assert set(found["rows"]) >= {case.name for case in CASES if case.measure.startswith("ours.")}
    assert all(row[UNPINNED]["p50"] >= 0 for row in found["rows"].values())
    assert found["rows"]["send: raw Python, new"][UNPINNED]["ratio"] == 1
    assert [target["work"] for target in found["targets"]] == [target.work for target in TARGETS]
    for row in found["rows"].values():  # only latencies are drawn, and those count pinned
        row.setdefault(PINNED, row[UNPINNED])
    text = page.filled(page.PAGE.read_text(), found)
    assert all(f"| {row['system']} |" in text for row in found["rows"].values())
    assert page.filled(text, found) == text
    svg = ElementTree.fromstring(page.drawn(found))
    drawn = [row for row in found["rows"].values() if row["work"] in page.SHOWN]
    assert len(svg.findall(".//{*}circle")) == len(drawn) > 5


def test_the_page_has_a_place_for_its_figures() -> None:
    assert page.filled(
        page.PAGE.read_text(), {"machine": {}, "rounds": 0, "seed": 0, "targets": [], "rows": {}, "missing": {}}
    )


def test_a_row_is_run_pinned_and_unpinned_beside_its_base(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--only", "send: Backchannel, new", "--seed", "7"]) == 0
    printed = capsys.readouterr().out
    assert "1 rounds, seed 7" in printed
    for words in (PINNED, UNPINNED, "raw Python", "Backchannel"):
        assert words in printed


def test_a_ratio_is_taken_within_its_round_so_that_a_slow_round_does_not_count_twice() -> None:
    slow, quick = [2.0] * 9, [1.0] * 9
    row = figures([[3 * n for n in slow], quick, quick], [slow, quick, quick])
    assert row is not None
    assert (row.p50, row.ratio, row.values, row.p99) == (1.0, 1.0, 27, None)


def test_a_round_in_which_either_failed_does_not_count() -> None:
    row = figures([[4.0], None, [9.0]], [[2.0], [1.0], None])
    assert row is not None
    assert (row.ratio, row.values) == (2.0, 2)
    assert figures([None], [[1.0]]) is None


def test_a_target_is_met_missed_or_not_measured() -> None:
    target = TARGETS[0]
    assert isinstance(target.base, str)
    for ours, word in (([1.5], "ok"), ([1.7], "missed")):
        assert verdict(target, {(target.row, PINNED): [ours], (target.base, PINNED): [[1.0]]}).word == word
    assert verdict(target, {(target.row, PINNED): [[1.5]]}).word == "not measured"


def test_a_tail_needs_enough_messages_to_be_one() -> None:
    target = next(target for target in TARGETS if target.share == 0.999)
    assert isinstance(target.base, str)
    for count, word in ((999, "not measured"), (1000, "ok")):
        values = [1.0] * count
        assert verdict(target, {(target.row, PINNED): [values], (target.base, PINNED): [values]}).word == word


def test_how_many_times_faster_is_the_figure_over_ours() -> None:
    target = next(target for target in TARGETS if target.base == targets.ORIGINAL_SEND_US)
    assert verdict(target, {(target.row, PINNED): [[106.41]]}).reached == pytest.approx(100)


def test_targets_and_tables_name_rows_that_exist() -> None:
    rows = {target.row for target in TARGETS} | {target.base for target in TARGETS if isinstance(target.base, str)}
    assert rows <= BY_NAME.keys()
    assert all(work.base in BY_NAME for work in WORKS.values())


def test_what_is_chosen_comes_with_what_it_is_divided_by() -> None:
    names = {case.name for case in chosen(["batches: Backchannel, many"])}
    assert "batches: Redis Streams everysec, kept" in names  # of the table
    assert "batches: Backchannel, kept" in names  # of the target


def test_every_row_is_measured_by_a_function_that_exists_also_where_its_peer_is_not_installed() -> None:
    for case in CASES:
        module, _, function = case.measure.partition(":")
        tree = ast.parse((ROOT / "benchmarks" / (module.replace(".", "/") + ".py")).read_text())
        (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
        assert [arg.arg for arg in found.args.args][1 : 1 + len(case.options)] == list(case.options), case.name
        known = DEBIAN.keys() | {f"pypi:{need}" for need in PYPI} | {"echo", "hcom"}
        assert set(case.needs) <= known, case.name
