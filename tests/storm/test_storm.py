"""Three agents, three daemons, and somebody who kills them: every promise holds, or the run shows where."""

from pathlib import Path

import pytest

from .history import Acked, Told, check, duplicates, redeliveries
from .storm import NAMES, MessageStorm, seed

PAIRS = len(NAMES) * (len(NAMES) - 1)


@pytest.mark.parametrize(
    ("messages", "kills"),
    [
        pytest.param(10_000, 150, marks=[pytest.mark.proof, pytest.mark.timeout(600)]),
        pytest.param(100_000, 1500, marks=[pytest.mark.night, pytest.mark.timeout(3600)]),
    ],
)
def test_nothing_is_lost_stored_twice_or_silently_repeated_under_sigkill(
    messages: int, kills: int, tmp_path: Path
) -> None:
    chosen = seed()
    print(f"STORM_SEED={chosen} in {tmp_path}")
    outcome = MessageStorm(tmp_path, chosen, -(-messages // PAIRS), drain_s=messages / 50).blow(kills)
    history = outcome.history
    figures = (
        f"{outcome.kills.agents} agents and {outcome.kills.daemons} daemons killed in {outcome.seconds:.1f} s;"
        f" {sum(1 for _ in history.all(Told))} receipts, {duplicates(history)} duplicates;"
        f" {sum(1 for _ in history.all(Acked))} acks, {redeliveries(history)} redeliveries"
    )
    print(figures)
    broken = outcome.wrong + check(history)
    assert not broken, f"{len(broken)} promises broken, STORM_SEED={chosen} in {tmp_path}: {broken[:10]}"
    assert len(history.rows) >= messages
    assert duplicates(history), f"no push was repeated, so nothing was tested: {figures}"
    assert redeliveries(history), f"nothing was handed out again, so nothing was tested: {figures}"
