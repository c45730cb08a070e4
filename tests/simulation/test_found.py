"""What the simulation found, each small enough to read aloud."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from backchannel.protocol.session import Local, Session, Snapshot
from backchannel.protocol.sessionframe import Data, Syn, SynNumber
from backchannel.protocol.sessionwire import Lineage, decode_frame, encode_frame
from tests import scripts
from tests.inside import Bench, after_a_kill, close_all

FULL = sqlite3.OperationalError("database or disk is full")
FULL.sqlite_errorcode = sqlite3.SQLITE_FULL


@pytest.fixture(autouse=True)
def everything_is_closed() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "mailbox.db")


def opened(bench: Bench, number: int, **limits: float) -> None:
    bench.call(bench.control(), "open", session=f"s-{number:032x}", to="analyst", text="review", **limits)


def reboot(bench: Bench) -> None:
    """Orderly; the clock counts from another zero."""
    bench.close()
    bench.wall_at_boot += bench.now - 10.0
    bench.now, bench.boot_id = 10.0, "boot-2"


def test_a_DATA_that_asks_still_asks_on_the_other_side() -> None:
    asks = Data(session=f"s-{1:032x}", from_mailbox="m", to_mailbox="n", epoch=1, to_epoch=1, seq=1, body="which?",
                input_required=True)  # fmt: skip
    assert decode_frame(encode_frame("analyst", asks))[0] == asks


@pytest.mark.parametrize("when", ["at the commit", "before"])
def test_a_frame_that_finds_the_disk_full_is_pending_no_longer_once_it_is_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise FULL

    if when == "at the commit":
        monkeypatch.setattr(bench.mailbox, "commit", failing)
    else:
        monkeypatch.setattr(bench.host.sessions, "carry_out", failing)
    peer = bench.connect()
    syn = {"to": "executor", "kind": "SYN", "session": f"s-{1:032x}", "number": [1, 1]}
    proof = {"from_mailbox": "m1", "epoch": 1, "from": "analyst", "auth": bench.keys["analyst"]}
    assert bench.refusal(peer, "frame", **syn, **proof) == "full"
    assert peer.pending == 0


def test_a_reboot_and_then_a_kill_leave_a_sessions_patience_as_it_was(bench: Bench, tmp_path: Path) -> None:
    opened(bench, 1, accept_timeout=100.0)
    reboot(bench)
    for killed in ("at once", "after a pass"):
        bench.open()
        if killed == "after a pass":
            opened(bench, 2)
        bench.path = after_a_kill(bench.path, tmp_path / killed)
    bench.open()
    assert bench.host.sessions.endpoint.session(f"s-{1:032x}").timers.accept == pytest.approx(110.0)


def test_a_SYN_that_came_through_others_can_be_written_anew_for_another_epoch() -> None:
    syn = Syn(session=f"s-{1:032x}", from_mailbox="m", to_mailbox=None, epoch=1, to_epoch=None, number=SynNumber(1, 1),
              task="review")  # fmt: skip
    kept, lineage = decode_frame(encode_frame("analyst", syn, Lineage(1, "m-1", ("writer", "executor"))))
    assert decode_frame(encode_frame("analyst", kept, lineage)) == (syn, lineage)


def the_peer_says(bench: Bench, kind: str, **fields: object) -> None:
    frame = {"to": "executor", "kind": kind, "session": f"s-{1:032x}", "from_mailbox": "m1", "epoch": 1}
    if kind != "SYN":
        frame |= {"to_mailbox": bench.mailbox.mailbox_id, "to_epoch": 1}
    proof = {"from": "analyst", "auth": bench.keys["analyst"]}
    assert bench.call(bench.connect(), "frame", **frame, **fields, **proof)["outcome"] == "stored"


def with_data_and_a_result(bench: Bench) -> None:
    the_peer_says(bench, "SYN", number=[1, 1])
    bench.call(bench.control(), "accept", session=f"s-{1:032x}")
    the_peer_says(bench, "DATA", seq=1, text="one")
    the_peer_says(bench, "FIN", seq=2, text="done")


def test_who_wants_only_results_gets_none_before_the_data_is_acked(bench: Bench) -> None:
    with_data_and_a_result(bench)
    assert bench.call(bench.control(), "take", kinds=["finished"])["messages"] == []
    one = bench.call(bench.control(), "take", kinds=["data"])["messages"][0]
    bench.call(bench.control(), "ack", id=one["id"], delivery=1)
    assert [m["kind"] for m in bench.call(bench.control(), "take", kinds=["finished"])["messages"]] == ["finished"]


def test_who_takes_several_is_not_confined_to_the_session_of_the_first(bench: Bench) -> None:
    with_data_and_a_result(bench)
    bench.push("m-1")
    taken = bench.call(bench.control(), "take", max=10)["messages"]
    assert [m["kind"] for m in taken] == ["data", "message"]


def test_a_REJ_is_sent_to_the_epoch_in_which_the_opener_came_back() -> None:
    session = Session(Local("L1", 1), Snapshot("s1", "peer"))
    for step in (
        {"frame": "SYN"},
        {"call": "reject", "reason": "busy"},
        {"answer": "REJ 0", "outcome": "refused", "reason": "probe_first", "retry": True, "epoch": 2},
        {"frame": "PROBE", "epoch": 2, "rcv_nxt": 0, "acked": 1, "receipted": 1},
    ):
        session, _ = scripts.take(session, {"in": step})
    rej = session.outgoing(scripts.read_frame({"frame": "REJ", "from_mailbox": "L1", "to_mailbox": "P1"}))
    assert rej is not None
    assert rej.to_epoch == 2


@pytest.mark.parametrize("method", ["take", "sessions", "tap"])
def test_who_comes_to_wait_in_a_pass_that_fails_twice_is_answered_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    opened(bench, 1)
    reboot(bench)
    bench.open()  # the first pass has something to write, whatever is asked
    fails = [True, True]
    commit = bench.mailbox.commit

    def failing() -> None:
        if fails and fails.pop():
            raise FULL
        commit()

    monkeypatch.setattr(bench.mailbox, "commit", failing)
    waiting = bench.control()
    params = {"wait": 9.0} | ({"state": "CLOSED"} if method == "sessions" else {})
    bench.receive(waiting, method, **params)
    answers = bench.host.finish(bench.now, bench.wall)
    bench.receive(bench.connect(), "push", to="executor", id="m-1", text="hello")
    answers += bench.host.finish(bench.now + 60.0, bench.wall)
    assert [answer.caller is waiting for answer in answers] == [True, False]


@pytest.mark.parametrize("when", ["at the commit", "before"])
def test_an_errand_whose_answer_cannot_be_written_down_waits_for_the_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise FULL

    bench.call(bench.control(), "commit", sends=[{"to": "analyst", "id": "m-1", "text": "hello"}])
    (errand,) = bench.host.courier.due(bench.now)
    with monkeypatch.context() as full:
        full.setattr(bench.mailbox if when == "at the commit" else bench.host.outbox,
                     "commit" if when == "at the commit" else "remove", failing)  # fmt: skip
        bench.host.errand_answered(errand, b'{"jsonrpc":"2.0","id":1,"result":{}}', bench.now, bench.wall)
        bench.finish()
    assert bench.host.courier.due(bench.now) == []
    assert bench.host.courier.deadline == bench.now + 1.0
    assert [again.row for again in bench.host.courier.due(bench.now + 1.0)] == [errand.row]
