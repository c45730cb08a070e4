"""Seeds that must hold: the safety phase with all its faults, then the way to rest. `__init__.py` says how.

A step of the production code costs about 150 microseconds here. These tests make fifty thousand; `nox`, which
runs everything that must pass, makes a million more, and `-m night` the 20,000 seeds of the evidence.
"""

import os
import subprocess
import sys

import pytest

from tests.scripts import play
from tests.simulation.mutants import MUTANTS, Mutant, noticed
from tests.simulation.runner import Outcome, Tally, run_many, run_one
from tests.simulation.script import Recorder

SEEDS = 150  # enough that every fault happens
STEPS = 200  # with faults; the way to rest comes on top
NIGHT_SEEDS = 20_000


def tally_of(outcomes: list[Outcome]) -> Tally:
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    print(tally)
    assert not tally.failed, "\n".join(str(outcome) for outcome in tally.failed[:3])
    return tally


@pytest.mark.timeout(300)
def test_everything_holds_and_every_fault_happens() -> None:
    tally = tally_of([run_one(seed, STEPS) for seed in range(SEEDS)])
    assert tally.unfired == []


@pytest.mark.parametrize("seed", [3, 1_000_003])
def test_a_long_life_holds(seed: int) -> None:
    assert run_one(seed, 3_000).violation == ""


def test_a_seed_replays_bit_for_bit() -> None:
    for seed in (0, 17, 101):
        assert run_one(seed, STEPS) == run_one(seed, STEPS)


def test_a_seed_replays_bit_for_bit_in_another_process() -> None:
    here = run_one(5, STEPS)
    command = [sys.executable, "-m", "tests.simulation", "--seed", "5"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "4711"}
    )
    assert f"trace {here.trace}" in done.stdout.splitlines()[-1]


@pytest.mark.proof
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mistake_in_the_daemon_is_noticed(mutant: Mutant) -> None:
    assert noticed(mutant)


def test_what_an_end_saw_can_be_played_again_alone() -> None:
    recorder = Recorder()
    with recorder.listening():
        assert run_one(9, STEPS, recorder=recorder).violation == ""
    assert recorder.world is not None
    for session in recorder.world.truth.sessions.values():
        for name in session.ends:
            if name not in recorder.world.daemons:
                continue  # the ghost saw nothing
            host = recorder.world.daemons[name].host
            assert host is not None
            live = host.sessions.endpoint.find(session.id)
            book = recorder.script(name, session.id)
            assert play(book["scripts"][0], book["starts"]) == []
            if live is not None and live.cause is not None:
                assert book["scripts"][0]["steps"][-1]["state"] == f"CLOSED {live.cause.value}"


@pytest.mark.night
@pytest.mark.timeout(5_400)
def test_twenty_thousand_seeds_hold() -> None:
    tally = tally_of(list(run_many(range(NIGHT_SEEDS), STEPS, os.cpu_count() or 1)))
    assert min(tally.faults.values()) >= 50
