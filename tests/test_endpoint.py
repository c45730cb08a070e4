"""What an endpoint knows beyond its single sessions: offers, old SYNs, tombstones, and when something may be said."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backchannel.errors import LocalProtocolError, OverLimit
from backchannel.protocol import endpoint as bounds
from backchannel.protocol.effects import Answer, Effect, Enqueue, Forget, Report, Saying, Strike, StrikeAll, Transmit
from backchannel.protocol.endpoint import Changes, Endpoint, EndpointSnapshot
from backchannel.protocol.recvqueue import DIGESTS_KEPT, ReceiveQueue
from backchannel.protocol.sendqueue import WINDOW, SendQueue
from backchannel.protocol.session import Local, Session, Snapshot
from backchannel.protocol.sessionframe import Ack, Data, Fin, FrameId, Limits, Probe, Rst, Syn, SynAck, SynNumber
from backchannel.protocol.states import Outcome, State
from backchannel.protocol.synnumbers import SYN_WINDOW, SynNumbers

DAY = 86_400.0


def syn(session: str = "s1", number: int = 1, *, epoch: int = 1, mailbox: str = "P1") -> Syn:
    return Syn(
        session=session,
        from_mailbox=mailbox,
        to_mailbox=None,
        epoch=epoch,
        to_epoch=None,
        number=SynNumber(epoch, number),
        task="t",
    )


def data(session: str, seq: int) -> Data:
    return Data(session=session, from_mailbox="P1", to_mailbox="L1", epoch=1, to_epoch=1, seq=seq, body="x")


def commit(endpoint: Endpoint, now: float = 0.0) -> list[Saying]:
    return endpoint.committed(endpoint.changes().pass_number, now)


def answer_to(endpoint: Endpoint, frame: Syn | Data | Rst, now: float = 0.0, peer: str = "peer") -> Answer:
    endpoint.receive(peer, frame, now)
    (answer,) = [said for said in commit(endpoint, now) if isinstance(said, Answer)]
    return answer


def established(endpoint: Endpoint, session: str = "s1") -> None:
    endpoint.receive("peer", syn(session), 0.0)
    endpoint.accept(session, 0.0)
    endpoint.answered(Answer(FrameId(session, "SYN-ACK", 0), Outcome.STORED, "P1", 1), 0.0)
    commit(endpoint)


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint(Local("L1", 1))


def test_nothing_is_said_before_its_own_pass_is_committed(endpoint: Endpoint) -> None:
    endpoint.receive("peer", syn("s1"), 0.0)
    first = endpoint.changes()
    endpoint.accept("s1", 0.0)
    second = endpoint.changes()
    assert [type(said) for said in endpoint.committed(first.pass_number, 0.0)] == [Answer]
    assert [type(said) for said in endpoint.committed(second.pass_number, 0.0)] == [Transmit]


def test_frames_for_nothing_are_answered_and_leave_no_session(endpoint: Endpoint) -> None:
    assert answer_to(endpoint, data("s9", 1)).outcome is Outcome.NO_SESSION
    assert endpoint.changes() == Changes(2, (), None)
    assert list(endpoint.sessions()) == []


def test_a_restored_endpoint_goes_on_as_if_nothing_had_happened(endpoint: Endpoint) -> None:
    endpoint.receive("peer", syn("s1"), 0.0)
    endpoint.open("s2", "peer", "task", Limits(), 0.0)
    changes = endpoint.changes()
    again = Endpoint.restore(Local("L1", 1), changes.endpoint, changes.sessions, 0.0)
    assert answer_to(again, syn("s1")).outcome is Outcome.DUP
    assert [s.number for s in again.sessions() if s.id == "s2"] == [SynNumber(1, 1)]
    (row,) = [e.frame for e in again.open("s3", "peer", "task", Limits(), 0.0) if isinstance(e, Enqueue)]
    assert isinstance(row, Syn)
    assert row.number == SynNumber(1, 2)


def test_an_old_syn_opens_nothing_after_its_tombstone_is_forgotten(endpoint: Endpoint) -> None:
    endpoint.receive("peer", syn("s1"), 0.0)
    endpoint.reject("s1", "busy", 0.0)
    commit(endpoint)
    assert endpoint.handle_timer(7 * DAY) == [Forget("s1")]
    assert answer_to(endpoint, syn("s1"), 7 * DAY).outcome is Outcome.CLOSED


def test_a_rst_that_overtakes_its_syn_closes_the_door_for_ever(endpoint: Endpoint) -> None:
    rst = Rst(session="s1", from_mailbox="P1", to_mailbox=None, epoch=1, to_epoch=1, reason="", number=SynNumber(1, 1))
    assert answer_to(endpoint, rst).outcome is Outcome.STORED
    endpoint.handle_timer(7 * DAY)
    assert answer_to(endpoint, syn("s1"), 7 * DAY).outcome is Outcome.CLOSED


def test_a_session_belongs_to_one_peer(endpoint: Endpoint) -> None:
    established(endpoint)
    assert answer_to(endpoint, data("s1", 1), peer="other").outcome is Outcome.BAD


def test_a_peer_may_have_32_offers_open_and_no_more(endpoint: Endpoint) -> None:
    for n in range(bounds.OFFERS_PER_PEER):
        assert answer_to(endpoint, syn(f"s{n}", n + 1)).outcome is Outcome.STORED
    refused = answer_to(endpoint, syn("more", 100))
    assert (refused.outcome, refused.retry) == (Outcome.REFUSED, False)
    assert answer_to(endpoint, syn("other", 1, mailbox="Q1"), peer="other").outcome is Outcome.STORED
    endpoint.reject("s0", "busy", 0.0)
    assert answer_to(endpoint, syn("more", 100)).outcome is Outcome.STORED


def test_all_peers_together_may_have_256_offers_open(endpoint: Endpoint) -> None:
    for n in range(bounds.OFFERS):
        peer = f"p{n // bounds.OFFERS_PER_PEER}"
        assert answer_to(endpoint, syn(f"s{n}", n + 1, mailbox=peer), peer=peer).outcome is Outcome.STORED
    assert answer_to(endpoint, syn("more", 1, mailbox="Q1"), peer="q").outcome is Outcome.REFUSED


def test_the_window_stops_a_sender_whose_peer_processes_nothing(endpoint: Endpoint) -> None:
    established(endpoint)
    for _ in range(WINDOW):
        endpoint.send("s1", "x", 0.0)
    with pytest.raises(OverLimit, match="1000 messages"):
        endpoint.send("s1", "x", 0.0)
    endpoint.receive("peer", Ack(session="s1", from_mailbox="P1", to_mailbox="L1", epoch=1, to_epoch=1, ack=2), 0.0)
    endpoint.send("s1", "x", 0.0)


def test_an_error_has_the_callers_words_and_not_the_tables(endpoint: Endpoint) -> None:
    established(endpoint)
    header: dict[str, Any] = {"session": "s1", "from_mailbox": "P1", "to_mailbox": "L1", "epoch": 1, "to_epoch": 1}
    endpoint.receive("peer", Fin(**header, seq=1, status="ok", result=""), 0.0)
    endpoint.ack("s1", 1, 0.0)
    endpoint.close("s1", 0.0)
    endpoint.receive("peer", Ack(**header, ack=2), 0.0)
    with pytest.raises(LocalProtocolError) as caught:
        endpoint.close("s1", 0.0)  # in the table it is CLOSE-LAST
    assert caught.value.message == "session s1 is CLOSED (finished): close is not possible"


def test_an_error_names_the_session_its_state_and_the_next_step(endpoint: Endpoint) -> None:
    endpoint.receive("peer", syn("7f3a"), 0.0)
    with pytest.raises(LocalProtocolError) as caught:
        endpoint.send("7f3a", "x", 0.0)
    assert "session 7f3a is SYN-RECEIVED: send is not possible" in str(caught.value)
    assert caught.value.hint == "wait until it is accepted"
    with pytest.raises(LocalProtocolError, match="there is no session s9 here"):
        endpoint.session("s9")


def test_timers_fire_in_order_and_too_early_does_nothing(endpoint: Endpoint) -> None:
    endpoint.open("s1", "peer", "task", Limits(accept_timeout=20.0), 0.0)
    endpoint.open("s2", "peer", "task", Limits(accept_timeout=10.0), 0.0)
    commit(endpoint)
    assert endpoint.deadline == 10.0
    assert endpoint.handle_timer(9.0) == []
    ended = [e.event for e in endpoint.handle_timer(10.0) if isinstance(e, Report)]
    assert [event.session for event in ended] == ["s2"]
    assert endpoint.deadline == 20.0


def test_a_row_is_pushed_in_the_epoch_of_the_day_and_not_before_a_probe() -> None:
    before = Endpoint(Local("L1", 1))
    established(before)
    (row,) = [e.frame for e in before.send("s1", "x", 0.0) if isinstance(e, Enqueue)]
    changes = before.changes()
    after = Endpoint.restore(Local("L1", 2), changes.endpoint, changes.sessions, 0.0)
    assert after.outgoing(row) is None
    after.handle_timer(0.0)
    (probe,) = [said.frame for said in commit(after) if isinstance(said, Transmit)]
    assert isinstance(probe, Probe)
    counts = replace(probe, from_mailbox="P1", to_mailbox="L1", epoch=1, rcv_nxt=1, receipted=1)
    after.answered(Answer(probe.id, Outcome.ALIVE, "P1", 1, probe=counts), 0.0)
    assert after.outgoing(row) == replace(row, epoch=2)


def test_the_answer_to_a_row_of_a_forgotten_session_removes_the_row(endpoint: Endpoint) -> None:
    effects = endpoint.answered(Answer(FrameId("gone", "RST", 0), Outcome.STORED, "P1", 1), 0.0)
    assert [type(effect) for effect in effects] == [Strike]


def test_the_oldest_tombstone_goes_when_there_are_too_many(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "TOMBSTONES", 2)
    effects: list[Effect] = []
    for n in range(3):
        endpoint.receive("peer", syn(f"s{n}", n + 1), 0.0)
        effects += endpoint.reject(f"s{n}", "busy", 0.0)
    assert [effect for effect in effects if isinstance(effect, Forget)] == [Forget("s0")]


def test_a_pass_saves_only_what_it_touched(endpoint: Endpoint) -> None:
    established(endpoint)
    endpoint.receive("peer", syn("s2", 2), 0.0)
    commit(endpoint)
    endpoint.receive("peer", data("s1", 1), 0.0)
    changes = endpoint.changes()
    assert [snapshot.id for snapshot in changes.sessions] == ["s1"]
    assert changes.endpoint is None


def test_a_snapshot_is_all_there_is_to_a_session() -> None:
    endpoint = Endpoint(Local("L1", 1))
    established(endpoint)
    endpoint.receive("peer", data("s1", 1), 0.0)
    (saved,) = endpoint.changes().sessions
    again = Endpoint.restore(Local("L1", 1), EndpointSnapshot(), [saved], 0.0)
    again.probe("s1", 0.0)
    assert again.changes().sessions == (saved,)
    assert saved != Snapshot("s1", "peer")
    assert saved.state is State.ESTABLISHED


@given(st.lists(st.integers(1, 3_000)), st.integers(1, 3_000))
def test_syn_numbers_are_new_once_and_never_again(came: list[int], number: int) -> None:
    numbers = SynNumbers()
    for n in came:
        numbers = numbers.marked(n)
    highest = max(came, default=0)
    assert numbers.is_new(number) == (number not in came and number > highest - SYN_WINDOW)


def test_a_SYN_of_the_epoch_before_may_be_overtaken_but_comes_once(endpoint: Endpoint) -> None:
    def outcome(session: str, number: SynNumber) -> Outcome:
        frame = Syn(session=session, from_mailbox="P1", to_mailbox=None, epoch=2, to_epoch=None, number=number, task="")
        endpoint.receive("peer", frame, 0.0)
        (answer,) = endpoint.committed(endpoint.changes().pass_number, 0.0)
        assert isinstance(answer, Answer)
        return answer.outcome

    assert outcome("s1", SynNumber(2, 2)) is Outcome.STORED
    assert outcome("s2", SynNumber(1, 1)) is Outcome.STORED
    assert outcome("s3", SynNumber(1, 1)) is Outcome.CLOSED
    assert outcome("s3", SynNumber(2, 2)) is Outcome.CLOSED


def test_an_initiator_may_not_send_before_the_peers_agent_agreed(endpoint: Endpoint) -> None:
    endpoint.open("s1", "peer", "task", Limits(), 0.0)
    with pytest.raises(LocalProtocolError, match="SYN-SENT"):
        endpoint.send("s1", "x", 0.0)
    endpoint.receive("peer", SynAck(session="s1", from_mailbox="P1", to_mailbox="L1", epoch=1, to_epoch=1), 0.0)
    endpoint.send("s1", "x", 0.0)


def test_an_open_saves_the_number_it_took(endpoint: Endpoint) -> None:
    assert not endpoint.is_touched
    endpoint.open("s1", "peer", "t", Limits(), 0.0)
    changes = endpoint.changes()
    assert changes.endpoint is not None
    assert not endpoint.is_touched
    again = Endpoint.restore(Local("L1", 1), changes.endpoint, changes.sessions, 0.0)
    assert not again.is_touched, "nothing has changed since"
    (sent,) = [e.frame for e in again.open("s2", "peer", "t", Limits(), 0.0) if isinstance(e, Enqueue)]
    assert isinstance(sent, Syn)
    assert sent.number == SynNumber(1, 2)


def test_after_a_boot_all_sessions_are_saved_by_the_new_clock(endpoint: Endpoint) -> None:
    established(endpoint)
    endpoint.probe("s1", 0.0)
    changes = endpoint.changes()
    again = Endpoint.restore(Local("L1", 1), changes.endpoint, changes.sessions, 0.0, shift=-5.0)
    assert [saved.id for saved in again.changes().sessions] == ["s1"]


def test_what_an_endpoint_does_for_a_session_is_the_sessions_effects_and_is_saved(endpoint: Endpoint) -> None:
    established(endpoint)
    effects = endpoint.fail("s1", "poison", 1.0)
    assert [type(effect) for effect in effects] == [StrikeAll, Enqueue, Report]
    assert [saved.id for saved in endpoint.changes().sessions] == ["s1"]
    assert endpoint.fail("s1", "poison", 2.0) == []
    assert endpoint.fail("gone", "poison", 2.0) == []
    assert endpoint.ack("gone", 1, 2.0) == []


def test_progress_goes_out_as_a_probe_with_a_note(endpoint: Endpoint) -> None:
    established(endpoint)
    assert endpoint.progress("s1", "half", 1.0) == []
    (said,) = commit(endpoint, 1.0)
    assert isinstance(said, Transmit)
    assert isinstance(said.frame, Probe)
    assert said.frame.note == "half"


def test_a_peer_that_was_away_is_asked_about_its_open_sessions_only(endpoint: Endpoint) -> None:
    established(endpoint, "s1")
    endpoint.receive("peer", syn("s2", 2), 0.0)
    endpoint.reject("s2", "busy", 0.0)
    endpoint.open("s3", "other", "t", Limits(), 0.0)
    endpoint.answered(Answer(FrameId("s3", "SYN", 0), Outcome.STORED, "O1", 1), 0.0)
    commit(endpoint)
    assert endpoint.probe_peer("peer", 1.0) == []
    asked = [said.frame.session for said in commit(endpoint, 1.0) if isinstance(said, Transmit)]
    assert asked == ["s1"]


def test_what_was_stored_needs_no_room_again(endpoint: Endpoint) -> None:
    assert not endpoint.has_stored(syn("s1"))
    established(endpoint)
    assert endpoint.has_stored(syn("s1"))
    assert not endpoint.has_stored(data("s1", 1))
    endpoint.receive("peer", data("s1", 1), 0.0)
    assert endpoint.has_stored(data("s1", 1))
    assert not endpoint.has_stored(data("s1", 2))


def test_an_endpoints_refusal_is_for_good(endpoint: Endpoint) -> None:
    established(endpoint)
    answer = answer_to(endpoint, data("s1", 1), peer="another")
    assert (answer.outcome, answer.retry) == (Outcome.BAD, False)
    endpoint.receive("peer", syn("s2", 2), 0.0)
    commit(endpoint)
    endpoint.abort("s2", "enough", 0.0)
    answer = answer_to(endpoint, syn("s3", 2))
    assert (answer.outcome, answer.retry) == (Outcome.CLOSED, False)
    for n in range(bounds.OFFERS_PER_PEER):
        endpoint.receive("peer", syn(f"o{n}", n + 10), 0.0)
    commit(endpoint)
    answer = answer_to(endpoint, syn("more", 100))
    assert (answer.outcome, answer.retry) == (Outcome.REFUSED, False)


def test_numbers_are_kept_for_so_many_mailboxes(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAILBOXES", 2)
    for n in range(3):
        assert answer_to(endpoint, syn(f"s{n}", mailbox=f"P{n}"), peer=f"p{n}").outcome is Outcome.STORED
    assert answer_to(endpoint, syn("again", mailbox="P1"), peer="p1").outcome is Outcome.CLOSED
    assert answer_to(endpoint, syn("again", mailbox="P2"), peer="p2").outcome is Outcome.CLOSED
    assert answer_to(endpoint, syn("again", mailbox="P0"), peer="p0").outcome is Outcome.STORED


def test_a_forgotten_session_leaves_nothing(endpoint: Endpoint) -> None:
    endpoint.receive("peer", syn("s1"), 0.0)
    assert ([offer.id for offer in endpoint.offers()], endpoint.open_count) == (["s1"], 1)
    endpoint.reject("s1", "busy", 0.0)
    assert (endpoint.offers(), endpoint.open_count) == ([], 0)
    commit(endpoint)
    later = endpoint.deadline
    assert later == 7 * DAY
    assert endpoint.handle_timer(later) == [Forget("s1")]
    assert list(endpoint.sessions()) == []
    assert endpoint.find("s1") is None
    assert endpoint.deadline is None


# --- single sessions: what no script needs ----------------------------------------------------------------------------


def opened(limits: Limits | None = None) -> Session:
    session = Session(Local("L1", 1), Snapshot("s1", "peer"))
    session.open(SynNumber(1, 1), "t", limits or Limits(), 0.0)
    return session


def test_an_offer_without_a_timeout_waits_for_ever() -> None:
    session = opened(Limits(accept_timeout=None))
    assert session.timers.accept is None
    assert opened().timers.accept == 300.0


def test_before_the_syn_has_its_receipt_there_is_nothing_to_compare(endpoint: Endpoint) -> None:
    endpoint.open("s1", "peer", "t", Limits(), 0.0)
    commit(endpoint)
    endpoint.probe("s1", 1.0)
    assert commit(endpoint, 1.0) == []
    endpoint.answered(Answer(FrameId("s1", "SYN", 0), Outcome.STORED, "P1", 1), 1.0)
    endpoint.probe("s1", 2.0)
    assert [type(said.frame) for said in commit(endpoint, 2.0) if isinstance(said, Transmit)] == [Probe]


def test_a_syn_that_is_receipted_in_a_later_epoch_of_ours_is_followed_by_a_probe() -> None:
    later = Session.restore(Local("L1", 2), opened().snapshot(), 0.0)
    later.timers = replace(later.timers, probe=None)
    later.answered(Answer(FrameId("s1", "SYN", 0), Outcome.STORED, "P1", 1), 5.0)
    assert later.timers.probe is not None
    assert later.timers.probe <= 5.0


def test_our_end_can_fail_once_and_then_not_again() -> None:
    session = opened()
    effects = session.fail("poison", 0.0)
    assert session.state is State.CLOSED
    assert any(isinstance(effect, Enqueue) and isinstance(effect.frame, Rst) for effect in effects)
    assert session.fail("poison", 1.0) == []


def test_an_ack_of_what_a_closed_session_never_had_changes_nothing() -> None:
    session = opened()
    session.abort("enough", 0.0)
    before = session.snapshot()
    assert session.ack(7, 1.0) == []
    assert session.snapshot() == before


def test_a_repeated_frame_is_known_by_its_digest_and_believed_when_that_is_long_forgotten() -> None:
    queue = ReceiveQueue()
    first = queue.rcv_nxt
    for number in range(DIGESTS_KEPT + 2):
        queue = queue.store(b"%d" % number)
    last = queue.rcv_nxt - 1
    assert queue.recognises(last, b"%d" % (last - first))
    assert not queue.recognises(last, b"another")
    oldest = queue.rcv_nxt - DIGESTS_KEPT
    assert not queue.recognises(oldest, b"another")
    assert queue.recognises(oldest - 1, b"another"), "nobody can tell any more"


def agreed(limits: Limits | None = None) -> Session:
    """Both ends accepted at 0 s; the SYN has its receipt."""
    session = opened(limits)
    session.answered(Answer(FrameId("s1", "SYN", 0), Outcome.STORED, "P1", 1), 0.0)
    session.receive(SynAck(**FROM_PEER), 0.0)
    return session


FROM_PEER: dict[str, Any] = {"session": "s1", "from_mailbox": "P1", "to_mailbox": "L1", "epoch": 1, "to_epoch": 1}
COUNTS: dict[str, Any] = {"rcv_nxt": 1, "acked": 1, "receipted": 1, "began": 1}


def test_the_room_of_a_window_is_what_the_peer_has_not_processed() -> None:
    assert opened().room == 0
    session = agreed()
    assert session.room == WINDOW
    for _ in range(3):
        session.send("x", 0.0)
    assert session.room == WINDOW - 3
    session.receive(Ack(**FROM_PEER, ack=3), 0.0)
    assert session.room == WINDOW - 1
    while session.room:
        session.send("x", 0.0)
    with pytest.raises(OverLimit) as caught:
        session.send("x", 0.0)
    assert caught.value.retry
    session.close(0.0)
    assert session.room == 0


@pytest.mark.parametrize(
    "stir",
    [
        pytest.param(lambda session: session.send("x", 5.0), id="what is said"),
        pytest.param(lambda session: session.close(5.0), id="a FIN of ours"),
        pytest.param(lambda session: session.ack(1, 5.0), id="an ack of our agent"),
        pytest.param(lambda session: session.progress("half", 5.0), id="progress of ours"),
        pytest.param(lambda session: session.receive(Data(**FROM_PEER, seq=2, body="x"), 5.0), id="what is heard"),
        pytest.param(lambda session: session.receive(Fin(**FROM_PEER, seq=2), 5.0), id="a FIN of theirs"),
        pytest.param(lambda session: session.receive(Ack(**FROM_PEER, ack=2), 5.0), id="an ack of their agent"),
        pytest.param(
            lambda session: session.receive(Probe(**FROM_PEER, **COUNTS, note="half"), 5.0), id="progress of theirs"
        ),
    ],
)
def test_the_idle_timer_begins_anew_with(stir: Any) -> None:
    session = agreed(Limits(idle_timeout=60.0))
    session.send("x", 1.0)
    session.receive(Data(**FROM_PEER, seq=1, body="x"), 1.0)
    assert session.timers.idle == 61.0
    before = session.version
    stir(session)
    assert session.timers.idle == 65.0
    assert session.version > before, "nobody would save it"


def test_a_repetition_is_no_sign_of_life_of_an_agent() -> None:
    session = agreed(Limits(idle_timeout=60.0))
    first = Data(**FROM_PEER, seq=1, body="x")
    session.receive(first, 1.0)
    session.send("x", 1.0)
    session.receive(first, 5.0)
    session.receive(Ack(**FROM_PEER, ack=1), 5.0)
    session.receive(Probe(**FROM_PEER, **COUNTS), 5.0)
    assert session.timers.idle == 61.0


def test_an_ack_in_a_closed_session_settles_what_was_left_and_is_saved() -> None:
    session = agreed()
    session.receive(Data(**FROM_PEER, seq=1, body="x"), 0.0)
    session.abort("enough", 0.0)
    before = session.version
    session.ack(1, 1.0)
    assert session.recv_queue.acked == 2
    assert session.version > before
    assert session.ack(1, 2.0) == []


@pytest.mark.parametrize(
    ("receipted", "rcv_nxt", "is_lost"),
    [
        pytest.param(1, 1, False, id="as we know it"),
        pytest.param(2, 1, True, id="it had receipts for more than we have"),
        pytest.param(1, 3, True, id="it has more than we ever sent"),
        pytest.param(1, 2, False, id="it has all that we sent"),
    ],
)
def test_a_probe_shows_that_we_have_lost_something(receipted: int, rcv_nxt: int, is_lost: bool) -> None:
    session = agreed()
    session.send("x", 0.0)
    counts = {**COUNTS, "receipted": receipted, "rcv_nxt": rcv_nxt}
    session.receive(Probe(**FROM_PEER, **counts), 1.0)
    assert (session.state is State.CLOSED, session.reason) == ((True, "power_loss") if is_lost else (False, ""))


def test_a_receipt_is_saved_and_strikes_all_rows_up_to_it() -> None:
    session = agreed()
    session.send("x", 0.0)
    session.send("y", 0.0)
    before = session.version
    struck = session.answered(Answer(FrameId("s1", "DATA", 2), Outcome.STORED, "P1", 1), 1.0)
    assert [effect.frame.number for effect in struck if isinstance(effect, Strike)] == [1, 2]
    assert session.version > before
    assert session.answered(Answer(FrameId("s1", "DATA", 1), Outcome.STORED, "P1", 1), 1.0) == [], "it is late"


def test_what_may_be_acked_is_said_by_number() -> None:
    session = agreed()
    with pytest.raises(LocalProtocolError) as caught:
        session.ack(1, 0.0)
    assert caught.value.hint == "ack one of none; all is acked"
    session.receive(Data(**FROM_PEER, seq=1, body="x"), 0.0)
    session.receive(Data(**FROM_PEER, seq=2, body="y"), 0.0)
    with pytest.raises(LocalProtocolError) as caught:
        session.ack(3, 0.0)
    assert caught.value.hint == "ack one of 1 to 2"


def test_a_fin_takes_one_number_and_is_the_last() -> None:
    queue = SendQueue().sent().finished()
    assert (queue.fin, queue.snd_nxt) == (1, 2)
