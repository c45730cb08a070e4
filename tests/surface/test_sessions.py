"""Sessions from Python: a task is agreed on, texts go both ways, and there is a result; whoever dies meanwhile."""

import asyncio
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backchannel import (
    Agent,
    BackchannelError,
    LocalProtocolError,
    OverLimit,
    PeerAbsent,
    Refused,
    Session,
    TimedOut,
)
from backchannel.testing import World

from .helpers import PATIENCE_S, collect, established, heard, kill, left, offer, opening, reached, status, texts, until

WINDOW = 1000
HOLDING = """
import sys, time
from backchannel import Agent
me = Agent("executor")
session = me.session(sys.argv[1])
for data in session:
    print(data.delivery, data.text, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def analyst(shared: World) -> Agent:
    return shared.agent("analyst")


@pytest.fixture
def executor(shared: World) -> Agent:
    return shared.agent("executor")


# --- a whole conversation ---------------------------------------------------------------------------------------------


def test_a_task_is_done_in_a_session_and_both_know_how_it_ended(analyst: Agent, executor: Agent) -> None:
    def review() -> None:
        request = offer(executor)
        assert (request.sender, request.task) == ("analyst", "review PR #42")
        with request.accept() as session:
            for data in session:
                session.send(f"looked at {data.text}")
            session.close("two findings")

    with ThreadPoolExecutor(1) as pool:
        reviewing = pool.submit(review)
        with analyst.open("executor", task="review PR #42", timeout=20) as session:
            assert (session.peer, session.role, session.state) == ("executor", "initiator", "ESTABLISHED")
            session.send("auth.py")
            session.send("login.py")
            session.close()
            assert [data.text for data in session] == ["looked at auth.py", "looked at login.py"]
        session.wait(20)
        reviewing.result(20)
    assert session.result == ("ok", "two findings")
    assert (session.state, session.task_state, session.record.cause) == ("CLOSED", "completed", "finished")
    assert left(analyst, None) == left(executor, None) == []  # no notice is left lying


def test_the_same_with_asyncio(shared: World) -> None:
    async def review() -> None:
        async with shared.async_agent("executor") as executor:
            async for request in executor.requests(wait=20):
                async with await request.accept() as session:
                    async for data in session:
                        await data.reply(f"looked at {data.text}")
                    await session.close("two findings", "failed")
                    await session.wait(20)
                return

    async def hand_over() -> tuple[Any, ...]:
        reviewing = asyncio.create_task(review())
        async with shared.async_agent("analyst") as analyst:
            async with await analyst.open("executor", "review PR #42", timeout=20) as session:
                receipt = await session.send("auth.py")
                await session.send("login.py", key="k")
                await receipt.wait("acked", 20)
                await session.close()
                found = [data.text async for data in session]
            await session.wait(20)
            await reviewing
            records = await analyst.sessions(is_open=False)
            return found, session.result, session.task_state, session.id in {record.id for record in records}

    found, result, task_state, is_listed = asyncio.run(hand_over())
    assert found == ["looked at auth.py", "looked at login.py"]
    assert (result, task_state, is_listed) == (("failed", "two findings"), "failed", True)


def test_a_receipt_that_nobody_waits_for_is_written_down_too(shared: World, analyst: Agent, executor: Agent) -> None:
    ours, _ = established(analyst, executor)
    said = [ours.send(text) for text in "abc"]
    until(lambda: status(shared, "analyst")["outbox"] == 0, "the frames to leave the outbox")
    assert said[-1].wait("stored", 20).stage == "stored"


def test_the_opener_may_only_wait_for_the_result(analyst: Agent, executor: Agent) -> None:
    """What was said and not read is kept for a loop afterwards."""
    ours, theirs = established(analyst, executor)
    theirs.send("one")
    theirs.send("two")
    theirs.close("done")
    ours.close()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(theirs.wait, 20)
        assert ours.wait(20).result == ("ok", "done")
        other.result(20)
    assert [data.text for data in ours] == ["one", "two"]
    assert [data.text for data in ours] == []


def test_a_session_is_listed_and_found_by_its_state(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor, "first")
    other, _ = established(analyst, executor, "second")
    assert [record.id for record in analyst.sessions("ESTABLISHED")][:2] == [other.id, ours.id]
    assert {record.task for record in executor.sessions(is_open=True)} >= {"first", "second"}
    assert repr(theirs.record) == f"SessionRecord(id={ours.id!r}, peer='analyst', state='ESTABLISHED')"
    ours.abort("enough")
    assert ours.id in {record.id for record in analyst.sessions(is_open=False)}
    other.abort("enough")


# --- offers -----------------------------------------------------------------------------------------------------------


def test_a_refusal_has_its_reason_and_a_time(analyst: Agent, executor: Agent, shared: World) -> None:
    with opening(analyst, "executor", "review") as opened:
        offer(executor).reject("busy", retry_after=60)
        with pytest.raises(Refused) as refused:
            opened.result(20)
    assert (refused.value.reason, refused.value.retry_after, refused.value.code) == ("busy", 60, "rejected")
    assert "ask again in 60 s" in str(refused.value)

    async def ask_again() -> None:
        async with shared.async_agent("analyst") as asking:
            await asking.open("executor", "again", timeout=20)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(asyncio.run, ask_again())
        offer(executor).reject("still busy")
        with pytest.raises(Refused) as again:
            asked.result(20)
    assert (again.value.reason, again.value.retry_after) == ("still busy", None)
    assert left(analyst, None) == left(executor, None) == []


def test_an_offer_that_nobody_answers_is_withdrawn(analyst: Agent, executor: Agent) -> None:
    with pytest.raises(TimedOut) as timed_out:
        analyst.open("executor", "review", timeout=0.1)
    assert timed_out.value.waited == 0.1
    (record, *_) = analyst.sessions()
    assert (record.state, record.task_state) == ("CLOSED", "canceled")
    until(lambda: not executor.sessions("SYN-RECEIVED"), "the offer to be gone")
    assert list(executor.requests(wait=0)) == []
    assert left(analyst, None) == []


def test_an_offer_that_ends_before_the_openers_patience_says_why(
    analyst: Agent, executor: Agent, shared: World
) -> None:
    with pytest.raises(TimedOut, match="before the deadline of the session"):
        analyst.open("executor", "review", timeout=PATIENCE_S, deadline=0.1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(analyst.open, "executor", "review", timeout=PATIENCE_S)
        (record,) = until(lambda: analyst.sessions(state="SYN-SENT"), "the offer")
        assert shared.cli("abort", record.id, "--reason", "changed my mind", agent="analyst").returncode == 0
        with pytest.raises(LocalProtocolError, match=r"was aborted \(changed my mind\)"):
            waiting.result(PATIENCE_S)


def test_a_request_that_was_given_up_cannot_be_accepted(analyst: Agent, executor: Agent) -> None:
    with opening(analyst, "executor", "review", timeout=0.3) as opened:
        request = offer(executor)
        with pytest.raises(TimedOut):
            opened.result(20)
    until(lambda: not executor.sessions("SYN-RECEIVED"), "the offer to be gone")
    with pytest.raises(LocalProtocolError) as gone:
        request.accept()
    assert gone.value.code == "session_state"
    assert "CLOSED" in gone.value.message


def test_an_offer_is_answered_once(analyst: Agent, executor: Agent) -> None:
    with opening(analyst, "executor", "review") as opened:
        first, second = offer(executor), offer(executor)
        assert first.id == second.id
        first.reject("busy")
        with pytest.raises(LocalProtocolError):
            second.accept()
        with pytest.raises(Refused):
            opened.result(20)


def test_requests_leave_out_what_was_answered_elsewhere(analyst: Agent, executor: Agent) -> None:
    with opening(analyst, "executor", "one") as one:
        requests = executor.requests(wait=0.2)
        assert next(requests).task == "one"
        with opening(analyst, "executor", "two") as two:
            until(lambda: len(executor.sessions("SYN-RECEIVED")) == 2, "both offers")
            for record in executor.sessions("SYN-RECEIVED"):
                if record.task == "two":
                    offered = [request for request in executor.requests(wait=0) if request.id == record.id]
                    offered[0].reject("no")
            assert list(requests) == []
            with pytest.raises(Refused):
                two.result(20)
        offer(executor).reject("no")
        with pytest.raises(Refused):
            one.result(20)


def test_an_unknown_agent_is_an_error_at_once(analyst: Agent) -> None:
    with pytest.raises(PeerAbsent) as absent:
        analyst.open("executer", "review")
    assert absent.value.hint == "did you mean executor?"
    assert all(record.peer != "executer" for record in analyst.sessions())


def test_an_opener_that_is_interrupted_takes_its_offer_back(shared: World, executor: Agent) -> None:
    async def give_up() -> None:
        async with shared.async_agent("analyst") as analyst:
            asking = asyncio.create_task(analyst.open("executor", "review", timeout=60))
            while not await asyncio.to_thread(executor.sessions, "SYN-RECEIVED"):
                await asyncio.sleep(0.005)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    asyncio.run(give_up())
    until(lambda: not executor.sessions("SYN-RECEIVED"), "the offer to be gone")


# --- reading ----------------------------------------------------------------------------------------------------------


def test_asking_for_the_next_acknowledges_the_last(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    receipts = [ours.send(text) for text in ("one", "two")]
    reading = iter(theirs)
    assert next(reading).text == "one"
    assert receipts[0].wait("stored", 20).refresh().stage == "stored"
    assert next(reading).text == "two"
    assert receipts[0].wait("acked", 20).stage == "acked"
    assert receipts[1].refresh().stage == "stored"
    ours.abort("enough")


def test_what_a_loop_left_unacknowledged_comes_first_in_the_next(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    for text in ("one", "two", "three"):
        ours.send(text)
    ours.close()
    for data in theirs:
        if data.text == "two":
            break
    again = list(theirs)
    assert [(data.text, data.delivery) for data in again] == [("two", 1), ("three", 1)]


def test_texts_are_acknowledged_by_hand_one_before_the_next(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    ours.send("one")
    ours.send("two")
    reading = theirs.receive(wait=PATIENCE_S)
    next(reading)
    with pytest.raises(LocalProtocolError) as unsettled:
        next(reading)
    assert f"{ours.id}/1 is not settled" in unsettled.value.message
    first = next(theirs.receive())
    first.release()
    again = next(theirs.receive(wait=PATIENCE_S))
    assert (again.text, again.delivery) == ("one", 2)
    again.ack()
    assert heard(theirs, 1) == ["two"]
    assert list(theirs.receive(wait=0)) == []
    ours.close()
    assert list(theirs.receive(wait=PATIENCE_S)) == []  # the FIN ends it
    ours.abort("enough")


def test_a_text_that_nobody_survives_ends_the_session(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    ours.send("poison")
    for _ in range(5):
        next(theirs.receive(wait=PATIENCE_S)).release()
    with pytest.raises(Refused) as refused:
        list(ours)
    assert (refused.value.code, refused.value.reason) == ("reset", "poison")


def test_while_a_session_is_held_nobody_else_gets_its_mail(analyst: Agent, executor: Agent, shared: World) -> None:
    ours, theirs = established(analyst, executor)
    ours.send("for the session")
    ours.send("for anybody").wait("stored", 20)
    assert left(executor, None) == []
    assert heard(theirs, 1) == ["for the session"]
    del theirs
    assert texts(collect(executor, 1, ("data",))) == ["for anybody"]
    ours.abort("enough")


def test_a_second_process_is_told_that_a_session_is_held(analyst: Agent, executor: Agent, shared: World) -> None:
    ours, theirs = established(analyst, executor)
    with shared.agent("executor") as other:
        with pytest.raises(Refused) as held_by_another:
            other.session(ours.id)
        assert held_by_another.value.code == "taken"
        del theirs
        assert other.session(ours.id).peer == "analyst"
    ours.abort("enough")


def test_a_loop_ends_when_another_process_of_the_agent_aborts(analyst: Agent, executor: Agent, shared: World) -> None:
    ours, theirs = established(analyst, executor)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, theirs)
        until(lambda: status(shared, "executor")["receiving"], "the loop to wait")
        assert shared.cli("abort", ours.id, "--reason", "lunch", agent="executor").returncode == 0
        aborted = reading.exception(20)
    assert isinstance(aborted, LocalProtocolError)
    assert "aborted (lunch)" in aborted.message


def test_closing_the_agent_ends_what_its_other_threads_wait_for(analyst: Agent, shared: World) -> None:
    closing = shared.agent("executor")
    _, theirs = established(analyst, closing)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, theirs)
        until(lambda: status(shared, "executor")["receiving"], "the loop to wait")
        closing.close()
        assert isinstance(reading.exception(PATIENCE_S), LocalProtocolError)


def test_a_message_sent_because_of_a_sessions_text_continues_its_trace(
    analyst: Agent, executor: Agent, shared: World
) -> None:
    writer = shared.agent("writer")
    first = analyst.send("executor", "look at this")
    for _ in executor.receive(wait=PATIENCE_S):  # what is opened meanwhile belongs to it
        with opening(executor, "writer", "unrelated", timeout=0.05) as elsewhere, pytest.raises(TimedOut):
            elsewhere.result(20)
        opened = executor.sessions()[0]
        break
    assert opened.trace_id is None  # another thread
    for delivery in executor.receive(wait=PATIENCE_S):
        with pytest.raises(TimedOut):
            executor.open("writer", "write it up", timeout=0.05)
        delivery.ack()
        break
    (record, *_) = executor.sessions()
    assert (record.trace_id, record.hops) == (first.id, 1)

    ours, theirs = established(analyst, executor)
    ours.send("tell writer")
    for data in theirs.receive(wait=PATIENCE_S):
        executor.send("writer", "told")
        data.ack()
        break
    (told,) = collect(writer, 1)
    assert (told.trace_id, told.hops, told.path) == (ours.id, 1, ["analyst", "executor"])
    ours.abort("enough")


# --- talking ----------------------------------------------------------------------------------------------------------


def test_a_reply_acknowledges_and_answers_in_one_commit(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    asked = ours.send("8080 or 3000?")
    data = next(theirs.receive(wait=PATIENCE_S))
    receipt = data.reply("8080")
    assert (receipt.id, receipt.stage, data.is_settled) == (f"{ours.id}/1", "queued", True)
    assert heard(ours, 1) == ["8080"]
    assert (asked.wait("acked", 20).stage, receipt.wait("acked", 20).stage) == ("acked", "acked")
    with pytest.raises(LocalProtocolError):
        data.reply("with headers", headers={"sure": "yes"})
    ours.abort("enough")


def test_a_commit_does_all_of_it_or_nothing(analyst: Agent, executor: Agent, shared: World) -> None:
    ours, theirs = established(analyst, executor)
    writer = shared.agent("writer")
    ours.send("one")
    ours.send("two")
    data = next(theirs.receive(wait=PATIENCE_S))
    with pytest.raises(PeerAbsent):
        executor.commit(acks=[data], sends=[(theirs, "lost"), ("nobody", "x")], closes=[theirs])
    assert theirs.refresh().state == "ESTABLISHED"
    receipts = executor.commit(acks=[data], sends=[(theirs, "first"), ("writer", "second"), (theirs, "third")])
    assert [receipt.to for receipt in receipts] == ["analyst", "writer", "analyst"]
    data = next(theirs.receive(wait=PATIENCE_S))
    executor.commit(replies=[(data, "fourth")], closes=[(theirs, "not today", "failed")])
    assert theirs.state == "FIN-WAIT-1"
    assert [data.text for data in ours] == ["first", "third", "fourth"]
    assert ours.result == ("failed", "not today")
    assert texts(collect(writer, 1)) == ["second"]
    assert receipts[0].wait("acked", 20).stage == "acked"


def test_the_same_key_is_said_once(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    assert not ours.send("deploy", key="k").duplicate
    assert ours.send("deploy", key="k").duplicate
    with pytest.raises(Refused) as reused:
        ours.send("destroy", key="k")
    assert reused.value.code == "key_reused"
    ours.close()
    assert [data.text for data in theirs] == ["deploy"]


def test_the_peer_sees_progress_and_that_input_is_required(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    assert theirs.progress("3 of 7 files").state == "ESTABLISHED"
    until(lambda: ours.refresh().record.progress == "3 of 7 files", "the note")
    assert ours.record.progress_at is not None
    theirs.send("which branch?", input_required=True)
    assert reached(ours, "ESTABLISHED").task_state in ("working", "input-required")
    until(lambda: ours.refresh().task_state == "input-required", "the question")
    ours.send("main")
    assert ours.refresh().task_state == "working"
    ours.abort("enough")


def test_a_full_window_is_waited_for(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    for first in range(0, WINDOW, 100):
        analyst.commit(sends=[(ours, str(number)) for number in range(first, first + 100)])
    with pytest.raises(OverLimit) as full:
        ours.send("one more", timeout=0.05)
    assert full.value.code == "window"
    with pytest.raises(OverLimit):
        analyst.commit(sends=[(ours, "one more")])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ours.send, "one more", timeout=20)
        assert heard(theirs, 1) == ["0"]
        assert waiting.result(20).id == f"{ours.id}/{WINDOW + 1}"
    ours.abort("enough")


def test_a_budget_ends_the_session_for_both(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor, max_messages=2)
    assert (theirs.record.max_messages, ours.record.max_bytes) == (2, None)
    ours.send("one")
    theirs.send("two")
    assert heard(ours, 1) == ["two"]
    with pytest.raises(Refused) as spent:
        ours.send("three")
    assert (spent.value.code, spent.value.reason) == ("budget", "max_messages")
    assert heard(theirs, 1) == ["one"]
    with pytest.raises(Refused) as ended:
        list(theirs)
    assert (ended.value.code, ended.value.reason) == ("reset", "max_messages")


def test_a_deadline_and_a_silence_end_it_too(analyst: Agent, executor: Agent) -> None:
    for limit in ("deadline", "idle_timeout"):
        limits: dict[str, Any] = {limit: 0.2}
        ours, _ = established(analyst, executor, **limits)
        with pytest.raises(Refused) as ended:
            list(ours)
        assert (ended.value.code, ended.value.reason) in (("expired", limit), ("reset", limit))


# --- ending -----------------------------------------------------------------------------------------------------------


def test_nothing_can_be_said_after_the_own_fin(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    ours.close("that was all")
    assert ours.close("that was all").state.startswith("FIN-WAIT")
    with pytest.raises(LocalProtocolError) as other:
        ours.close("that was not all")
    with pytest.raises(LocalProtocolError) as said:
        ours.send("one thing more")
    for error in (other.value, said.value):
        assert error.code == "session_state"
        assert ours.id in error.message
        assert "FIN-WAIT" in error.message
        assert error.hint
    theirs.send("but I have something")  # a half-close: the other may go on
    assert heard(ours, 1) == ["but I have something"]
    ours.abort("enough")


def test_a_result_is_not_there_before_the_peer_closed(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    with pytest.raises(LocalProtocolError) as early:
        _ = ours.result
    assert "has no result yet" in early.value.message
    with pytest.raises(LocalProtocolError) as open_still:
        ours.wait(0)
    assert open_still.value.hint == "close() it first"
    ours.close()
    with pytest.raises(TimedOut) as timed_out:
        ours.wait(0.05)
    assert timed_out.value.waited == 0.05
    theirs.abort("enough")
    with pytest.raises(Refused) as refused:
        ours.wait(20)
    assert (refused.value.code, refused.value.reason) == ("reset", "enough")


def test_both_may_close_at_once(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    ours.send("last words")
    with ThreadPoolExecutor(4) as pool:
        for closing in [pool.submit(ours.close, "ours"), pool.submit(theirs.close, "theirs")]:
            closing.result(20)
        for waiting in [pool.submit(ours.wait, 20), pool.submit(theirs.wait, 20)]:
            waiting.result(20)
    assert (ours.result.text, theirs.result.text) == ("theirs", "ours")
    assert (ours.record.cause, theirs.record.cause) == ("finished", "finished")
    assert [data.text for data in theirs] == ["last words"]


def test_both_may_abort_at_once(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    with ThreadPoolExecutor(2) as pool:
        aborting = [pool.submit(ours.abort, "ours"), pool.submit(theirs.abort, "theirs")]
        slower = [error for done in aborting if (error := done.exception(20)) is not None]
    assert all(isinstance(error, LocalProtocolError) and error.code == "session_state" for error in slower)
    assert {reached(end, "CLOSED").record.cause for end in (ours, theirs)} <= {"aborted", "reset"}
    for end in (ours, theirs):
        with pytest.raises(BackchannelError):
            list(end)


def test_an_exception_inside_with_tells_the_peer(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    theirs.send("never read").wait("stored", 20)
    with pytest.raises(ZeroDivisionError), ours:
        _ = 1 / 0
    assert (ours.state, ours.record.cause) == ("CLOSED", "aborted")
    with pytest.raises(Refused) as refused:
        list(theirs)
    assert (refused.value.code, refused.value.reason) == ("reset", "ZeroDivisionError: division by zero")
    with pytest.raises(LocalProtocolError) as over:
        list(ours)
    assert "aborted" in over.value.message
    with pytest.raises(LocalProtocolError):
        ours.send("hello?")


def test_leaving_with_closes_and_leaves_alone_what_is_over(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    with ours:
        pass
    assert ours.state.startswith("FIN-WAIT")
    with ours:
        pass
    ours, theirs = established(analyst, executor)
    with ours:
        theirs.abort("enough")
        until(lambda: analyst.sessions()[0].state == "CLOSED", "the news")
    with pytest.raises(Refused):
        list(ours)
    ours, theirs = established(analyst, executor)
    theirs.abort("enough")
    with pytest.raises(Refused) as refused, ours:
        list(ours)
    assert refused.value.reason == "enough"


def test_a_receipt_tells_that_the_session_ended_first(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    receipt = ours.send("never read").wait("stored", 20)
    theirs.abort("no time")
    with pytest.raises(Refused) as refused:
        receipt.wait("acked", 20)
    assert "no time" in refused.value.reason
    assert receipt.stage == "dead"


def test_a_session_that_never_was_and_one_of_somebody_else(analyst: Agent, executor: Agent, shared: World) -> None:
    ours, _ = established(analyst, executor)
    with shared.agent("writer") as writer:
        for unknown in ("s-" + "0" * 32, ours.id):
            with pytest.raises(LocalProtocolError) as never:
                writer.session(unknown)
            assert never.value.code == "no_such_session"
    with pytest.raises(LocalProtocolError):
        analyst.session("no id at all")
    ours.abort("enough")


# --- found again ------------------------------------------------------------------------------------------------------


def test_a_restarted_agent_finds_its_session_and_what_it_had_not_acknowledged(shared: World) -> None:
    first, executor = shared.agent("analyst"), shared.agent("executor")
    ours, theirs = established(first, executor)
    for text in ("one", "two"):
        theirs.send(text)
    assert next(iter(ours)).text == "one"
    first.close()
    with shared.agent("analyst") as second:
        again = second.session(ours.id)
        assert (again.role, again.task, again.state) == ("initiator", "review PR #42", "ESTABLISHED")
        again.send("where were we?")
        theirs.close("done")
        assert [data.text for data in again] == ["one", "two"]
        again.close()
        assert [data.text for data in theirs] == ["where were we?"]
        again.wait(20)
        # And once more, when it is all over.
        assert second.session(ours.id).result == ("ok", "done")
        assert list(second.session(ours.id)) == []


def test_what_a_killed_agent_held_is_handed_out_again(shared: World) -> None:
    analyst, executor = shared.agent("analyst"), shared.agent("executor")
    ours, theirs = established(analyst, executor)
    del theirs
    ours.send("one")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, ours.id], env=shared.env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1 one\n"
        os.kill(process.pid, signal.SIGKILL)
    again = executor.session(ours.id)
    (data,) = [next(again.receive(wait=PATIENCE_S))]
    assert (data.text, data.delivery) == ("one", 2)
    data.ack()
    ours.abort("enough")


def test_a_fork_does_not_take_its_parents_mail(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    ours.send("one")
    assert next(iter(theirs)).text == "one"
    pid = os.fork()
    if pid == 0:
        try:
            found = [data.text for data in theirs.receive(wait=0.05)]
        except BackchannelError:
            found = []
        os._exit(len(found))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert heard(theirs, 1) == ["one"]
    ours.abort("enough")


# --- daemons that die -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["analyst", "executor"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_session_stands_though_a_daemon_is_killed_at_every_stage(world: World, victim: str, is_async: bool) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    with opening(analyst, "executor", "review") as opened:
        request = offer(executor)
        kill(world, victim)  # between open and accept
        theirs = request.accept()
        kill(world, victim)
        ours = opened.result(20)
    ours.send("one")
    data = next(theirs.receive(wait=PATIENCE_S))
    kill(world, victim)  # between data and ack
    assert data.delivery == 1
    data.ack()
    kill(world, victim)
    ours.send("two")
    ours.close()
    kill(world, victim)  # between close and result
    if is_async:
        del theirs  # lets go of its claim
        assert asyncio.run(finish(world, ours.id)) == ["two"]
    else:
        assert [data.text for data in theirs] == ["two"]
        theirs.close("done")
    kill(world, victim)
    world.up(victim)  # nobody there needs it any more, so nobody starts it; the FIN may still lie in its outbox
    assert ours.wait(20).result == ("ok", "done")
    assert (ours.record.cause, left(analyst, None)) == ("finished", [])


async def finish(world: World, session_id: str) -> list[str]:
    """What another process of executor does, once the first has let go."""
    async with world.async_agent("executor") as executor:
        session = await executor.session(session_id)
        found = [data.text async for data in session]
        await session.close("done")
        return found


def test_a_claim_is_taken_up_again_when_the_daemon_comes_back(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    ours, theirs = established(analyst, executor)
    ours.send("one")
    reading = iter(theirs)
    assert next(reading).text == "one"
    before = world.kill("executor")
    until(lambda: is_up_again(world, before), "the claim to bring the daemon back")
    ours.send("two")
    until(lambda: status(world, "executor")["backlog"] == 2, "both to be there")
    assert left(executor, None) == []
    assert [(data.text, data.delivery) for data in [next(reading)]] == [("two", 1)]


def is_up_again(world: World, before: int) -> bool:
    try:
        return world.pid("executor") != before
    except PeerAbsent:
        return False


def test_an_opener_whose_own_daemon_dies_meanwhile_still_gets_its_answer(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    with opening(analyst, "executor", "review") as opened:
        request = offer(executor)
        for name in ("analyst", "executor"):
            kill(world, name)
        request.reject("busy", retry_after=5)
        with pytest.raises(Refused) as refused:
            opened.result(20)
    assert refused.value.retry_after == 5


def held(session: Session) -> bool:
    return session._stream.sock is not None


def test_a_session_lets_go_of_its_connection_when_nothing_more_can_come(analyst: Agent, executor: Agent) -> None:
    ours, theirs = established(analyst, executor)
    assert held(ours)
    ours.close()
    list(theirs)
    theirs.close()
    ours.wait(20)
    assert (held(ours), held(theirs)) == (False, False)


def test_an_agent_that_is_down_by_a_persons_wish_is_an_error_at_once(world: World) -> None:
    world.up("executor", "analyst")
    world.cli("down", "executor")
    refused = world.cli("open", "executor", "review", "--wait", "20", agent="analyst")
    assert (refused.returncode, "backchannel up executor" in refused.stderr) == (5, True)


def test_an_agent_with_an_open_session_is_not_removed_unawares(world: World) -> None:
    world.up("executor", "analyst")
    opened = world.cli("open", "executor", "review", "--wait", "0", agent="analyst").stdout.split()[0]
    until(lambda: world.cli("accept", opened, agent="executor").returncode == 0, "the offer to accept")
    world.cli("recv", agent="executor")
    until(lambda: "accepted" in world.cli("recv", agent="analyst").stdout, "the notice to take")
    refused = world.cli("remove", "analyst")
    assert (refused.returncode, "1 open sessions" in refused.stderr) == (3, True), refused.stderr
    assert world.cli("remove", "analyst", "--purge").returncode == 0


def test_who_passes_a_budget_is_told_and_so_is_whoever_receives(analyst: Agent, executor: Agent) -> None:
    """The call may be an adapter's; the notice reaches the agent behind it."""
    ours, _ = established(analyst, executor, max_messages=1)
    ours.send("one")
    with pytest.raises(Refused, match="max_messages"):
        ours.send("two")
    ours.refresh()  # it is over, so nobody holds its mail any more
    (notice,) = collect(analyst, 1, ("reset",))
    assert (notice.text, notice.session) == ("max_messages", ours.id)
