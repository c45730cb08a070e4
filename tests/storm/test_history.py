"""The checker must not be blind: one history that is true, and one for each lie it has to see."""

from collections.abc import Callable
from typing import Any

import pytest

from .history import KINDS, Acked, Event, Handed, History, Row, Sent, Told, check, duplicates, redeliveries
from .journal import line, parse

ZEROS = dict.fromkeys(("stored", "taken", "acked", "done", "rejected", "expired", "cancelled", "dead"), 0)


def true_history() -> History:
    """ada sends two messages to bob; the first receipt is lost, so is bob with the second delivery in his hands."""
    ada: list[Event] = [
        Sent("ada", "bob", 0, "k0", "zero", at=1.0),
        Told("ada", "bob", "k0", True, "taken", True, "box", 1, asked=1.2, at=1.3),
        Sent("ada", "bob", 1, "k1", "one", at=1.4),
        Told("ada", "bob", "k1", True, "stored", False, "box", 2, asked=1.4, at=1.5),
        Told("ada", "bob", "k0", False, "acked", False, "box", 1, asked=1.6, at=1.7),
    ]
    bob: list[Event] = [
        Handed("bob", "ada", "k0", "zero", 1, 1, at=1.25),
        Acked("bob", "ada", "k0", 1, at=1.45),
        Handed("bob", "ada", "k1", "one", 1, 2, at=1.55),
        Handed("bob", "ada", "k1", "one", 3, 2, at=1.9),
        Acked("bob", "ada", "k1", 3, at=2.0),
    ]
    rows = [Row("bob", "ada", "k0", 1, "acked", 1), Row("bob", "ada", "k1", 2, "acked", 3)]
    return History({"ada": ada, "bob": bob}, rows, {"bob": {"total": 2, **ZEROS, "acked": 2}})


def test_a_true_history_passes() -> None:
    history = true_history()
    assert check(history) == []
    assert duplicates(history) == 1
    assert redeliveries(history) == 1


def test_a_journal_reads_back_as_it_was_written_but_for_a_torn_end() -> None:
    journal = true_history().journals["ada"]
    assert parse(b"".join(map(line, journal)) + b'["Sent", "ada"', KINDS) == journal


def row_is_missing(history: History) -> None:
    del history.rows[1]


def row_was_never_acked(history: History) -> None:
    history.rows[1] = history.rows[1]._replace(stage="taken")


def row_is_there_twice(history: History) -> None:
    history.rows.append(history.rows[0]._replace(msg_no=3))


def number_is_there_twice(history: History) -> None:
    history.rows[1] = history.rows[1]._replace(msg_no=1)


def never_handed_over(history: History) -> None:
    history.journals["bob"] = history.journals["bob"][:2]


def handed_over_with_another_text(history: History) -> None:
    change(history, "bob", 0, text="nought")


def handed_over_twice_as_the_same_delivery(history: History) -> None:
    change(history, "bob", 3, delivery=1)
    change(history, "bob", 4, delivery=1)


def handed_over_after_its_ack(history: History) -> None:
    history.journals["bob"].append(Handed("bob", "ada", "k0", "zero", 2, 1, at=3.0))


def handed_over_more_often_than_the_mailbox_knows(history: History) -> None:
    history.rows[1] = history.rows[1]._replace(delivery=2)


def acked_a_delivery_that_was_not_in_hand(history: History) -> None:
    change(history, "bob", 4, delivery=2)


def receipted_under_two_numbers(history: History) -> None:
    change(history, "ada", 4, msg_no=7)


def new_twice(history: History) -> None:
    history.journals["ada"].append(Told("ada", "bob", "k1", True, "stored", False, "box", 2, asked=1.5, at=1.5))


def new_and_taken(history: History) -> None:
    change(history, "ada", 3, stage="taken")


def stored_again_after_an_end(history: History) -> None:
    history.journals["ada"].append(Told("ada", "bob", "k0", False, "stored", False, "box", 1, asked=1.8, at=1.9))


def stale_for_who_asked_after_the_ack(history: History) -> None:
    change(history, "ada", 4, stage="taken")


def acked_before_it_was_handed_over(history: History) -> None:
    change(history, "ada", 1, stage="acked", at=1.22)


def handed_over_before_it_was_sent(history: History) -> None:
    change(history, "bob", 0, at=0.9)


def overtaken_in_the_mailbox(history: History) -> None:
    change(history, "ada", 0, number=1)
    change(history, "ada", 2, number=0)


def overtaken_at_the_first_handing_over(history: History) -> None:
    history.journals["bob"].insert(0, Handed("bob", "ada", "k1", "one", 1, 2, at=1.55))
    change(history, "bob", 3, delivery=2)


def counted_wrongly(history: History) -> None:
    history.counters["bob"].update(acked=1, taken=1)


def total_is_not_the_sum(history: History) -> None:
    history.counters["bob"]["total"] = 3


def change(history: History, agent: str, place: int, **fields: Any) -> None:
    history.journals[agent][place] = history.journals[agent][place]._replace(**fields)


@pytest.mark.parametrize(
    ("lie", "seen"),
    [
        (row_is_missing, "not in the mailbox"),
        (row_was_never_acked, "ended taken"),
        (row_is_there_twice, "is stored as [1, 3]"),
        (number_is_there_twice, "number 1 of bob was given to"),
        (never_handed_over, "was never handed over"),
        (handed_over_with_another_text, "a text that nobody sent"),
        (handed_over_twice_as_the_same_delivery, "as delivery 1 after 1"),
        (handed_over_after_its_ack, "handed over again after its ack"),
        (handed_over_more_often_than_the_mailbox_knows, "its mailbox knows of 2"),
        (acked_a_delivery_that_was_not_in_hand, "delivery 2 was acked, 3 was in hand"),
        (receipted_under_two_numbers, "was receipted as [('box', 1), ('box', 7)]"),
        (new_twice, "was new 2 times"),
        (new_and_taken, "called it new and taken"),
        (stored_again_after_an_end, "was acked, then stored"),
        (stale_for_who_asked_after_the_ack, "told to be taken after its ack"),
        (acked_before_it_was_handed_over, "acked before anybody had it"),
        (handed_over_before_it_was_sent, "handed over before it was sent"),
        (overtaken_in_the_mailbox, "is stored behind"),
        (overtaken_at_the_first_handing_over, "came to bob after"),
        (counted_wrongly, "and holds"),
        (total_is_not_the_sum, "total is not the sum"),
    ],
)
def test_a_lie_is_seen(lie: Callable[[History], None], seen: str) -> None:
    history = true_history()
    lie(history)
    assert any(seen in sentence for sentence in check(history)), check(history)
