"""The order of what waits, beside a sorted list."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.mailbox import ready
from backchannel.mailbox.ready import Lane, Ready


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["new", "first", "some", "back"]), st.integers(0, 10_000)), max_size=200),
    compact_from=st.sampled_from([1, 5, 4096]),
)
def test_a_lane_is_a_sorted_list(steps: list[tuple[str, int]], compact_from: int) -> None:
    lane, model, gone, next_no = Lane(), list[int](), list[int](), 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ready, "COMPACT_FROM", compact_from)
        for what, which in steps:
            if what == "new":
                lane.add(next_no)
                model.append(next_no)
                next_no += 1
            elif what == "back" and gone:
                number = gone.pop(which % len(gone))
                lane.add(number)
                model.append(number)
                model.sort()
            elif model and what in ("first", "some"):
                number = model.pop(0 if what == "first" else which % len(model))
                lane.remove(number)
                gone.append(number)
            assert list(lane) == model
            assert len(lane) == len(model)
            assert lane.first == (model[0] if model else None)


def test_urgent_goes_before_normal_before_low_and_each_in_order() -> None:
    waiting = Ready()
    numbers = list(range(1, 31))
    random.Random(7).shuffle(numbers)
    for number in numbers:
        waiting.add(number, number % 3, None)
    assert list(waiting) == sorted(numbers, key=lambda number: (number % 3, number))
    assert waiting.oldest() == 1


def test_the_mail_of_a_session_is_found_without_looking_at_the_rest() -> None:
    waiting = Ready()
    for number in range(1, 10):
        waiting.add(number, 1, "s-a" if number % 2 else None)
    waiting.remove(3, 1, "s-a")
    waiting.add(3, 1, "s-a")
    assert waiting.in_session("s-a") == [1, 3, 5, 7, 9]
    for number in (1, 3, 5, 7, 9):
        waiting.remove(number, 1, "s-a")
    assert waiting.in_session("s-a") == []
    assert waiting.of_session == {}
