"""The checker of sessions must not be blind: one history that is true, and one for each lie it has to see."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from .plan import RETRY_AFTER_S, Plan, plan_of, session_id
from .sessionhistory import (
    Answered,
    Doing,
    End,
    Frame,
    Heard,
    Mail,
    Said,
    SessionHistory,
    Settled,
    Told,
    check,
    redeliveries,
    repeated_calls,
    retransmissions,
)


def a_plan(ending: str, **wanted: int) -> Plan:
    """Of some session of ada with bob."""
    plans = (plan_of(session_id("ada", "bob", 0, number)) for number in count())
    return next(p for p in plans if p.ending == ending and all(getattr(p, k) == v for k, v in wanted.items()))


TALK = a_plan("opener_first", asked=2, told=1)
NO = a_plan("rejected")
STOP = a_plan("acceptor_aborts", asked=2, told=0, aborts_at=2)


def true_history() -> SessionHistory:
    """ada opens three sessions with bob. In the first bob dies with ada's first text in his hands, and ada before she
    heard that her second was taken; both are finished. The second bob rejects, the third he aborts."""
    ada = [
        *told("ada", TALK.id, "initiator", 10.0, ("SYN-SENT", 0, 0)),
        *told("ada", TALK.id, "initiator", 10.8, ("ESTABLISHED", 1, 1)),
        Said("ada", TALK.id, "question-1", 1, TALK.question(1), False, 12.1),
        Said("ada", TALK.id, "question-2", 2, TALK.question(2), True, 12.5),
        Heard("ada", TALK.id, 1, TALK.remark(1), 1, 12.6), Settled("ada", TALK.id, 1, 1, 12.7),
        *told("ada", TALK.id, "initiator", 14.0, ("ESTABLISHED", 3, 2)),
        Heard("ada", TALK.id, 2, TALK.answer(1), 1, 14.1), Settled("ada", TALK.id, 2, 1, 14.2),
        Heard("ada", TALK.id, 3, TALK.answer(2), 1, 15.0),
        doing("ada", "close", TALK.result("ada"), 15.1), Settled("ada", TALK.id, 3, 1, 15.2),
        *told("ada", TALK.id, "initiator", 15.3, ("FIN-WAIT-1", 3, 3), ("DRAIN", 4, 4)),
        told_end("ada", TALK.id, "initiator", "finished", "", 17.0),
        told_end("ada", NO.id, "initiator", "rejected", NO.reason, 19.0),
        told_end("ada", STOP.id, "initiator", "reset", STOP.reason, 29.0),
    ]  # fmt: skip
    bob = [
        doing("bob", "accept", "", 10.5),
        *told("bob", TALK.id, "acceptor", 11.0, ("ESTABLISHED", 0, 0)),
        Said("bob", TALK.id, "remark-1", 1, TALK.remark(1), False, 11.5),
        Heard("bob", TALK.id, 1, TALK.question(1), 1, 12.2), Heard("bob", TALK.id, 1, TALK.question(1), 3, 13.0),
        Settled("bob", TALK.id, 1, 3, 13.1), Heard("bob", TALK.id, 2, TALK.question(2), 1, 14.3),
        Settled("bob", TALK.id, 2, 1, 14.4), *told("bob", TALK.id, "acceptor", 15.5, ("CLOSE-WAIT", 4, 4)),
        doing("bob", "close", TALK.result("bob"), 15.6), *told("bob", TALK.id, "acceptor", 15.7, ("LAST-ACK", 4, 4)),
        told_end("bob", TALK.id, "acceptor", "finished", "", 17.0),
        doing("bob", "reject", NO.reason, 18.0, NO.id), told_end("bob", NO.id, "acceptor", "rejected", NO.reason, 18.5),
        doing("bob", "accept", "", 20.0, STOP.id), Heard("bob", STOP.id, 1, STOP.question(1), 1, 21.0),
        Settled("bob", STOP.id, 1, 1, 21.5), Heard("bob", STOP.id, 2, STOP.question(2), 1, 22.0),
        doing("bob", "abort", STOP.reason, 22.5, STOP.id),
        told_end("bob", STOP.id, "acceptor", "aborted", STOP.reason, 23.0),
        doing("bob", "ack", "2", 30.0, STOP.id), Heard("bob", STOP.id, 2, STOP.question(2), 2, 30.0),
        Settled("bob", STOP.id, 2, 2, 30.5),
    ]  # fmt: skip
    ends = [
        End("ada", TALK.id, "bob", "initiator", "CLOSED", "finished", "", None, "ok", TALK.result("ada"), TALK.status,
            TALK.result("bob")),
        End("bob", TALK.id, "ada", "acceptor", "CLOSED", "finished", "", None, TALK.status, TALK.result("bob"), "ok",
            TALK.result("ada")),
        End("ada", NO.id, "bob", "initiator", "CLOSED", "rejected", NO.reason, RETRY_AFTER_S, *[None] * 4),
        End("bob", NO.id, "ada", "acceptor", "CLOSED", "rejected", NO.reason, None, *[None] * 4),
        End("ada", STOP.id, "bob", "initiator", "CLOSED", "reset", STOP.reason, None, *[None] * 4),
        End("bob", STOP.id, "ada", "acceptor", "CLOSED", "aborted", STOP.reason, None, *[None] * 4),
    ]  # fmt: skip
    frames = [
        *frames_of("ada", TALK, TALK.question(1), TALK.question(2)),
        *frames_of("bob", TALK, TALK.remark(1), TALK.answer(1), TALK.answer(2)),
        *frames_of("ada", STOP, STOP.question(1), STOP.question(2)), *frames_of("bob", STOP, STOP.answer(1)),
    ]  # fmt: skip
    mail = [
        *mail_of("ada", TALK, TALK.remark(1), TALK.answer(1), TALK.answer(2)),
        Mail("bob", TALK.id, "data", "1", TALK.question(1), "acked", 3),
        Mail("bob", TALK.id, "data", "2", TALK.question(2), "acked", 1),
        Mail("bob", NO.id, "offer", "offer", NO.task, "cancelled", 0),
        Mail("bob", STOP.id, "data", "1", STOP.question(1), "acked", 1),
        Mail("bob", STOP.id, "data", "2", STOP.question(2), "acked", 2),
        *mail_of("ada", STOP, STOP.answer(1)),
        *[Mail("cyd", None, "message", text, text, "acked", 1) for text in (TALK.note(1), TALK.note(2), STOP.note(1))],
    ]
    ada += [
        doing("ada", "ack", "1", 30.0, STOP.id), Heard("ada", STOP.id, 1, STOP.answer(1), 1, 30.1),
        Settled("ada", STOP.id, 1, 1, 30.2),
    ]  # fmt: skip
    answers = [
        Answered("bob", TALK.id, "SYN", 0, "stored", ""), Answered("bob", TALK.id, "DATA", 1, "stored", ""),
        Answered("bob", TALK.id, "DATA", 1, "dup", ""), Answered("ada", TALK.id, "SYN-ACK", 0, "stored", ""),
    ]  # fmt: skip
    zeros = dict.fromkeys(("finished", "rejected", "aborted", "reset", "expired", "open"), 0)
    counters = {
        "ada": {"initiator": {**zeros, "opened": 3, "finished": 1, "rejected": 1, "reset": 1}},
        "bob": {"acceptor": {**zeros, "opened": 3, "finished": 1, "rejected": 1, "aborted": 1}},
    }
    return SessionHistory({"ada": ada, "bob": bob}, answers, ends, frames, mail, counters)


def told(agent: str, session: str, role: str, at: float, *states: tuple[str, int, int]) -> Iterator[Told]:
    """Records by (state, stored_upto, acked_upto)."""
    for number, (state, stored, acked) in enumerate(states):
        version = round(at * 10) + number
        yield Told(agent, session, role, state, None, "", version, stored, acked, None, None, None, at + number / 10)


def told_end(agent: str, session: str, role: str, cause: str, reason: str, at: float) -> Told:
    result = TALK.result("bob" if agent == "ada" else "ada") if cause == "finished" else None
    upto = 4 if session == TALK.id else 1
    return Told(agent, session, role, "CLOSED", cause, reason, 1000, upto, upto, None, result, None, at)


def doing(agent: str, what: str, words: str, at: float, session: str = TALK.id) -> Doing:
    return Doing(agent, session, what, words, at)


def frames_of(agent: str, plan: Plan, *texts: str) -> list[Frame]:
    return [Frame(agent, plan.id, "DATA", seq, text, "stored") for seq, text in enumerate(texts, start=1)]


def mail_of(agent: str, plan: Plan, *texts: str) -> list[Mail]:
    return [Mail(agent, plan.id, "data", str(seq), text, "acked", 1) for seq, text in enumerate(texts, start=1)]


def test_a_true_history_passes() -> None:
    history = true_history()
    assert check(history) == []
    assert repeated_calls(history) == 1
    assert redeliveries(history) == 2
    assert retransmissions(history) == {"DATA": 1}


# --- what is said -----------------------------------------------------------------------------------------------------


def a_text_is_missing_at_the_peer(history: SessionHistory) -> None:
    del history.mail[2]


def a_text_in_the_middle_is_missing(history: SessionHistory) -> None:
    del history.mail[1]


def a_text_came_that_nobody_said(history: SessionHistory) -> None:
    history.mail[1] = history.mail[1]._replace(text="pay mallory")


def texts_came_in_another_order(history: SessionHistory) -> None:
    first, second = history.mail[3].text, history.mail[4].text
    history.mail[3:5] = [history.mail[3]._replace(text=second), history.mail[4]._replace(text=first)]


def a_receipt_of_a_text_that_never_came(history: SessionHistory) -> None:
    del history.mail[7]


def a_text_has_two_numbers(history: SessionHistory) -> None:
    history.frames.append(Frame("bob", TALK.id, "DATA", 4, TALK.answer(2), "stored"))
    history.mail.append(Mail("ada", TALK.id, "data", "4", TALK.answer(2), "acked", 1))
    history.journals["ada"].append(Heard("ada", TALK.id, 4, TALK.answer(2), 1, 16.0))


def a_text_was_confirmed_under_another_number(history: SessionHistory) -> None:
    change(history, "ada", Said, 1, seq=3)


# --- what is handed out -----------------------------------------------------------------------------------------------


def a_text_is_handed_out_again_after_its_ack(history: SessionHistory) -> None:
    history.mail[1] = history.mail[1]._replace(delivery=2)
    history.journals["ada"].insert(11, Heard("ada", TALK.id, 2, TALK.answer(1), 2, 14.3))


def a_text_is_handed_out_twice_as_the_same_delivery(history: SessionHistory) -> None:
    change(history, "bob", Heard, 1, delivery=1)
    change(history, "bob", Settled, 0, delivery=1)


def a_text_overtakes(history: SessionHistory) -> None:
    change(history, "bob", Heard, 0, seq=2, text=TALK.question(2))


def a_text_is_handed_out_as_another(history: SessionHistory) -> None:
    change(history, "bob", Heard, 0, text="pay mallory")


def a_delivery_that_was_not_in_hand_is_settled(history: SessionHistory) -> None:
    change(history, "bob", Settled, 0, delivery=2)


def an_ack_is_lost(history: SessionHistory) -> None:
    history.mail[3] = history.mail[3]._replace(stage="stored")


def a_text_is_acked_that_the_agent_never_had(history: SessionHistory) -> None:
    remove(history, "ada", Settled, 2)
    remove(history, "ada", Heard, 2)


# --- what is committed ------------------------------------------------------------------------------------------------


def an_answer_without_its_ack(history: SessionHistory) -> None:
    history.mail[4] = history.mail[4]._replace(stage="stored")
    remove(history, "bob", Settled, 1)


def an_ack_without_its_answer(history: SessionHistory) -> None:
    history.frames = [frame for frame in history.frames if frame.text != STOP.answer(1)]
    history.mail = [mail for mail in history.mail if mail.text != STOP.answer(1)]


def a_note_is_missing(history: SessionHistory) -> None:
    history.mail = [mail for mail in history.mail if mail.text != TALK.note(2)]


def a_note_came_twice(history: SessionHistory) -> None:
    history.mail.append(Mail("cyd", None, "message", "again", TALK.note(2), "acked", 1))


def a_note_of_nobody(history: SessionHistory) -> None:
    history.mail.append(Mail("cyd", None, "message", "m-1", f"{TALK.id} note 9", "acked", 1))


# --- how it ends ------------------------------------------------------------------------------------------------------


def one_end_is_open(history: SessionHistory) -> None:
    history.ends[0] = history.ends[0]._replace(state="DRAIN", cause=None)


def finished_here_and_reset_there(history: SessionHistory) -> None:
    history.ends[1] = history.ends[1]._replace(cause="reset")


def rejected_here_and_finished_there(history: SessionHistory) -> None:
    history.ends[2] = history.ends[2]._replace(cause="finished")


def reset_without_an_abort(history: SessionHistory) -> None:
    history.ends[5] = history.ends[5]._replace(cause="reset")


def the_acceptor_knows_nothing_of_it(history: SessionHistory) -> None:
    del history.ends[3]


def the_opener_knows_nothing_of_it(history: SessionHistory) -> None:
    del history.ends[2]


def a_refusal_without_a_reason(history: SessionHistory) -> None:
    history.ends[2] = history.ends[2]._replace(reason="")


def a_refusal_that_forgot_when_to_ask_again(history: SessionHistory) -> None:
    history.ends[2] = history.ends[2]._replace(retry_after=None)


def a_reset_with_another_reason(history: SessionHistory) -> None:
    history.ends[4] = history.ends[4]._replace(reason="the peer lost its mailbox")


def another_result(history: SessionHistory) -> None:
    history.ends[0] = history.ends[0]._replace(peer_result="42")


def another_status(history: SessionHistory) -> None:
    history.ends[1] = history.ends[1]._replace(peer_status="failed")


def a_frame_waits(history: SessionHistory) -> None:
    history.frames[0] = history.frames[0]._replace(stage="queued")


def mail_waits(history: SessionHistory) -> None:
    history.mail.append(Mail("bob", None, "message", "m-1", "hello", "taken", 1))


# --- what is told -----------------------------------------------------------------------------------------------------


def a_state_goes_back(history: SessionHistory) -> None:
    change(history, "ada", Told, 4, state="FIN-WAIT-1")
    change(history, "ada", Told, 3, state="FIN-WAIT-2")


def a_state_is_left_out_and_comes_back(history: SessionHistory) -> None:
    change(history, "ada", Told, 2, state="SYN-SENT")


def no_such_state(history: SessionHistory) -> None:
    change(history, "ada", Told, 2, state="TIME-WAIT")


def a_count_falls(history: SessionHistory) -> None:
    change(history, "ada", Told, 4, acked_upto=2)


def two_states_of_one_version(history: SessionHistory) -> None:
    change(history, "ada", Told, 4, version=153)


def the_end_changes(history: SessionHistory) -> None:
    change(history, "ada", Told, 7, cause="finished", peer_result=None)


def an_ack_before_the_peers_agent_had_it(history: SessionHistory) -> None:
    change(history, "ada", Told, 2, acked_upto=3)


def accepted_before_the_agent_said_so(history: SessionHistory) -> None:
    change(history, "ada", Told, 1, at=10.4)


def rejected_by_nobody(history: SessionHistory) -> None:
    remove(history, "bob", Doing, 2)


def finished_before_both_closed(history: SessionHistory) -> None:
    change(history, "ada", Told, 5, at=15.5)


# --- what the daemons answer, and count -------------------------------------------------------------------------------


def a_frame_is_taken_twice(history: SessionHistory) -> None:
    history.answers[2] = history.answers[2]._replace(outcome="stored")


def an_impossible_frame(history: SessionHistory) -> None:
    history.answers[2] = history.answers[2]._replace(outcome="gap")


def counted_wrongly(history: SessionHistory) -> None:
    history.counters["ada"]["initiator"]["reset"] = 2


def opened_is_not_the_sum(history: SessionHistory) -> None:
    history.counters["ada"]["initiator"]["opened"] = 4


def change(history: SessionHistory, agent: str, kind: type[Any], nth: int, **fields: Any) -> None:
    journal = history.journals[agent]
    place = [number for number, event in enumerate(journal) if type(event) is kind][nth]
    journal[place] = journal[place]._replace(**fields)


def remove(history: SessionHistory, agent: str, kind: type[Any], nth: int) -> None:
    journal = history.journals[agent]
    del journal[[number for number, event in enumerate(journal) if type(event) is kind][nth]]


@pytest.mark.parametrize(
    ("lie", "seen"),
    [
        (a_text_is_missing_at_the_peer, "number 3 of bob is stored and never came to ada"),
        (a_text_in_the_middle_is_missing, "ada has the numbers [1, 3]"),
        (a_text_came_that_nobody_said, "has as number 2 what bob did not say"),
        (texts_came_in_another_order, "has as number 1 what ada did not say"),
        (a_receipt_of_a_text_that_never_came, "number 2 of ada is stored and never came to bob"),
        (a_text_has_two_numbers, "bob said 2 times"),
        (a_text_was_confirmed_under_another_number, "was told that question-2 is number 3"),
        (a_text_is_handed_out_again_after_its_ack, "after it was settled"),
        (a_text_is_handed_out_twice_as_the_same_delivery, "as delivery 1 after delivery 1"),
        (a_text_overtakes, "number 2 came to bob as delivery 1 after number 0"),
        (a_text_is_handed_out_as_another, "is not what the mailbox holds"),
        (a_delivery_that_was_not_in_hand_is_settled, "settled 1, with (1, 3) in hand"),
        (an_ack_is_lost, "number 1 of bob was settled and is stored"),
        (a_text_is_acked_that_the_agent_never_had, "number 3 is acked, and ada never had it"),
        (an_answer_without_its_ack, "number 2 of bob is stored, answered 1 times"),
        (an_ack_without_its_answer, "number 1 of bob is acked, answered 0 times"),
        (a_note_is_missing, "answered 1 times and noted 0 times"),
        (a_note_came_twice, "answered 1 times and noted 2 times"),
        (a_note_of_nobody, "a note that nobody committed"),
        (one_end_is_open, "of ada is DRAIN when all is over"),
        (finished_here_and_reset_there, "ended finished at ada and reset at bob"),
        (rejected_here_and_finished_there, "ended finished at ada and rejected at bob"),
        (reset_without_an_abort, "ended reset at ada and reset at bob"),
        (the_acceptor_knows_nothing_of_it, "ended rejected at ada and None at bob"),
        (the_opener_knows_nothing_of_it, "has no opener"),
        (a_refusal_without_a_reason, "with the reason ''"),
        (a_refusal_that_forgot_when_to_ask_again, "was told to ask again after None"),
        (a_reset_with_another_reason, "with the reason 'the peer lost its mailbox'"),
        (another_result, "'42' as the result of bob"),
        (another_status, "bob has failed"),
        (a_frame_waits, "DATA 1 of ada is still queued"),
        (mail_waits, "is taken when all is over"),
        (a_state_goes_back, "was told FIN-WAIT-2, then FIN-WAIT-1"),
        (a_state_is_left_out_and_comes_back, "was told ESTABLISHED, then SYN-SENT"),
        (no_such_state, "which is no state"),
        (a_count_falls, "with counts that fell"),
        (two_states_of_one_version, "both as version 153"),
        (the_end_changes, "was told it ended finished, and it ended reset"),
        (an_ack_before_the_peers_agent_had_it, "number 2 is processed, before bob had it"),
        (accepted_before_the_agent_said_so, "was told ESTABLISHED before bob accepted"),
        (rejected_by_nobody, "was told rejected before bob rejected"),
        (finished_before_both_closed, "was told finished before bob closed"),
        (a_frame_is_taken_twice, "bob took DATA 1 2 times"),
        (an_impossible_frame, "answered DATA 1 gap"),
        (counted_wrongly, "ada counts"),
        (opened_is_not_the_sum, "ada opened 4 as initiator, and holds 3"),
    ],
)
def test_a_lie_is_seen(lie: Callable[[SessionHistory], None], seen: str) -> None:
    history = true_history()
    lie(history)
    assert any(seen in sentence for sentence in check(history)), check(history)
