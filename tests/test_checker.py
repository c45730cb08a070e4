"""The machine against everything the network, the disks and the agents can do: `tests/checker/` says how."""

import re
from pathlib import Path

import pytest

import backchannel.protocol
from backchannel.protocol import sendqueue
from tests.checker.search import search
from tests.checker.variations import HOLD, MUST_FAIL, MUTANTS, NIGHT, Variation, noticed
from tests.checker.world import Config

LARGE = "two DATA each way"  # as many worlds as all the others of these together


@pytest.mark.parametrize(
    "config",
    [pytest.param(config, marks=[pytest.mark.proof] if config.name == LARGE else []) for config in HOLD],
    ids=lambda config: config.name,
)
def test_everything_holds(config: Config) -> None:
    verdict = search(config)
    assert not verdict.violation, "\n".join([verdict.violation, *verdict.way])
    print(verdict)


def test_the_window_is_never_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sendqueue, "WINDOW", 1)
    verdict = search(Config("a window of one", sends=(2, 1)))
    assert not verdict.violation, "\n".join([verdict.violation, *verdict.way])


@pytest.mark.night
@pytest.mark.timeout(5_400)
@pytest.mark.parametrize("config", NIGHT, ids=lambda config: config.name)
def test_everything_holds_in_large_worlds(config: Config) -> None:
    verdict = search(config)
    assert not verdict.violation, "\n".join([verdict.violation, *verdict.way])
    print(verdict)


@pytest.mark.parametrize("variation", MUST_FAIL, ids=lambda variation: variation.name)
def test_a_protocol_without_this_safeguard_is_found_out(variation: Variation) -> None:
    assert noticed(variation).startswith(variation.noticed_by)


@pytest.mark.proof
@pytest.mark.parametrize("variation", MUTANTS, ids=lambda variation: variation.name)
def test_a_mistake_in_the_machine_is_noticed(variation: Variation) -> None:
    assert noticed(variation)


def test_the_state_is_assigned_in_one_line_of_the_program() -> None:
    ring = Path(backchannel.protocol.__file__).parent
    lines = [line for path in ring.glob("*.py") for line in path.read_text().splitlines()]
    assert len([line for line in lines if re.search(r"\.state\s*=[^=]", line)]) == 1
