"""What is over leaves in small steps: never what is unfinished, never unrecorded, never out of the counts."""

import json
from pathlib import Path
from typing import Any

import pytest

from backchannel.mailbox import purge, standing
from backchannel.mailbox.audit import audit
from backchannel.mailbox.frames import Frames
from backchannel.mailbox.mailbox import Mailbox
from backchannel.mailbox.outbox import Outbox
from backchannel.mailbox.sessions import Sessions
from backchannel.protocol.envelope import digest_of

from .inside import WALL, Bench, a_lease, after_a_kill, envelope, open_mailbox

DAY = 86400.0
STAGES = ("acked", "done", "rejected", "expired", "cancelled", "dead")


def put(mailbox: Mailbox, message_id: str, text: str = "hello", **fields: Any) -> None:
    mailbox.put(envelope(message_id, text, **fields), now=0.0, wall=WALL)


def acked(mailbox: Mailbox, message_id: str, text: str = "hello", *, at: float = WALL, **fields: Any) -> None:
    put(mailbox, message_id, text, **fields)
    mailbox.lease(a_lease(f"t-{message_id}"), 1, bytes_max=1)
    mailbox.ack(mailbox.get(message_id, None), "ack", at)


def purged(mailbox: Mailbox, wanted: purge.Wanted, *, wall: float = WALL, **options: Any) -> tuple[purge.Step, int]:
    """All steps; their sum, and how many there were."""
    contents = size = rows = steps = 0
    begin: int | None = 1
    while begin is not None:
        done = purge.step(mailbox, wanted, begin, wall, **options)
        assert done.contents + done.rows <= purge.ROWS_A_STEP
        contents, size, rows, steps = contents + done.contents, size + done.bytes, rows + done.rows, steps + 1
        assert done.next is None or done.next > begin
        begin = done.next
    if mailbox.in_transaction:
        mailbox.commit()
    return purge.Step(contents, size, rows, None), steps


def adds_up(mailbox: Mailbox) -> bool:
    """Whether the audit finds every message that was ever stored."""
    found = audit(mailbox, Sessions(mailbox), Outbox(mailbox), Frames(mailbox), is_whole=True)
    assert found["wrong"] == []
    return True


def columns(mailbox: Mailbox) -> list[tuple[Any, ...]]:
    return mailbox.db.execute("SELECT id, stage, text, digest IS NOT NULL FROM messages ORDER BY msg_no").fetchall()


def test_only_what_ended_before_then_leaves(tmp_path: Path) -> None:
    mailbox = open_mailbox(tmp_path / "mailbox.db")
    acked(mailbox, "old", at=WALL - 2)
    acked(mailbox, "young", at=WALL)
    put(mailbox, "waiting")
    put(mailbox, "taken")
    mailbox.lease(a_lease(), 1, bytes_max=1)
    mailbox.commit()
    done, _ = purged(mailbox, purge.Wanted(WALL - 1))
    assert (done.contents, done.rows) == (1, 0)
    assert columns(mailbox) == [
        ("old", "acked", b"null", 1),
        ("young", "acked", b'"hello"', 0),
        ("waiting", "taken", b'"hello"', 0),
        ("taken", "stored", b'"hello"', 0),
    ]


def test_of_the_last_ones_nothing_leaves_that_is_to_be_kept(tmp_path: Path) -> None:
    mailbox = open_mailbox(tmp_path / "mailbox.db")
    for number in range(10):
        acked(mailbox, f"m-{number}", at=WALL - 2)
    done, _ = purged(mailbox, purge.Wanted(WALL, keep=4))
    assert done.contents == 6
    assert [text for _, _, text, _ in columns(mailbox)][5:7] == [b"null", b'"hello"']


def test_a_long_text_and_a_kept_answer_leave_too(tmp_path: Path) -> None:
    mailbox = open_mailbox(tmp_path / "mailbox.db")
    put(mailbox, "m-1", "x" * (standing.INLINE_MAX + 1), headers=b'{"a":"b"}', extra=b"{}")
    mailbox.lease(a_lease(), 1, bytes_max=1)
    mailbox.answer(mailbox.get("m-1", None), "r-1", b'"secret"', WALL - 2)
    mailbox.commit()
    done, _ = purged(mailbox, purge.Wanted(WALL))
    assert done.bytes == standing.INLINE_MAX + 3 + len('{"a":"b"}') + len("{}") + len('"secret"')
    assert mailbox.db.execute("SELECT count(*) FROM texts").fetchone() == (0,)
    assert mailbox.db.execute("SELECT headers, extra, reply_text FROM messages").fetchone() == (None, None, None)
    assert mailbox.get("m-1", None).reply_id == "r-1"


def test_steps_are_small_in_rows_and_in_bytes(tmp_path: Path) -> None:
    mailbox = open_mailbox(tmp_path / "mailbox.db")
    for number in range(130):
        acked(mailbox, f"m-{number}", at=WALL - 2)
    for number in range(8):
        acked(mailbox, f"long-{number}", "x" * (purge.BYTES_A_STEP // 2), at=WALL - 2)
    done, steps = purged(mailbox, purge.Wanted(WALL))
    assert done.contents == 138
    assert steps >= 3 + 3


# --- what stays -------------------------------------------------------------------------------------------------------


def test_a_purged_id_still_is_a_repetition_and_another_text_under_it_still_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db")
    me = bench.connect()
    pushed = {"to": "executor", "id": "m-1", "text": "caf\u00e9", "headers": {"b": "2", "a": "1"}}
    number = bench.call(me, "push", **pushed)["msg_no"]
    agent = bench.control()
    bench.call(agent, "take")
    bench.call(agent, "ack", id="m-1")
    bench.advance(1)
    assert bench.call(agent, "purge", older_than=0)["contents"] == 1
    again = bench.call(me, "push", **{**pushed, "headers": {"a": "1", "b": "2"}})
    assert (again["duplicate"], again["stage"], again["msg_no"]) == (True, "acked", number)
    assert bench.refusal(me, "push", **{**pushed, "text": "tea"}) == "key_reused"
    assert bench.refusal(me, "push", **{**pushed, "headers": {}}) == "key_reused"
    (entry,) = bench.call(agent, "log", text=True)["messages"]
    assert (entry["purged"], entry["message"]["text"], entry["message"]["headers"]) == (True, None, {})
    assert bench.call(me, "receipt", id="m-1")["stage"] == "acked"
    bench.call(agent, "commit", replies=[{"id": "m-1", "text": "late", "delivery": 1}])  # an answer may still come
    bench.close()


def test_an_id_is_forgotten_only_after_a_week_and_that_many_later_messages(tmp_path: Path) -> None:
    path = tmp_path / "mailbox.db"
    mailbox = open_mailbox(path)
    for number in range(10):
        acked(mailbox, f"m-{number}", at=WALL - 8 * DAY if number < 5 else WALL - 2 * DAY)
    mailbox.commit()
    assert purged(mailbox, purge.Wanted(WALL), ids_kept=3)[0] == purge.Step(10, 10 * len('"hello"'), 0, None)
    assert purged(mailbox, purge.Wanted(WALL), ids_kept=8)[0].rows == 2
    assert purged(mailbox, purge.Wanted(WALL), ids_kept=3)[0].rows == 3  # the others are younger than a week
    assert [row[0] for row in columns(mailbox)] == [f"m-{number}" for number in range(5, 10)]
    put(mailbox, "m-0", "another text")
    mailbox.commit()
    assert mailbox.get("m-0", None).msg_no == 11


def test_what_left_stays_counted_also_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "mailbox.db"
    mailbox = open_mailbox(path)
    for number in range(20):
        acked(mailbox, f"m-{number}", at=WALL - 8 * DAY)
    for number in range(3):
        put(mailbox, f"w-{number}", sender="writer")
    mailbox.cancel(mailbox.get("w-0", None), WALL - 8 * DAY)
    mailbox.lease(a_lease(), 1, bytes_max=1)
    mailbox.commit()
    before = mailbox.counters.sums()
    purged(mailbox, purge.Wanted(WALL))
    assert adds_up(mailbox)
    done, _ = purged(mailbox, purge.Wanted(WALL), ids_kept=2)
    assert adds_up(mailbox)
    assert done.rows == 21
    assert mailbox.counters.sums() == before
    found = open_mailbox(after_a_kill(path, tmp_path / "killed"))
    assert adds_up(found)
    sums = found.counters.sums()
    assert sums == before
    ends = sum(sums[stage] for stage in STAGES)
    assert sums["total"] == ends + sums["stored"] + sums["taken"] == standing.highest_no(found.db) == 23
    left = found.db.execute("SELECT stage, count(*) FROM messages GROUP BY stage").fetchall()
    assert dict(left) == {"stored": 1, "taken": 1}


def test_a_transaction_that_is_undone_purges_nothing(tmp_path: Path) -> None:
    mailbox = open_mailbox(tmp_path / "mailbox.db")
    acked(mailbox, "m-1", at=WALL - 2)
    mailbox.commit()
    purge.note(mailbox, None, "@0", purge.Wanted(WALL), purge.step(mailbox, purge.Wanted(WALL), 1, WALL), WALL)
    mailbox.rollback()
    assert columns(mailbox) == [("m-1", "acked", b'"hello"', 0)]
    assert purge.records(mailbox, 10) == []


def test_mail_of_a_session_that_is_known_stays_as_long_as_the_session(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db")
    agent = bench.control()
    session = "s-0198c0ffee0000000000000000000001"
    syn = {"to": "executor", "from": "analyst", "auth": "a" * 64, "session": session, "from_mailbox": "M", "epoch": 1}
    bench.call(bench.connect(), "frame", kind="SYN", number=[1, 1], text="the task", **syn)
    bench.call(agent, "take")
    bench.call(agent, "ack", id=f"{session}/offer")
    bench.push("m-1", session="only a tag")
    bench.call(agent, "take")
    bench.call(agent, "ack", id="m-1")
    bench.advance(1)
    assert bench.call(agent, "purge", older_than=0)["contents"] == 1
    texts = {e["message"]["id"]: e["message"]["text"] for e in bench.call(agent, "log", text=True)["messages"]}
    assert texts == {f"{session}/offer": "the task", "m-1": None}
    bench.close()


# --- by itself --------------------------------------------------------------------------------------------------------


def look_on(bench: Bench, seconds: float) -> int:
    """Time passes as the loop lets it. How many steps were due."""
    until, steps = bench.now + seconds, 0
    while bench.host.operating.next_clearing <= until:
        bench.now = max(bench.now, bench.host.operating.next_clearing)
        bench.host.clear_up(bench.now, bench.wall)
        steps += 1
        assert steps < 100_000
    bench.now = until
    return steps


def finish(bench: Bench, count: int, text: str = "hello", prefix: str = "m") -> None:
    agent = bench.control()
    for number in range(count):
        bench.push(f"{prefix}-{number}", text)
        (message,) = bench.call(agent, "take")["messages"]
        bench.call(agent, "ack", id=message["id"], delivery=1)


def contents(bench: Bench) -> int:
    found: int = bench.mailbox.db.execute("SELECT count(*) FROM messages WHERE digest IS NULL").fetchone()[0]
    return found


def test_the_daemon_clears_up_what_is_older_than_the_setting_and_records_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db", history_s=10 * DAY)
    finish(bench, 120)
    look_on(bench, 9.9 * DAY)
    bench.push("waits")
    assert contents(bench) == 121
    look_on(bench, 2 * DAY)
    assert contents(bench) == 1
    (record,) = bench.call(bench.control(), "purges")["purges"]
    assert (record["by"], record["contents"], record["rows"]) == ("retention", 120, 0)
    assert bench.call(bench.control(), "take")["messages"][0]["text"] == "hello"
    bench.close()


def test_beyond_its_size_the_oldest_leaves_first_however_young(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db", history_bytes_max=400_000)
    finish(bench, 100, "x" * 7000)
    look_on(bench, 3600)
    assert 0 < contents(bench) < 100
    assert purge.finished_bytes(bench.mailbox) <= 400_000
    kept = [row[0] for row in bench.mailbox.db.execute("SELECT id FROM messages WHERE digest IS NULL ORDER BY msg_no")]
    assert kept == [f"m-{number}" for number in range(100 - len(kept), 100)]
    bench.close()


def test_what_cannot_leave_is_not_looked_through_again_and_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db", history_bytes_max=1)
    finish(bench, 60)
    look_on(bench, 3600)
    assert contents(bench) == 0
    assert look_on(bench, 3600) <= 10
    bench.close()


def test_it_waits_for_a_change_that_is_not_committed_yet(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db", history_s=DAY)
    finish(bench, 3)
    look_on(bench, 3 * DAY - 1)
    bench.push("m-new")
    bench.host.operating.next_clearing = 0.0
    bench.mailbox.begin()
    commits = bench.mailbox.commits
    bench.host.clear_up(bench.now, bench.wall)
    assert (bench.mailbox.commits, bench.mailbox.in_transaction) == (commits, True)
    bench.mailbox.rollback()
    bench.close()


def test_without_a_limit_nothing_leaves(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db", history_s=0, history_bytes_max=0)
    finish(bench, 3, "x" * 7000)
    assert look_on(bench, 400 * DAY) < 400 * 150
    assert contents(bench) == 3
    bench.close()


def test_a_clock_that_jumps_makes_nothing_old(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db")
    finish(bench, 5)
    look_on(bench, 60)
    bench.wall_at_boot += 10 * 365 * DAY
    look_on(bench, 3 * DAY)
    assert contents(bench) == 5
    bench.close()


def test_a_daemon_with_a_young_history_looks_now_and_then_and_writes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db")
    finish(bench, 5)
    commits = bench.mailbox.commits
    assert look_on(bench, DAY) <= 145
    assert bench.mailbox.commits == commits
    bench.close()


def test_dry_run_counts_and_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db")
    finish(bench, 60)
    bench.advance(1)
    agent = bench.control()
    commits = bench.mailbox.commits
    counted = bench.call(agent, "purge", older_than=0, dry_run=True)
    assert counted == {"contents": 60, "bytes": 60 * len('"hello"'), "rows": 0, "purge_no": None, "next": None}
    assert (contents(bench), bench.mailbox.commits) == (60, commits)
    bench.close()


@pytest.mark.parametrize("wrong", [{"older_than": -1}, {"older_than": 1e18}, {"older_than": 0, "keep": -1}, {}])
def test_a_purge_of_nonsense_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    bench = Bench(tmp_path / "mailbox.db")
    assert bench.refusal(bench.control(), "purge", **wrong) == "bad_params"
    bench.close()


def test_the_digest_is_of_what_was_said_not_of_how_it_was_escaped() -> None:
    one = digest_of(b'"caf\\u00e9"', b'{"a":"1","b":"2"}')
    assert one == digest_of(json.dumps("caf\u00e9", ensure_ascii=False).encode(), b'{"b": "2", "a": "1"}')
    assert one != digest_of(b'"caf\\u00e9"', None) != digest_of(b'"cafe"', None)


def test_who_still_waits_for_or_looks_at_a_message_that_left_is_told_that_it_is_gone(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db")
    onlooker, waiter = bench.control(), bench.connect()
    last = bench.call(onlooker, "tap", text=True)["last"]
    bench.push("m-1")
    bench.call(bench.control(), "take", wait=0)
    bench.call(bench.control(), "ack", id="m-1")
    waits = bench.receive(waiter, "wait", id="m-1", stage="done", timeout=30 * DAY)
    assert bench.finish() == {}
    bench.now += 20 * DAY
    for _ in range(2):  # the content, then the row
        purged(bench.mailbox, purge.Wanted(bench.wall), wall=bench.wall, ids_kept=0)
    assert bench.finish()[waits]["error"]["data"]["code"] == "no_such_message"
    events = bench.call(onlooker, "tap", after=last, text=True)["events"]
    assert [event["text"] for event in events] == [None] * 3
