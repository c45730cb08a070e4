"""What was promised to survive a power cut is there after one, wherever it comes; and a wrong setting shows."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..simulation.disk import folder
from ..world import World
from .promises import Outcome, cut_everywhere, promises, waits_for_flush
from .recording import LYING_FLUSH, NO_SYNC, record

STEPS = 80  # about 200 promises
STATES = 12_500  # four times, in the proof of every change
CONTROL_STATES = 2_000

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]


@pytest.fixture
def scratch() -> Iterator[Path]:
    path = Path(folder())
    yield path
    shutil.rmtree(path)


def run(world: World, scratch: Path, seed: int, states: int, script: str = "") -> Outcome:
    recording = record(world, seed, STEPS, script=script)
    assert len(promises(recording)) > STEPS, "too little was promised: nothing would be tested"
    outcome = cut_everywhere(recording, seed, states, scratch)
    print(outcome.figures())
    assert outcome.states > states * 0.9, "too few places to cut"
    if not script:
        waits = waits_for_flush(recording)
        print(
            f"a flush begins {waits[len(waits) // 2] * 1000:.1f} ms after a promise, at most {waits[-1] * 1000:.1f} ms"
        )
    return outcome


@pytest.mark.parametrize("seed", range(4))
def test_what_was_promised_survives_every_power_cut(world: World, scratch: Path, seed: int) -> None:
    outcome = run(world, scratch, seed, STATES)
    assert not outcome.broken, f"{len(outcome.broken)} promises broken, seed {seed}: {outcome.broken[:10]}"
    assert outcome.count["process lost"], "nothing unflushed was ever lost: the cuts do nothing"


def test_a_daemon_that_does_not_flush_is_found_out(world: World, scratch: Path) -> None:
    outcome = run(world, scratch, 1, CONTROL_STATES, LYING_FLUSH)
    assert outcome.count["power lost"]
    assert not outcome.count["corrupt"], "SQLite's own flushes keep the file whole"


def test_a_mailbox_without_any_flush_is_found_out(world: World, scratch: Path) -> None:
    outcome = run(world, scratch, 1, CONTROL_STATES, NO_SYNC)
    assert outcome.count["power lost"]
    assert outcome.count["corrupt"]
