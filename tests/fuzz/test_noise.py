"""No line makes anything but an answer or a refusal with a code; and both codecs read every line alike."""

import pytest

from .__main__ import read_many, tell_many
from .noise import Noise

SEEDS = [pytest.param(0, 20_000, id="some")] + [
    pytest.param(seed, 500_000, id=f"seed {seed}", marks=[pytest.mark.proof, pytest.mark.timeout(600)])
    for seed in (1, 2)
]


@pytest.mark.parametrize(("seed", "lines"), SEEDS)
def test_every_line_is_read_or_refused_with_a_code(seed: int, lines: int) -> None:
    codes = read_many(seed, lines)
    assert codes.total() == lines
    assert codes[""] > lines / 10, "noise that is never understood tests only the first door"
    assert {"malformed", "bad_request", "bad_params", "bad_id"} <= codes.keys()


@pytest.mark.parametrize(("seed", "lines"), SEEDS)
def test_a_host_answers_every_line_and_then_the_next_good_push(seed: int, lines: int) -> None:
    codes = tell_many(seed, lines)
    assert codes["ok"] > lines / 20
    assert {"ended", "session_state", "stale", "no_such_message"} <= codes.keys(), "some of it went deep"


def test_a_seed_says_the_same_again() -> None:
    first, again = Noise(5), Noise(5)
    assert [first.line() for _ in range(100)] == [again.line() for _ in range(100)]
