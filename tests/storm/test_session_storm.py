"""Sessions in the storm: both ends live through any number of deaths, of both, and agree on everything."""

from collections import Counter
from pathlib import Path

import pytest

from .sessionhistory import check, redeliveries, repeated_calls, retransmissions
from .sessionstorm import SessionStorm
from .storm import seed


@pytest.mark.parametrize(
    ("kills", "rounds"),
    [
        pytest.param(600, 1, marks=[pytest.mark.proof, pytest.mark.timeout(600)]),
        pytest.param(1000, 9, marks=[pytest.mark.night, pytest.mark.timeout(7200)]),
    ],
)
def test_sessions_go_on_and_end_as_agreed_under_sigkill(kills: int, rounds: int, tmp_path: Path) -> None:
    for number in range(rounds):
        chosen = seed()
        folder = tmp_path / str(number)
        folder.mkdir()
        print(f"STORM_SEED={chosen} in {folder}")
        outcome = SessionStorm(folder, chosen).blow(kills, rest_s=240.0)
        history = outcome.history
        again = retransmissions(history)
        ends = Counter(end.cause for end in history.ends)
        figures = (
            f"{outcome.kills.agents} agents and {outcome.kills.daemons} daemons killed in {outcome.seconds:.1f} s;"
            f" {len(history.pairs)} sessions, {dict(ends)};"
            f" {repeated_calls(history)} texts said again, {redeliveries(history)} redeliveries,"
            f" {again.total()} retransmissions {dict(again)}"
        )
        print(figures)
        broken = outcome.wrong + check(history)
        assert not broken, f"{len(broken)} promises broken, STORM_SEED={chosen} in {folder}: {broken[:10]}"
        assert repeated_calls(history), f"no text was said again, so nothing was tested: {figures}"
        assert redeliveries(history), f"nothing was handed out again, so nothing was tested: {figures}"
        assert again["DATA"], f"no text was pushed again, so nothing was tested: {figures}"
        assert len(ends) == 5, f"no session ended in some way, so that was not tested: {figures}"
