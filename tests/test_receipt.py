"""Stages: which are ends, which are failures, and when a wait is over."""

import pytest

from backchannel.protocol.receipt import FAILURES, WAITABLE, Stage

LIFE = [Stage.STORED, Stage.TAKEN, Stage.ACKED, Stage.DONE]


def test_a_stage_is_its_word_on_the_wire() -> None:
    assert [str(stage) for stage in Stage] == [
        "queued", "stored", "taken", "acked", "done", "rejected", "expired", "cancelled", "dead",
    ]  # fmt: skip
    assert Stage("acked") is Stage.ACKED
    with pytest.raises(ValueError):
        Stage("delivered")


def test_a_wait_is_over_at_its_stage_and_at_every_later_one() -> None:
    for i, stage in enumerate(LIFE):
        for j, wanted in enumerate(LIFE):
            assert stage.reached(wanted) == (i >= j)


@pytest.mark.parametrize("failure", sorted(FAILURES))
def test_a_failure_ends_every_wait(failure: Stage) -> None:
    assert all(failure.reached(wanted) for wanted in WAITABLE)
    assert failure.is_failure


def test_done_is_no_failure() -> None:
    assert not Stage.DONE.is_failure


def test_only_the_stages_of_a_life_can_be_waited_for() -> None:
    assert list(WAITABLE) == LIFE
