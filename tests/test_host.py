"""The host: nothing is answered before it is on disk, and one caller's trouble is nobody else's."""

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backchannel.daemon.host import StorageFailed
from backchannel.daemon.inbox import WAITS_MAX
from backchannel.daemon.taking import TAKE_MAX
from backchannel.errors import OverLimit
from backchannel.protocol.frame import Request

from .inside import UID, Bench, after_a_kill, close_all


@pytest.fixture(autouse=True)
def everything_is_closed() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "mailbox.db")


def sqlite_error(code: int, text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


DISK_FULL = sqlite_error(sqlite3.SQLITE_FULL, "database or disk is full")
IO_ERROR = sqlite_error(sqlite3.SQLITE_IOERR, "disk I/O error")


def fail_commits(bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, when: Callable[[], bool]) -> None:
    """From now on a commit raises `error` whenever `when()` says so."""
    commit = bench.mailbox.commit

    def failing() -> None:
        if when():
            raise error
        commit()

    monkeypatch.setattr(bench.mailbox, "commit", failing)


def rows_in_transaction(bench: Bench, message_id: str) -> int:
    return int(bench.mailbox.db.execute("SELECT count(*) FROM messages WHERE id = ?", (message_id,)).fetchone()[0])


def stage(bench: Bench, message_id: str) -> str:
    return str(bench.call(bench.connect(), "receipt", id=message_id)["stage"])


# --- a pass and its commit --------------------------------------------------------------------------------------------


def test_nothing_is_answered_before_the_commit(bench: Bench, tmp_path: Path) -> None:
    bench.receive(bench.connect(), "push", to="executor", id="m-1", text="hello")
    before = Bench(after_a_kill(bench.path, tmp_path / "before"))
    assert rows_in_transaction(before, "m-1") == 0
    (answer,) = bench.finish().values()
    assert answer["result"]["stage"] == "stored"
    after = Bench(after_a_kill(bench.path, tmp_path / "after"))
    assert rows_in_transaction(after, "m-1") == 1


def test_all_of_one_pass_share_one_commit_and_are_answered_in_order(bench: Bench) -> None:
    commits = bench.mailbox.commits
    numbers = [bench.receive(bench.connect(), "push", to="executor", id=f"m-{i}", text="hello") for i in range(64)]
    assert list(bench.finish()) == numbers
    assert bench.mailbox.commits == commits + 1


def test_a_pass_that_changes_nothing_commits_nothing(bench: Bench) -> None:
    bench.push("m-1")
    commits = bench.mailbox.commits
    bench.call(bench.connect(), "ping")
    bench.call(bench.connect(), "receipt", id="m-1")
    bench.call(bench.control(), "status")
    assert bench.mailbox.commits == commits


def test_an_io_error_gives_no_receipt_and_ends_the_daemon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_commits(bench, monkeypatch, IO_ERROR, lambda: True)
    bench.receive(bench.connect(), "push", to="executor", id="m-1", text="hello")
    with pytest.raises(StorageFailed, match="I/O"):
        bench.finish()
    assert rows_in_transaction(bench, "m-1") == 0


def test_an_io_error_that_appears_when_the_pass_is_done_again_ends_the_daemon_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([DISK_FULL, IO_ERROR])

    def failing() -> None:
        raise next(errors)

    monkeypatch.setattr(bench.mailbox, "commit", failing)
    bench.receive(bench.connect(), "push", to="executor", id="m-1", text="hello")
    with pytest.raises(StorageFailed, match="I/O"):
        bench.finish()


def test_a_rollback_that_fails_ends_the_daemon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.push("m-1")
    taker = bench.control()
    bench.call(taker, "take")
    rollback = bench.mailbox.rollback
    failures = iter([False, True])

    def failing() -> None:
        if next(failures):
            raise IO_ERROR
        rollback()

    monkeypatch.setattr(bench.mailbox, "rollback", failing)
    fail_commits(bench, monkeypatch, DISK_FULL, lambda: True)
    bench.receive(taker, "ack", id="m-1")
    with pytest.raises(StorageFailed):
        bench.finish()


def test_one_push_too_many_on_a_full_disk_does_not_take_acks_down_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.push("m-1")
    agent = bench.control()
    bench.call(agent, "take")
    fail_commits(bench, monkeypatch, DISK_FULL, lambda: rows_in_transaction(bench, "m-2") > 0)
    stranger = bench.connect()
    ack = bench.receive(agent, "ack", id="m-1", delivery=1)
    push = bench.receive(stranger, "push", to="executor", id="m-2", text="one too many")
    ping = bench.receive(stranger, "ping")
    answers = bench.finish()
    assert answers[ack]["result"]["stage"] == "acked"
    assert answers[push]["error"]["data"]["code"] == "full"
    assert answers[push]["error"]["data"]["retry"] is True
    assert "result" in answers[ping]
    assert list(answers) == [ack, push, ping]
    assert (agent.pending, stranger.pending) == (0, 0)
    assert stage(bench, "m-1") == "acked"


def test_who_looks_on_sees_what_was_done_before_a_request_that_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    onlooker = bench.control()
    last = bench.call(onlooker, "tap")["last"]
    fail_commits(bench, monkeypatch, DISK_FULL, lambda: rows_in_transaction(bench, "m-2") > 0)
    for number in (1, 2):
        bench.receive(bench.connect(), "push", to="executor", id=f"m-{number}", text="hello")
    bench.finish()
    seen = bench.call(onlooker, "tap", after=last)["events"]
    assert [(event["id"], event["stage"]) for event in seen] == [("m-1", "stored")]


def test_an_ack_that_does_not_fit_on_a_full_disk_leaves_its_lease_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.push("m-1")
    agent = bench.control()
    bench.call(agent, "take")
    is_full = True
    fail_commits(bench, monkeypatch, DISK_FULL, lambda: is_full)
    assert bench.refusal(agent, "ack", id="m-1", delivery=1) == "full"
    bench.advance(3600)
    is_full = False
    assert bench.call(agent, "ack", id="m-1", delivery=1)["stage"] == "acked"


def break_receipt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> bytes:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(bench.host._inbox, "receipt", broken)
    monkeypatch.setitem(bench.host._control, "receipt", broken)


def test_a_bug_in_a_handler_answers_internal_and_harms_nobody_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_receipt(bench, monkeypatch)
    caller = bench.connect()
    first = bench.receive(caller, "push", to="executor", id="m-1", text="hello")
    unlucky = bench.receive(caller, "receipt", id="m-1")
    last = bench.receive(caller, "push", to="executor", id="m-2", text="hello")
    answers = bench.finish()
    assert list(answers) == [first, unlucky, last]
    assert answers[first]["result"]["stage"] == answers[last]["result"]["stage"] == "stored"
    assert answers[first]["result"]["duplicate"] is False
    assert answers[unlucky]["error"]["data"]["code"] == "internal"
    assert answers[unlucky]["error"]["code"] == -32603
    assert "a bug" not in json.dumps(answers)
    assert caller.pending == 0


def test_a_take_beside_a_bug_still_gets_what_is_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.push("m-1")
    break_receipt(bench, monkeypatch)
    agent = bench.control()
    take = bench.receive(agent, "take", wait=0)
    bench.receive(bench.connect(), "receipt", id="m-1")
    answers = bench.finish()
    assert [m["id"] for m in answers[take]["result"]["messages"]] == ["m-1"]
    assert bench.hang_up(agent) == {}
    assert bench.mailbox.counters.stored == 1


def test_a_waiting_take_is_served_after_a_pass_that_had_to_be_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_receipt(bench, monkeypatch)
    agent = bench.control()
    take = bench.receive(agent, "take", wait=60, max=2)
    assert bench.finish() == {}
    for i in range(2):
        bench.receive(bench.connect(), "push", to="executor", id=f"m-{i}", text="hello")
    bench.receive(bench.connect(), "receipt", id="m-0")
    answers = bench.finish()
    assert [(m["id"], m["delivery"]) for m in answers[take]["result"]["messages"]] == [("m-0", 1), ("m-1", 1)]


def test_a_connection_that_closes_in_a_pass_that_fails_keeps_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.push("m-1")
    agent = bench.control()
    bench.call(agent, "take")
    break_receipt(bench, monkeypatch)
    bench.receive(bench.connect(), "receipt", id="m-1")
    bench.hang_up(agent)
    bench.advance(2)
    other = bench.control()
    assert [m["delivery"] for m in bench.call(other, "take")["messages"]] == [2]


def test_a_take_whose_connection_closed_in_the_same_failed_pass_gets_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_receipt(bench, monkeypatch)
    agent = bench.control()
    bench.receive(agent, "take", wait=None)
    bench.receive(bench.connect(), "receipt", id="m-1")
    bench.hang_up(agent)
    bench.push("m-1")
    assert stage_in_mailbox(bench, "m-1") == "stored"


def stage_in_mailbox(bench: Bench, message_id: str) -> str:
    return bench.mailbox.get(message_id, None).stage.value


def test_a_lease_that_falls_on_a_full_disk_falls_a_little_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.push("m-1")
    agent = bench.control()
    bench.call(agent, "take")
    is_full = True
    fail_commits(bench, monkeypatch, DISK_FULL, lambda: is_full)
    bench.hang_up(agent)
    bench.advance(10)
    assert stage_in_mailbox(bench, "m-1") == "taken"
    is_full = False
    bench.advance(2)
    assert stage_in_mailbox(bench, "m-1") == "stored"


# --- the reserve ------------------------------------------------------------------------------------------------------


def test_pushes_are_refused_before_the_disk_is_full_and_acks_are_not(bench: Bench) -> None:
    bench.push("m-1")
    bench.free_bytes = bench.config.reserve_bytes - 1
    bench.advance(1)
    assert bench.refusal(bench.connect(), "push", to="executor", id="m-2", text="hello") == "full"
    assert bench.push("m-1")["duplicate"] is True  # what is there is told truthfully
    agent = bench.control()
    bench.call(agent, "take")
    assert bench.call(agent, "ack", id="m-1")["stage"] == "acked"
    bench.free_bytes = bench.config.reserve_bytes + bench.mailbox.wal_bytes  # the log needs its place in the file too
    assert bench.push("m-2")["stage"] == "stored"


# --- taking -----------------------------------------------------------------------------------------------------------


def test_a_waiting_taker_gets_the_message_in_the_same_pass_with_one_commit(bench: Bench) -> None:
    agent = bench.control()
    take = bench.receive(agent, "take", wait=None)
    assert bench.finish() == {}
    commits = bench.mailbox.commits
    push = bench.receive(bench.connect(), "push", to="executor", id="m-1", text="hello")
    answers = bench.finish()
    assert answers[push]["result"]["stage"] == "stored"
    (message,) = answers[take]["result"]["messages"]
    assert (message["id"], message["delivery"]) == ("m-1", 1)
    assert bench.mailbox.commits == commits + 1
    assert stage(bench, "m-1") == "taken"


def test_handing_out_is_on_disk_before_the_text_leaves(bench: Bench, tmp_path: Path) -> None:
    bench.push("m-1")
    bench.call(bench.control(), "take")
    found = Bench(after_a_kill(bench.path, tmp_path / "killed"))
    assert stage_in_mailbox(found, "m-1") == "taken"


def test_several_waiting_takers_get_a_message_each(bench: Bench) -> None:
    takes = [bench.receive(bench.control(), "take", wait=None) for _ in range(3)]
    assert bench.finish() == {}
    for i in range(3):
        bench.receive(bench.connect(), "push", to="executor", id=f"m-{i}", text="hello")
    answers = bench.finish()
    assert [[m["id"] for m in answers[take]["result"]["messages"]] for take in takes] == [["m-0"], ["m-1"], ["m-2"]]


def test_a_take_that_waits_in_vain_is_answered_empty_when_its_time_is_over(bench: Bench) -> None:
    take = bench.receive(bench.control(), "take", wait=30)
    assert bench.finish() == {}
    assert bench.host.deadline == bench.now + 30
    assert bench.advance(29.9) == {}
    assert bench.advance(0.1)[take]["result"]["messages"] == []


def test_a_taker_gets_only_the_kinds_and_the_session_it_asked_for(bench: Bench) -> None:
    bench.push("m-1")
    bench.push("m-2", session="s-1")
    agent = bench.control()
    assert bench.call(agent, "take", kinds=["offer"])["messages"] == []
    assert bench.call(agent, "take", kinds=[])["messages"] == []
    assert [m["id"] for m in bench.call(agent, "take", session="s-1")["messages"]] == ["m-2"]
    assert [m["id"] for m in bench.call(agent, "take", kinds=["message"])["messages"]] == ["m-1"]


def test_the_same_take_id_answers_the_same(bench: Bench) -> None:
    bench.push("m-1")
    bench.push("m-2")
    agent = bench.control()
    first = bench.call(agent, "take", take_id="t-1", max=2)
    bench.push("m-3")
    commits = bench.mailbox.commits
    again = bench.call(agent, "take", take_id="t-1", max=10)
    assert again == first
    assert [m["delivery"] for m in again["messages"]] == [1, 1]
    assert bench.mailbox.commits == commits


def test_a_lost_answer_is_asked_for_again_over_a_new_connection(bench: Bench) -> None:
    bench.push("m-1")
    lost, found = bench.control(), bench.control()
    bench.call(lost, "take", take_id="t-1")
    assert [m["delivery"] for m in bench.call(found, "take", take_id="t-1")["messages"]] == [1]
    bench.hang_up(lost)
    assert stage(bench, "m-1") == "taken"
    bench.hang_up(found)
    assert stage(bench, "m-1") == "stored"


def test_a_take_asked_for_again_while_it_waits_goes_on_over_the_new_connection_only(bench: Bench) -> None:
    lost, found = bench.control(), bench.control()
    first = bench.receive(lost, "take", take_id="t-1", wait=None)
    assert bench.finish() == {}
    second = bench.receive(found, "take", take_id="t-1", wait=None)
    assert bench.finish()[first]["result"]["messages"] == []
    bench.push("m-0")
    for i in (1, 2):
        bench.receive(bench.connect(), "push", to="executor", id=f"m-{i}", text="hello")
    bench.finish()
    assert stage(bench, "m-0") == "taken"
    assert stage(bench, "m-1") == "stored"
    assert second is not None
    bench.hang_up(lost)
    assert stage(bench, "m-0") == "taken"
    bench.hang_up(found)
    assert stage(bench, "m-0") == "stored"


def test_after_a_restart_a_resumed_take_keeps_its_lease_and_gets_nothing_new(bench: Bench) -> None:
    bench.push("m-1")
    bench.call(bench.control(), "take", take_id="t-1")
    bench.push("m-2")
    bench.close()
    bench.open()
    agent = bench.control()
    resumed = bench.call(agent, "take", take_id="t-1", resume=True, max=10)
    assert [(m["id"], m["delivery"]) for m in resumed["messages"]] == [("m-1", 1)]
    bench.advance(60)
    assert stage(bench, "m-1") == "taken"
    assert bench.call(agent, "ack", id="m-1", delivery=1)["stage"] == "acked"


def test_after_a_restart_a_lease_that_nobody_resumes_falls_after_five_seconds(bench: Bench) -> None:
    bench.push("m-1")
    bench.call(bench.control(), "take", take_id="t-1")
    bench.close()
    bench.open()
    bench.advance(4.9)
    assert stage(bench, "m-1") == "taken"
    bench.advance(0.1)
    assert stage(bench, "m-1") == "stored"
    assert bench.call(bench.control(), "take", take_id="t-1", resume=True)["messages"] == []


def test_a_resumed_take_that_holds_nothing_is_answered_at_once(bench: Bench) -> None:
    bench.push("m-1")
    assert bench.call(bench.control(), "take", take_id="t-9", resume=True, wait=None)["messages"] == []


def test_held_leases_fall_with_their_connection_and_detached_ones_do_not(bench: Bench) -> None:
    for i in range(3):
        bench.push(f"m-{i}")
    agent, other = bench.control(), bench.control()
    bench.call(agent, "take", take_id="t-held")
    bench.call(agent, "take", take_id="t-detached", detached=True)
    bench.call(other, "take", take_id="t-other")
    bench.hang_up(agent)
    assert [stage(bench, f"m-{i}") for i in range(3)] == ["stored", "taken", "taken"]


def test_a_held_lease_has_no_time_limit(bench: Bench) -> None:
    bench.push("m-1")
    agent = bench.control()
    bench.call(agent, "take")
    assert bench.host.deadline is None
    bench.advance(10 * 86400)
    assert bench.call(agent, "ack", id="m-1", delivery=1)["stage"] == "acked"


def test_a_detached_lease_falls_after_its_time_unless_it_is_renewed(bench: Bench) -> None:
    bench.push("m-1")
    bench.call(bench.control(), "take", detached=True)
    bench.advance(299)
    bench.call(bench.control(), "renew", id="m-1", delivery=1)
    bench.advance(299)
    assert stage(bench, "m-1") == "taken"
    bench.advance(1)
    assert stage(bench, "m-1") == "stored"
    assert bench.refusal(bench.control(), "ack", id="m-1") == "stale"
    assert bench.call(bench.control(), "ack", id="m-1", delivery=1)["stage"] == "acked"


@pytest.mark.parametrize("detached", [True, False])
def test_a_lease_stays_of_its_kind_when_it_is_asked_for_again_as_the_other(bench: Bench, detached: bool) -> None:
    bench.push("m-1")
    agent = bench.control()
    bench.call(agent, "take", take_id="t-1", detached=detached)
    bench.call(agent, "take", take_id="t-1", detached=not detached)
    bench.advance(3600)
    assert stage(bench, "m-1") == ("stored" if detached else "taken")


def test_a_message_that_falls_back_goes_to_the_next_taker_in_the_same_pass(bench: Bench) -> None:
    bench.push("m-1")
    agent = bench.control()
    bench.call(agent, "take")
    take = bench.receive(bench.control(), "take", wait=None)
    assert bench.finish() == {}
    (message,) = bench.hang_up(agent)[take]["result"]["messages"]
    assert message["delivery"] == 2


@pytest.mark.parametrize(
    "params",
    [
        {"max": 0},
        {"max": TAKE_MAX + 1},
        {"max": 2**64},
        {"wait": -1},
        {"wait": 1e18},
        {"kinds": "message"},
        {"max": "1"},
    ],
)
def test_a_take_out_of_range_is_refused(bench: Bench, params: dict[str, Any]) -> None:
    assert bench.refusal(bench.control(), "take", **params) == "bad_params"


def test_one_answer_holds_about_a_mebibyte_of_texts(bench: Bench) -> None:
    for i in range(5):
        bench.push(f"m-{i}", "x" * 400_000)
    agent = bench.control()
    assert [len(bench.call(agent, "take", max=100)["messages"]) for _ in range(2)] == [3, 2]


# --- waiting for a stage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "happens", "seen"),
    [
        ("taken", [("take", {})], "taken"),
        ("acked", [("take", {}), ("ack", {"id": "m-1"})], "acked"),
        ("done", [("take", {}), ("reject", {"id": "m-1", "reason": "busy"})], "rejected"),
        ("acked", [("cancel", {"id": "m-1"})], "cancelled"),
        ("taken", [("take", {}), ("ack", {"id": "m-1"})], "taken"),
    ],
)
def test_a_wait_ends_with_its_stage_or_when_that_can_never_come(
    bench: Bench, wanted: str, happens: list[tuple[str, dict[str, Any]]], seen: str
) -> None:
    bench.push("m-1")
    wait = bench.receive(bench.connect(), "wait", id="m-1", stage=wanted, timeout=60)
    assert bench.finish() == {}
    agent = bench.control()
    for method, params in happens:
        bench.receive(agent, method, **params)
        answers = bench.finish()
        if wait in answers:
            assert answers[wait]["result"]["stage"] == seen
            return
    pytest.fail("the wait was not answered")


def test_a_wait_that_is_over_already_is_answered_at_once(bench: Bench) -> None:
    bench.push("m-1")
    assert bench.call(bench.connect(), "wait", id="m-1", stage="stored")["stage"] == "stored"
    assert bench.call(bench.connect(), "wait", id="m-1", stage="done", timeout=0)["stage"] == "stored"


def test_a_wait_whose_time_is_over_is_answered_with_what_is_known(bench: Bench) -> None:
    bench.push("m-1")
    wait = bench.receive(bench.connect(), "wait", id="m-1", stage="acked", timeout=5)
    assert bench.finish() == {}
    assert bench.advance(4.9) == {}
    assert bench.advance(0.1)[wait]["result"]["stage"] == "stored"


def test_a_wait_sees_a_ttl_pass(bench: Bench) -> None:
    bench.push("m-1", ttl=10)
    wait = bench.receive(bench.connect(), "wait", id="m-1", stage="acked", timeout=60)
    assert bench.finish() == {}
    answer = bench.advance(10)[wait]["result"]
    assert (answer["stage"], answer["reason"]) == ("expired", "its ttl passed before it was taken")


def test_a_wait_whose_connection_is_gone_is_forgotten(bench: Bench) -> None:
    bench.push("m-1")
    caller = bench.connect()
    bench.receive(caller, "wait", id="m-1", stage="acked", timeout=60)
    bench.finish()
    bench.hang_up(caller)
    assert bench.host.deadline is None


@pytest.mark.parametrize("params", [{"stage": "expired"}, {"stage": "x"}, {"stage": "acked", "timeout": -1}])
def test_a_wait_for_what_cannot_be_waited_for_is_refused(bench: Bench, params: dict[str, Any]) -> None:
    bench.push("m-1")
    assert bench.refusal(bench.connect(), "wait", id="m-1", **params) == "bad_params"


def test_only_so_many_may_wait_and_one_more_is_told_to_ask_again(bench: Bench) -> None:
    bench.push("m-1")
    for _ in range(WAITS_MAX):
        bench.receive(bench.connect(), "wait", id="m-1", stage="acked", timeout=60)
    assert bench.finish() == {}
    assert bench.refusal(bench.connect(), "wait", id="m-1", stage="acked", timeout=60) == "again"


# --- who may ----------------------------------------------------------------------------------------------------------


def test_only_who_shows_an_agents_key_speaks_as_that_agent(bench: Bench) -> None:
    key = bench.keys["analyst"]
    assert bench.push("m-1", **{"from": "analyst", "auth": key})["from"] == "analyst"
    for params in (
        {"from": "analyst"},
        {"from": "analyst", "auth": bench.keys["writer"]},
        {"from": "analyst", "auth": key[:-1]},
        {"from": "analyst", "auth": ""},
        {"from": "analyst", "auth": "é" * 64},
        {"from": "nobody", "auth": key},
    ):
        assert bench.refusal(bench.connect(), "push", to="executor", text="x", **params) == "not_permitted"


def test_who_is_no_agent_is_user_and_two_users_ids_do_not_collide(bench: Bench) -> None:
    assert bench.push("m-1", "mine")["from"] == "@user"
    root = bench.call(bench.connect(uid=0), "push", to="executor", id="m-1", text="roots")
    assert (root["from"], root["duplicate"]) == ("@user", False)


def test_another_users_process_may_not_push(bench: Bench) -> None:
    stranger = bench.connect(uid=UID + 1)
    key = bench.keys["analyst"]
    assert bench.refusal(stranger, "push", to="executor", text="x") == "not_permitted"
    assert bench.refusal(stranger, "push", to="executor", text="x", auth=key, **{"from": "analyst"}) == "not_permitted"


def test_a_key_is_neither_stored_nor_answered(bench: Bench) -> None:
    key = bench.keys["analyst"]
    answer = bench.ask(
        bench.connect(), "push", to="executor", id="m-1", text="x", mood="good", auth=key, **{"from": "analyst"}
    )
    agent = bench.control()
    taken = bench.ask(agent, "take")
    assert key not in json.dumps([answer, taken])
    assert taken["result"]["messages"][0]["extra"] == {"mood": "good"}
    bench.close()
    assert key.encode() not in bench.path.read_bytes()


def test_the_agents_own_calls_are_not_served_on_the_inbox(bench: Bench) -> None:
    for method in ("take", "ack", "reject", "release", "renew", "status", "stop"):
        answer = bench.ask(bench.connect(), method)
        assert answer["error"]["data"]["code"] == "unknown_method"
        assert "control.sock" in answer["error"]["message"]
    assert bench.host.stopping is False


def test_a_push_for_somebody_else_is_refused(bench: Bench) -> None:
    assert bench.refusal(bench.connect(), "push", to="writer", text="x") == "bad_params"
    assert bench.refusal(bench.connect(), "push", to="../writer", text="x") == "bad_name"


# --- odds and ends ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_answered_with_a_null_id_and_counted(bench: Bench) -> None:
    caller = bench.connect()
    bench.receive_line(caller, b"hello")
    answers = bench.finish()
    assert answers[None]["error"]["data"]["code"] == "malformed"
    assert bench.call(bench.control(), "status")["refused"] == 1
    refused = bench.host.refuse(caller, OverLimit("the line is too long", code="oversize"))
    assert json.loads(refused.line)["id"] is None


def test_a_number_too_large_for_the_mailbox_is_a_bad_request_and_no_accident(bench: Bench) -> None:
    for field in ("hops", "priority", "sent_at", "ttl"):
        params = f'{{"to":"executor","text":"x","{field}":{"9" * 19}}}'
        line = f'{{"jsonrpc":"2.0","id":1,"method":"push","params":{params}}}'
        bench.receive_line(bench.connect(), line.encode())
        answer = bench.finish()[1]
        assert "result" in answer or answer["error"]["data"]["code"] == "bad_params"


def test_a_receipt_says_power_only_for_what_waits_for_the_flush(bench: Bench) -> None:
    caller = bench.connect()
    for message_id, durability in (("m-1", "process"), ("m-2", "power")):
        bench.receive(caller, "push", to="executor", id=message_id, text="x", durability=durability)
    plain, flushed = bench.host.finish(bench.now, bench.wall)
    assert (plain.after_flush, flushed.after_flush) == (False, True)
    assert json.loads(flushed.line)["result"]["durability"] == "power"


def test_asking_for_more_durability_than_the_first_time_waits_for_the_flush(bench: Bench) -> None:
    bench.push("m-1")
    bench.receive(bench.connect(), "push", to="executor", id="m-1", text="hello", durability="power")
    (answer,) = bench.host.finish(bench.now, bench.wall)
    assert answer.after_flush
    result = json.loads(answer.line)["result"]
    assert (result["duplicate"], result["durability"]) == (True, "power")


def test_ping_and_status_say_what_is_there(bench: Bench) -> None:
    bench.push("m-1")
    bench.push("m-2")
    agent = bench.control()
    assert bench.call(bench.connect(), "ping")["receiving"] is False
    bench.call(agent, "take")
    bench.call(agent, "ack", id="m-1")
    bench.call(agent, "take")
    ping = bench.call(bench.connect(), "ping")
    assert (ping["agent"], ping["protocol"], ping["backlog"], ping["receiving"]) == ("executor", 1, 1, True)
    counters = bench.call(agent, "status")["counters"]
    assert (counters["total"], counters["acked"], counters["taken"], counters["stored"]) == (2, 1, 1, 0)


def test_stop_is_answered_and_then_asks_the_server_to_close(bench: Bench) -> None:
    assert bench.call(bench.control(), "stop") == {"agent": "executor", "stopping": True}
    assert bench.host.stopping


def test_the_handlers_serve_every_method_of_the_wire(bench: Bench) -> None:
    assert set(bench.host._inbox) == {"push", "receipt", "wait", "cancel", "frame", "probe", "ping"}
    assert set(bench.host._control) - set(bench.host._inbox) == {
        "take", "ack", "reject", "release", "renew", "commit", "claim", "pause", "resume", "peek", "log", "tap",
        "config", "status", "check", "metrics", "audit", "backup", "purge", "purges", "stop",
        "sessions", "open", "accept", "say", "close", "abort", "trace",
    }  # fmt: skip
    assert Request.__struct_fields__ == ("jsonrpc", "method", "id", "params")


def test_what_is_still_in_the_outbox_cannot_be_cancelled_and_is_said_to_be_there(bench: Bench) -> None:
    agent = bench.control()
    bench.call(agent, "commit", sends=[{"to": "writer", "text": "x", "id": "m-9"}])
    assert bench.refusal(bench.connect(), "cancel", id="m-9") == "queued"


def test_a_kind_that_nobody_sends_is_refused_rather_than_waited_for(bench: Bench) -> None:
    assert bench.refusal(bench.control(), "take", kinds=["mesage"]) == "bad_params"


def test_a_line_that_is_malformed_is_the_last_that_is_believed(bench: Bench) -> None:
    asked_badly, spoke_wrongly = bench.connect(), bench.connect()
    bench.receive_line(asked_badly, b"{}")
    bench.receive_line(spoke_wrongly, b"{")
    assert (asked_badly.spoke_wrongly, spoke_wrongly.spoke_wrongly) == (False, True)
    bench.finish()


def test_who_makes_up_traces_cannot_fill_the_mailbox_with_warnings_of_loops(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is refused to him; the others hear of a few, in the mailbox, by the outbox and in the log."""
    loop = {"to": "executor", "text": "x", "hops": 17, "path": ["writer", "analyst"]}
    for number in range(200):
        assert bench.refusal(bench.connect(), "push", trace_id=f"made-up-{number}", **loop) == "loop"
    status = bench.call(bench.control(), "status")
    assert (status["backlog"], status["outbox"]) == (20, 40)
    assert capsys.readouterr().err.count("a loop was stopped") == 20
    analyst = {"from": "analyst", "auth": bench.keys["analyst"]}
    assert bench.refusal(bench.connect(), "push", trace_id="true", **loop, **analyst) == "loop"
    assert bench.call(bench.control(), "status")["backlog"] == 21, "another's are told all the same"
    bench.advance(61)
    assert bench.refusal(bench.connect(), "push", trace_id="later", **loop) == "loop"
    assert bench.call(bench.control(), "status")["backlog"] == 22


def test_a_backup_that_finds_no_place_is_told_why(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "backups").write_text("mine")
    assert bench.refusal(bench.control(), "backup") == "storage"

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "makedirs", no_room)
    assert bench.refusal(bench.control(), "backup") == "full"
