"""The benchmarks run; what they find is nobody's business here."""

import json
from pathlib import Path

from benchmarks import latency


def test_every_case_of_the_latency_benchmark_runs_and_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    latency.main(["--rounds", "1", "--messages", "10", "--json", str(path)])
    found = json.loads(path.read_text())
    for mode in ("pinned", "unpinned"):
        assert set(found[mode]) == set(latency.CASES)
        assert all(figures["p50"] > 0 for figures in found[mode].values())
        assert found[mode][latency.BASE]["ratio"] == 1


def test_a_ratio_is_taken_within_its_round_so_that_a_slow_round_does_not_count_twice() -> None:
    slow, quick = [2000] * 9, [1000] * 9
    row = latency.figures("case", [[3 * n for n in slow], quick, quick], [slow, quick, quick])
    assert (row.p50, row.ratio, row.messages) == (1.0, 1.0, 27)
