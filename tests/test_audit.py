"""An account that always says "adds up" is worth nothing: one true mailbox, and one for each way not to add up."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backchannel.mailbox import purge

from .inside import Bench, close_all, read

S = "s-" + "0" * 31
HEADER = {"to": "executor", "from": "analyst", "auth": "a" * 64, "from_mailbox": "M", "epoch": 1}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Messages in every stage, a session that goes on with a text unread, one that is over, and something to carry."""
    bench = Bench(tmp_path / "mailbox.db", deliveries_max=1)
    agent, taker = bench.control(), bench.control()
    for number in range(7):
        bench.push(f"m-{number}")
    bench.push("m-expires", ttl=1)
    bench.call(bench.connect(), "cancel", id="m-6")
    bench.call(taker, "take", max=4)
    bench.call(agent, "ack", id="m-0")
    bench.call(agent, "reject", id="m-1", reason="busy")
    bench.call(agent, "release", id="m-2")  # and is dead
    bench.call(agent, "commit", replies=[{"id": "m-3", "text": "yes"}], sends=[{"to": "writer", "text": "done"}])
    bench.advance(2)
    bench.call(taker, "take")
    for number in (1, 2):
        header = HEADER | {"session": f"{S}{number}"}
        bench.call(bench.connect(), "frame", kind="SYN", number=[1, number], text="review PR 42", **header)
        bench.call(agent, "accept", session=f"{S}{number}")
        header |= {"to_mailbox": bench.mailbox.mailbox_id, "to_epoch": 1}
        bench.call(bench.connect(), "frame", kind="DATA", seq=1, text="focus on auth", **header)
    bench.call(agent, "abort", session=f"{S}2", reason="never mind")
    yield bench
    close_all()


def audit(bench: Bench) -> Any:
    return bench.call(bench.control(), "audit")


def test_what_adds_up_says_where_everything_is(bench: Bench) -> None:
    account = audit(bench)
    assert account["wrong"] == []
    counts = account["messages"]
    ended = {"acked": 1, "done": 1, "rejected": 1, "expired": 1, "cancelled": 3, "dead": 1}  # two offers were answered
    assert {stage: counts[stage] for stage in ended} == ended
    assert (counts["taken"], counts["stored"], counts["total"]) == (1, 3, 12)
    roles = account["sessions"]
    assert (roles["acceptor"]["opened"], roles["acceptor"]["aborted"], roles["acceptor"]["open"]) == (2, 1, 1)
    assert (account["outbox"], account["frames"]) == (1, 2)


def test_what_happened_in_the_same_pass_is_accounted_for(bench: Bench) -> None:
    header = HEADER | {"session": f"{S}1", "to_mailbox": bench.mailbox.mailbox_id, "to_epoch": 1}
    bench.receive(bench.connect(), "frame", kind="DATA", seq=2, text="and on the tests", **header)
    asked = bench.receive(bench.control(), "audit")
    bench.receive(bench.control(), "abort", session=f"{S}1", reason="never mind")
    account = bench.finish()[asked]["result"]
    assert account["wrong"] == []
    assert account["sessions"]["acceptor"]["aborted"] == 2


def test_an_audit_in_a_pass_that_failed_is_answered_once(bench: Bench) -> None:
    agent = bench.control()
    asked = bench.receive(agent, "audit")
    bench.host._control["peek"] = lambda *_: 1 / 0  # type: ignore[assignment]
    bench.receive(agent, "peek")
    answers = list(map(read, bench.host.finish(bench.now, bench.wall)))
    assert [answer["result"]["wrong"] for answer in answers if answer["id"] == asked] == [[]]
    assert len(answers) == agent.pending == 2


def test_what_was_purged_is_accounted_for(bench: Bench) -> None:
    bench.push("m-long", "x" * 10_000)
    (taken,) = bench.call(bench.control(), "take", max=1, kinds=["message"])["messages"]
    bench.call(bench.control(), "ack", id=taken["id"])
    total = audit(bench)["messages"]["total"]
    bench.advance(8 * 86400)
    assert bench.call(bench.control(), "purge", older_than=0)["contents"] > 0
    assert audit(bench)["wrong"] == []
    wanted = purge.Wanted(bench.wall)
    assert purge.step(bench.mailbox, wanted, 0, bench.wall, ids_kept=0).rows > 0
    bench.mailbox.commit()
    account = audit(bench)
    assert account["wrong"] == []
    assert account["messages"]["total"] == total


def a_message_is_gone(bench: Bench) -> None:
    bench.mailbox.db.execute("DELETE FROM messages WHERE id = 'm-0'")


def a_message_too_many(bench: Bench) -> None:
    bench.mailbox.db.execute("UPDATE messages SET sender = 'mallory' WHERE id = 'm-0'")


def a_stage_that_nobody_counted(bench: Bench) -> None:
    bench.mailbox.db.execute("UPDATE messages SET stage = 'acked' WHERE id = 'm-1'")


def a_count_that_is_not_the_sum(bench: Bench) -> None:
    bench.mailbox.counters.by_sender["@1000"].total += 1


def a_number_that_is_missing(bench: Bench) -> None:
    bench.mailbox.db.execute("UPDATE messages SET msg_no = 1000 WHERE id = 'm-0'")


def a_message_that_nobody_would_hand_out(bench: Bench) -> None:
    bench.mailbox.ready.remove(6, 1, None)


def a_text_that_is_lost(bench: Bench) -> None:
    bench.mailbox.db.execute("UPDATE messages SET text = x'' WHERE id = 'm-0'")


def a_text_that_waits_is_lost(bench: Bench) -> None:
    bench.mailbox.db.execute("UPDATE messages SET text = x'' WHERE msg_no = 6")


def a_text_of_nobody(bench: Bench) -> None:
    bench.mailbox.db.execute("INSERT INTO texts VALUES (1, 'x')")


def a_lease_of_nobody(bench: Bench) -> None:
    bench.mailbox.leased.clear()


def a_session_too_few(bench: Bench) -> None:
    bench.mailbox.db.execute(f"DELETE FROM sessions WHERE id = '{S}1'")


def an_end_that_nobody_counted(bench: Bench) -> None:
    bench.mailbox.db.execute(f"UPDATE sessions SET cause = 'finished' WHERE id = '{S}2'")


def a_text_of_a_session_is_gone(bench: Bench) -> None:
    bench.mailbox.db.execute(f"UPDATE messages SET stage = 'acked' WHERE id = '{S}1/1'")


def a_session_that_cannot_be_read(bench: Bench) -> None:
    bench.mailbox.db.execute(f"UPDATE sessions SET machine = x'00' WHERE id = '{S}1'")


def counters_that_are_lost(bench: Bench) -> None:
    bench.mailbox.db.execute("DROP TABLE session_counters")


def a_row_to_carry_that_nobody_carries(bench: Bench) -> None:
    bench.host.outbox.waiting.clear()


def a_frame_that_nobody_carries(bench: Bench) -> None:
    bench.host.sessions.frames.waiting.clear()


def a_value_that_cannot_be(bench: Bench) -> None:
    db = bench.mailbox.db
    db.execute("PRAGMA writable_schema=ON")
    db.execute("UPDATE sqlite_schema SET sql = replace(sql, 'role            TEXT', 'role TEXT NOT NULL')")
    db.execute("UPDATE sqlite_schema SET sql = replace(sql, 'cause           TEXT', 'cause TEXT NOT NULL')")
    db.execute("PRAGMA writable_schema=RESET")


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (a_message_is_gone, "messages from @1000: 1 are counted as acked, and 0 are there"),
        (a_message_too_many, "messages from mallory: 0 are counted as acked, and 1 are there"),
        (a_stage_that_nobody_counted, "messages from @1000: 1 are counted as rejected, and 0 are there"),
        (a_count_that_is_not_the_sum, "messages from @1000: 9 were stored, and the stages make 8"),
        (a_number_that_is_missing, "messages: the last one has the number 1000, and 12 are accounted for"),
        (a_message_that_nobody_would_hand_out, "message number 6 is not known as waiting"),
        (a_text_that_is_lost, "message number 1 has lost its text"),
        (a_text_that_waits_is_lost, "message number 6 has lost its text"),
        (a_text_of_nobody, "a text lies there for message number 1, which has none"),
        (a_lease_of_nobody, "message number 5 is not known as leased"),
        (a_session_too_few, "sessions as acceptor: 2 were opened, and the ends and the open ones make 1"),
        (an_end_that_nobody_counted, "sessions as acceptor: 0 are counted as finished, and 1 are there"),
        (a_text_of_a_session_is_gone, f"session {S}1: 1 texts are unread, and 0 are there"),
        (a_session_that_cannot_be_read, f"session {S}1 cannot be read"),
        (counters_that_are_lost, "the file: no such table: session_counters"),
        (a_row_to_carry_that_nobody_carries, "the outbox: 0 messages are known of, and 1 are there"),
        (a_frame_that_nobody_carries, "the outbox: 0 frames are known of, and 2 are there"),
        (a_value_that_cannot_be, "the file: NULL value in sessions.cause"),
    ],
)
def test_what_does_not_add_up_is_named(bench: Bench, lie: Callable[[Bench], None], said: str) -> None:
    lie(bench)
    assert any(said in sentence for sentence in audit(bench)["wrong"]), audit(bench)["wrong"]
