"""Sessions inside one daemon, on the bench: its peer is this test, which pushes the peer's frames."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backchannel.protocol.timers import KEEPALIVE, TOMBSTONE

from .inside import Bench, close_all

S = "s-" + "0" * 31
HEADER = {"to": "executor", "from": "analyst", "auth": "a" * 64, "from_mailbox": "M", "epoch": 1}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield Bench(tmp_path / "mailbox.db")
    close_all()


def frame(bench: Bench, kind: str, session: str = S + "1", **params: Any) -> Any:
    """A frame of analyst's daemon, and what it is answered."""
    header = {**HEADER, "session": session}
    if kind != "SYN":
        header |= {"to_mailbox": bench.mailbox.mailbox_id, "to_epoch": 1}
    return bench.call(bench.connect(), "frame", kind=kind, **header, **params)


def established(bench: Bench, session: str = S + "1", number: int = 1) -> None:
    frame(bench, "SYN", session, number=[1, number], text="review PR 42")
    bench.call(bench.control(), "accept", session=session)


def test_an_agent_hears_that_its_peer_cannot_go_on_without_an_answer(bench: Bench) -> None:
    established(bench)
    frame(bench, "DATA", seq=1, text="which branch?", input_required=True)
    (mail,) = bench.call(bench.control(), "take")["messages"]
    assert mail["headers"] == {"input_required": "true"}


def test_one_take_hands_out_the_mail_of_several_sessions(bench: Bench) -> None:
    for number in (1, 2):
        established(bench, f"{S}{number}", number)
        frame(bench, "DATA", f"{S}{number}", seq=1, text="focus on auth")
    bench.push("m-1")
    taken = bench.call(bench.control(), "take", max=10)["messages"]
    assert [mail["id"] for mail in taken] == [f"{S}1/1", f"{S}2/1", "m-1"]


def test_who_waits_for_a_session_that_is_forgotten_meanwhile_is_told_so(bench: Bench) -> None:
    established(bench)
    agent = bench.control()
    over = bench.call(agent, "abort", session=S + "1")
    waiting = bench.receive(agent, "sessions", session=S + "1", version=over["version"], wait=2 * TOMBSTONE)
    assert bench.finish() == {}
    answers = bench.advance(TOMBSTONE + 1)
    assert answers[waiting]["error"]["data"]["code"] == "no_such_session"


def test_who_waits_for_offers_costs_other_mail_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand tombstones take milliseconds to look through; a message is to be stored in a tenth of one."""
    waiting = bench.receive(bench.control(), "sessions", state="SYN-RECEIVED", wait=60)
    assert bench.finish() == {}
    endpoint = bench.host.sessions.endpoint
    with monkeypatch.context() as patch:
        patch.setattr(endpoint, "sessions", lambda: pytest.fail("looked through all sessions"))
        bench.push("m-1")
    header = {**HEADER, "session": S + "1", "number": [1, 1], "text": "review PR 42"}
    bench.receive(bench.connect(), "frame", kind="SYN", **header)
    (offer,) = bench.finish()[waiting]["result"]["sessions"]
    assert offer["id"] == S + "1"


def test_nobody_opens_a_session_with_himself(bench: Bench) -> None:
    """Its frames would come back to the end that sent them."""
    assert bench.refusal(bench.control(), "open", to="executor", text="review PR 42") == "bad_params"
    assert bench.call(bench.control(), "sessions") == {"sessions": []}


def test_a_peer_that_is_back_and_speaks_is_knocked_at_at_once(bench: Bench) -> None:
    """It PROBEs when it starts. What waits for it would else wait out a pause of up to 45 s."""
    established(bench)
    for _ in range(12):
        bench.now = bench.host.courier.deadline or bench.now
        (errand,) = bench.host.courier.due(bench.now)
        bench.host.errand_failed(errand, "it is down", bench.now, bench.wall)
    assert bench.host.courier.due(bench.now) == []
    frame(bench, "DATA", seq=1, text="which branch?")
    (errand,) = bench.host.courier.due(bench.now)
    assert errand.target == "analyst"


def test_the_ids_of_a_sessions_mail_cannot_be_taken_by_a_message(bench: Bench) -> None:
    """The mail would otherwise be taken for a repetition of that message, and be lost."""
    established(bench)
    for taken in (S + "1", S + "1/1", S + "1/offer"):
        assert bench.refusal(bench.connect(), "push", to="executor", id=taken, text="mine") == "bad_id"
    assert frame(bench, "DATA", seq=1, text="theirs")["outcome"] == "stored"


def test_an_offer_that_waits_for_room_is_no_loop(bench: Bench) -> None:
    bench.close()
    bench.config.messages_max = 1
    bench.open()
    bench.push("m-1")
    offer = {"session": S + "1", "number": [1, 1], "text": "review PR 42", "hops": 1, "trace_id": "t-1"}
    codes = {bench.refusal(bench.connect(), "frame", kind="SYN", **HEADER, **offer) for _ in range(201)}
    assert codes == {"full"}


def test_a_session_ends_when_its_PROBE_finds_that_the_peer_is_no_agent_any_more(bench: Bench) -> None:
    """It has nothing to say; without this it would be probed for ever."""
    established(bench)
    (answer,) = bench.host.courier.due(bench.now)
    receipt = {"session": S + "1", "kind": "SYN-ACK", "number": 0, "outcome": "stored", "mailbox_id": "M", "epoch": 1}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "result": receipt}).encode()
    bench.host.errand_answered(answer, line, bench.now, bench.wall)
    bench.finish()
    bench.advance(KEEPALIVE + 1)
    (probe,) = bench.host.courier.due(bench.now)
    bench.host.errand_failed(probe, "there is no agent analyst", bench.now, bench.wall, is_final=True)
    bench.finish()
    (record,) = bench.call(bench.control(), "sessions", session=S + "1")["sessions"]
    assert (record["state"], record["cause"], record["reason"]) == ("CLOSED", "reset", "there is no agent analyst")


def test_an_offer_says_through_whom_its_task_came(bench: Bench) -> None:
    opened = bench.call(bench.control(), "open", to="analyst", text="review PR 42", path=["writer"], hops=1)
    (syn,) = bench.host.courier.due(bench.now)
    params = json.loads(syn.line)["params"]
    assert (params["session"], params["path"], params["hops"]) == (opened["id"], ["writer"], 1)


def test_a_refusal_of_many_words_is_passed_on_in_fewer(bench: Bench) -> None:
    """A RST with a longer reason than a frame may have could never be sent, nor anything behind it."""
    established(bench)
    (answer,) = bench.host.courier.due(bench.now)
    refusal = {"code": -32001, "message": "x" * 3000, "data": {"code": "oversize", "hint": "", "retry": False}}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "error": refusal}).encode()
    bench.host.errand_answered(answer, line, bench.now, bench.wall)
    bench.finish()
    (rst,) = bench.host.courier.due(bench.now)
    params = json.loads(rst.line)["params"]
    assert (params["kind"], params["reason"]) == ("RST", "x" * 1000)


def test_a_disk_that_is_nearly_full_takes_no_new_texts_but_lets_sessions_end(bench: Bench) -> None:
    established(bench)
    agent = bench.control()
    said = bench.call(agent, "say", session=S + "1", id="first", text="one thing")
    bench.free_bytes = 0
    bench.advance(1)
    assert bench.call(agent, "say", session=S + "1", id="first", text="one thing") == said | {"duplicate": True}
    assert bench.refusal(agent, "say", session=S + "1", text="and another thing") == "full"
    assert bench.refusal(agent, "open", to="analyst", text="review PR 43") == "full"
    assert bench.call(agent, "close", session=S + "1")["state"] == "FIN-WAIT-1"
    assert bench.call(agent, "abort", session=S + "1")["state"] == "CLOSED"


def test_a_state_that_is_none_is_not_waited_for(bench: Bench) -> None:
    assert bench.refusal(bench.control(), "sessions", state="SYN_RECEIVED", wait=60) == "bad_params"


def test_a_task_with_a_long_past_is_measured_with_it(bench: Bench) -> None:
    """Or it would be found too long by the peer, when it is too late to say less."""
    past = {"path": ["n" * 63] * 32, "trace_id": "\U0001f600" * 128, "hops": 1}
    longest = "x" * (bench.config.line_bytes_max - 2048 - 2)
    assert bench.refusal(bench.control(), "open", to="analyst", text=longest, **past) == "oversize"
    bench.call(bench.control(), "open", to="analyst", text=longest[: -32 * 66 - 128 * 4 - 4], **past)
    (syn,) = bench.host.courier.due(bench.now)
    assert len(syn.line) <= bench.config.line_bytes_max


def test_a_rst_that_overtook_its_syn_is_no_session_that_anybody_had(bench: Bench) -> None:
    """It leaves a mark against the SYN. The counters do not know of it, so its row must not look like one of theirs."""
    frame(bench, "RST", number=[1, 1], reason="never mind")
    assert frame(bench, "SYN", number=[1, 1], text="review PR 42")["outcome"] == "closed"
    store = bench.host.sessions.store
    assert bench.mailbox.db.execute("SELECT role, state FROM sessions").fetchall() == [(None, "CLOSED")]
    assert store.counters()["acceptor"]["opened"] == 0


def offered(bench: Bench) -> None:
    bench.call(bench.control(), "open", session=S + "1", to="analyst", text="review PR 42")


@pytest.mark.parametrize(
    ("kind", "notice"), [("SYN-ACK", "accepted"), ("REJ", "rejected"), ("RST", "reset")], ids=lambda said: said
)
def test_who_waits_for_the_answer_to_its_offer_gets_no_notice_beside_it(bench: Bench, kind: str, notice: str) -> None:
    offered(bench)
    waiting = bench.receive(
        bench.control(), "sessions", session=S + "1", version=1, state="SYN-SENT", wait=60, told=True
    )
    assert bench.finish() == {}
    bench.receive(bench.connect(), "frame", **HEADER, session=S + "1", kind=kind, **towards(bench))
    told = bench.finish()[waiting]["result"]
    assert (told["told"], told["sessions"][0]["state"]) == (True, "ESTABLISHED" if kind == "SYN-ACK" else "CLOSED")
    assert bench.call(bench.control(), "take")["messages"] == []
    events = bench.call(bench.control(), "trace", session=S + "1")["events"]
    assert [(event["kind"], event["stage"]) for event in events if event["direction"] == "in"] == [(kind, "acked")]


def test_a_notice_that_was_quicker_than_the_question_is_acknowledged_by_it(bench: Bench) -> None:
    offered(bench)
    frame(bench, "SYN-ACK")
    told = bench.call(bench.control(), "sessions", session=S + "1", state="SYN-SENT", wait=60, told=True)
    assert (told["told"], told["sessions"][0]["state"]) == (True, "ESTABLISHED")
    assert bench.call(bench.control(), "take")["messages"] == []


def test_who_only_looks_leaves_the_notice_to_others(bench: Bench) -> None:
    offered(bench)
    frame(bench, "SYN-ACK")
    assert "told" not in bench.call(bench.control(), "sessions", session=S + "1")
    (mail,) = bench.call(bench.control(), "take")["messages"]
    assert mail["kind"] == "accepted"


def test_that_an_offer_arrived_is_no_news_to_who_waits_for_its_answer(bench: Bench) -> None:
    offered(bench)
    waiting = bench.receive(bench.control(), "sessions", session=S + "1", version=1, state="SYN-SENT", wait=60)
    anything = bench.receive(bench.control(), "sessions", session=S + "1", version=1, wait=60)
    assert bench.finish() == {}
    (errand,) = bench.host.courier.due(bench.now)
    receipt = {
        "session": S + "1", "kind": "SYN", "number": 0, "outcome": "stored", "mailbox_id": "M", "epoch": 1
    }  # fmt: skip
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "result": receipt}).encode()
    bench.host.errand_answered(errand, line, bench.now, bench.wall)
    assert bench.finish().keys() == {anything}
    bench.receive(bench.connect(), "frame", **HEADER, session=S + "1", kind="SYN-ACK", **towards(bench))
    assert waiting in bench.finish()


def towards(bench: Bench) -> dict[str, Any]:
    return {"to_mailbox": bench.mailbox.mailbox_id, "to_epoch": 1}


def test_offers_are_found_without_looking_at_what_is_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    frame(bench, "SYN", number=[1, 1], text="review PR 42")
    monkeypatch.setattr(bench.host.sessions.endpoint, "sessions", lambda: pytest.fail("looked through all sessions"))
    (offer,) = bench.call(bench.control(), "sessions", state="SYN-RECEIVED")["sessions"]
    assert offer["id"] == S + "1"
    offered_too = bench.call(bench.control(), "open", session=S + "2", to="analyst", text="and PR 43")
    assert offered_too["state"] == "SYN-SENT"


def test_an_offer_that_another_connection_holds_is_not_accepted_by_who_would_claim_it(bench: Bench) -> None:
    frame(bench, "SYN", number=[1, 1], text="review PR 42")
    holder, other = bench.control(), bench.control()
    bench.call(holder, "claim", session=S + "1")
    assert bench.refusal(other, "accept", session=S + "1", claim=True) == "taken"
    assert bench.call(other, "sessions", session=S + "1")["sessions"][0]["state"] == "SYN-RECEIVED"
    assert bench.call(holder, "accept", session=S + "1", claim=True)["state"] == "ESTABLISHED"


def test_who_accepts_with_a_claim_alone_gets_the_mail(bench: Bench) -> None:
    frame(bench, "SYN", number=[1, 1], text="review PR 42")
    holder, other = bench.control(), bench.control()
    bench.call(holder, "accept", session=S + "1", claim=True)
    frame(bench, "DATA", seq=1, text="focus on auth")
    assert bench.call(other, "take")["messages"] == []
    (mail,) = bench.call(holder, "take")["messages"]
    assert mail["id"] == S + "1/1"
