"""Which worlds are searched, which protocols must be found wanting, and the mutants.

`HOLD` must hold. `MUST_FAIL` are protocols that lack one safeguard each: were one of them found sound, the checker
would be blind. `MUTANTS` are single mistakes in the machine, put there by patching it; each must be noticed.

    python -m tests.checker          prints all of them, with figures
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from msgspec import structs

from backchannel.protocol import sendqueue
from backchannel.protocol.effects import Answer, Effect, Enqueue, Strike
from backchannel.protocol.recvqueue import ReceiveQueue
from backchannel.protocol.sendqueue import SendQueue
from backchannel.protocol.session import Session, Trust
from backchannel.protocol.sessionframe import Ack, Data, FrameId, Probe, SessionFrame
from backchannel.protocol.states import TABLE, Cause, Input, Outcome, State, Step
from backchannel.protocol.synnumbers import SynNumbers
from tests.scripts import differences, scripts

from .search import search
from .world import Config

HOLD = [
    Config("one DATA each way"),
    Config("two DATA each way", sends=(2, 2)),
    Config("rejected or given up", sends=(1, 0), rejects=True, gives_up=True),
    Config("one abort a side, rejects, gives up", sends=(1, 0), aborts=(True, True), rejects=True, gives_up=True),
    Config("tombstones forgotten", sends=(1, 0), aborts=(True, True), rejects=True, forgets=True),
    Config("late answers", sends=(1, 0), slow_answers=True),
    Config("late answers, aborts", sends=(0, 0), slow_answers=True, aborts=(True, True), rejects=True),
    Config("acceptor loses its database", sends=(1, 1), lost=(0, 1)),
    Config("initiator loses its database", sends=(1, 1), lost=(1, 0)),
    Config("acceptor loses its last commit", sends=(1, 0), rolls_back=(0, 1)),
    Config("initiator loses its last commit", sends=(1, 0), rolls_back=(1, 0)),
    Config("acceptor sends, loses its last commit", sends=(0, 1), rolls_back=(0, 1)),
    Config("initiator reads, loses its last commit", sends=(0, 1), rolls_back=(1, 0)),
]

NIGHT = [
    Config("acceptor loses its last 2 commits", sends=(1, 0), rolls_back=(0, 2)),
    Config("initiator loses its last 2 commits", sends=(1, 0), rolls_back=(2, 0)),
    Config("acceptor sends, loses its last 2 commits", sends=(0, 1), rolls_back=(0, 2)),
    Config("initiator reads, loses its last 2 commits", sends=(0, 1), rolls_back=(2, 0)),
    Config("one abort a side, DATA each way", aborts=(True, True), rejects=True, gives_up=True),
    Config("three DATA one way, two back", sends=(3, 2)),
    Config("two DATA each way, one abort a side", sends=(2, 2), aborts=(True, True), rejects=True, gives_up=True),
    Config("tombstones forgotten, DATA each way", aborts=(True, True), rejects=True, forgets=True),
    Config("late answers, DATA each way", slow_answers=True),
    Config("late answers, aborts, DATA", sends=(1, 0), slow_answers=True, aborts=(True, True), rejects=True),
    Config("late answers, acceptor loses 2 commits", sends=(0, 0), slow_answers=True, rolls_back=(0, 2)),
    Config("late answers, initiator loses 2 commits", sends=(0, 0), slow_answers=True, rolls_back=(2, 0)),
    Config("both lose their databases", sends=(1, 1), lost=(1, 1)),
    Config("initiator loses its last 4 commits", sends=(1, 0), rolls_back=(4, 0)),
    Config("acceptor sends, loses its last 4 commits", sends=(0, 1), rolls_back=(0, 4)),
    Config("acceptor loses commits, aborts", sends=(0, 0), rolls_back=(0, 2), aborts=(True, True), rejects=True),
    Config("both lose their last commit", sends=(0, 0), rolls_back=(1, 1)),
]


@dataclass(frozen=True)
class Variation:
    """A changed protocol: where, how, in which worlds to look, and what should notice ("" is anything)."""

    name: str
    configs: tuple[Config, ...]
    patches: tuple[tuple[Any, str, Any], ...] = ()
    cells: tuple[tuple[State, Input, Step | None], ...] = ()
    noticed_by: str = ""

    @contextmanager
    def in_force(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, value in self.patches:
                stack.enter_context(patch.object(owner, name, value))
            stack.enter_context(patch.dict(TABLE))
            for state, column, step in self.cells:
                TABLE.pop((state, column), None)
                if step is not None:
                    TABLE[state, column] = step
            yield


def to(state: State, cause: Cause | None = None) -> Step:
    return Step(state, cause, Outcome.STORED)


def answer(state: State, outcome: Outcome) -> Step:
    return Step(state, None, outcome)


PLAIN = Config("one DATA each way")
ABORTS = Config("aborts", sends=(1, 0), aborts=(True, True), rejects=True)
FORGETS = Config("forgets", sends=(0, 0), aborts=(True, True), forgets=True)
LATE = Config("late answers", sends=(2, 0), slow_answers=True)
LOST_B = Config("acceptor loses its database", lost=(0, 1))
LOST_A = Config("initiator loses its database", lost=(1, 0))
BACK_A = Config("initiator loses 2 commits", sends=(1, 1), rolls_back=(2, 0))
BACK_A_1 = Config("initiator loses its last commit", sends=(1, 0), rolls_back=(1, 0))

# -- what the protocol would be without one of its safeguards ----------------------------------------------------------


def never_compares(self: Session, peer: Probe, now: float, *, asked: bool) -> list[Effect]:
    return []


MUST_FAIL = [
    Variation(
        "a RST of an unknown session leaves no trace",
        (ABORTS,),
        cells=((State.NONE, Input.RST, answer(State.NONE, Outcome.NO_SESSION)),),
        noticed_by="I11",
    ),
    Variation(
        "tombstones forgotten, no SYN numbers",
        (FORGETS,),
        ((SynNumbers, "is_new", lambda self, number: True),),
        noticed_by="I1",
    ),
    Variation("database lost, no mailbox ids", (replace(LOST_B, new_id=False),), noticed_by="P1"),
    Variation("database lost, no PROBE", (replace(LOST_B, probes=False),), noticed_by="P1"),
    Variation(
        "commits lost, no epoch",
        (replace(BACK_A, new_epoch=False, sends=(1, 0)),),
        ((ReceiveQueue, "recognises", lambda self, seq, digest: True), (Session, "_compare", never_compares)),
        noticed_by="I4",
    ),
]

# -- single mistakes ---------------------------------------------------------------------------------------------------

whole = {
    name: getattr(Session, name)
    for name in [
        "_store",
        "_counts",
        "_classify",
        "_judge",
        "_receipted",
        "_end",
        "answered",
        "_objection",
        "_receive_probe",
        "_compare",
        "_acknowledged",
        "_enqueue_ack",
    ]
}


def acks_what_is_stored(self: Session, frame: SessionFrame, step: Step, now: float) -> list[Effect]:
    effects: list[Effect] = whole["_store"](self, frame, step, now)
    if isinstance(frame, Data):
        self.recv_queue = self.recv_queue.ack(frame.seq)
        effects += self._enqueue_ack()
    return effects


def delivers_nothing(self: Session, frame: SessionFrame, step: Step, now: float) -> list[Effect]:
    effects: list[Effect] = whole["_store"](self, frame, step, now)
    return [] if isinstance(frame, Data) else effects


def counts_stored_as_processed(self: Session) -> Probe:
    counts: Probe = whole["_counts"](self)
    return structs.replace(counts, acked=max(1, counts.rcv_nxt))


def takes_as_data(column: Input) -> Callable[[Session, SessionFrame], Input]:
    def classify(self: Session, frame: SessionFrame) -> Input:
        found: Input = whole["_classify"](self, frame)
        return Input.DATA if found is column and isinstance(frame, Data) else found

    return classify


def takes_any_ack(self: Session, frame: SessionFrame, outcome: Outcome) -> Outcome:
    judged: Outcome = whole["_judge"](self, frame, outcome)
    return outcome if isinstance(frame, Ack) else judged


def establishes_by_receipt(self: Session, received: Answer, now: float) -> list[Effect]:
    effects: list[Effect] = whole["_receipted"](self, received, now)
    if self.state is State.SYN_SENT:
        self._enter(State.ESTABLISHED, None, "")
    return effects


def takes_any_ack_receipt(self: Session, received: Answer, now: float) -> list[Effect]:
    if received.frame.kind == "ACK" and self.recv_queue.ack_row is not None:
        received = structs.replace(received, frame=FrameId(self.id, "ACK", self.recv_queue.ack_row))
    effects: list[Effect] = whole["answered"](self, received, now)
    return effects


def ends_at_a_gap(self: Session, received: Answer, now: float) -> list[Effect]:
    if received.outcome is Outcome.GAP and self._awaits(received.frame):
        received = structs.replace(received, outcome=Outcome.BAD)
    effects: list[Effect] = whole["answered"](self, received, now)
    return effects


def hears_no_no_session(self: Session, received: Answer, now: float) -> list[Effect]:
    if received.outcome is Outcome.NO_SESSION and self.state.is_open:
        return []
    effects: list[Effect] = whole["answered"](self, received, now)
    return effects


def takes_answers_of_any_epoch(self: Session, received: Answer, now: float) -> list[Effect]:
    if self.trust is not None and self.trust.theirs is not None:
        received = structs.replace(received, epoch=self.trust.theirs)
    effects: list[Effect] = whole["answered"](self, received, now)
    return effects


def ends_silently(self: Session, how: Input, reason: str, now: float, *, tell: bool = True) -> list[Effect]:
    effects: list[Effect] = whole["_end"](self, how, reason, now, tell=False)
    return effects


def sees(**change: Callable[[Session, SessionFrame], object]) -> Callable[..., object]:
    """The door looks at a frame as if its header said something else."""

    def objection(self: Session, frame: SessionFrame, now: float) -> object:
        seen = structs.replace(frame, **{name: value(self, frame) for name, value in change.items()})
        return whole["_objection"](self, seen, now)

    return objection


def its_mailbox(self: Session, frame: SessionFrame) -> str:
    return self.mailbox or frame.from_mailbox


def its_epoch(self: Session, frame: SessionFrame) -> int:
    return frame.epoch if self.trust is None or self.trust.theirs is None else max(frame.epoch, self.trust.theirs)


def its_own_epoch(self: Session, frame: SessionFrame) -> int:
    return self.local.epoch


def trusts_everyone(self: Session, frame: SessionFrame, now: float) -> object:
    if self.trust is not None:
        self.trust = Trust(self.local.epoch, frame.epoch)
    return whole["_objection"](self, structs.replace(frame, to_epoch=self.local.epoch), now)


def buries_at_once(self: Session, probe: Probe, now: float) -> list[Effect]:
    if self.state is State.CLOSED:
        return self.answer(probe, Outcome.CLOSED, self.reason)
    effects: list[Effect] = whole["_receive_probe"](self, probe, now)
    return effects


def looks_for_the_peers_loss(self: Session, peer: Probe, now: float, *, asked: bool) -> list[Effect]:
    if peer.rcv_nxt < self.send_queue.receipted:
        return self._end(Input.LOST, "power_loss", now)
    effects: list[Effect] = whole["_compare"](self, peer, now, asked=asked)
    return effects


def leaves_covered_rows(self: Session, step: Step, ack: int, now: float) -> list[Effect]:
    effects: list[Effect] = whole["_acknowledged"](self, step, ack, now)
    return [effect for effect in effects if not isinstance(effect, Strike)]


def leaves_the_older_ack(self: Session) -> list[Effect]:
    effects: list[Effect] = whole["_enqueue_ack"](self)
    return [effect for effect in effects if isinstance(effect, Enqueue)]


def on(name: str, value: object) -> tuple[tuple[Any, str, Any], ...]:
    return ((Session, name, value),)


MUTANTS = [
    Variation("acks when stored, not when processed", (PLAIN,), on("_store", acks_what_is_stored)),
    Variation("a PROBE counts the stored as processed", (PLAIN,), on("_counts", counts_stored_as_processed)),
    Variation("gives a receipt and delivers nothing", (PLAIN,), on("_store", delivers_nothing)),
    Variation("stores out of order", (Config("", sends=(2, 0)),), on("_classify", takes_as_data(Input.AHEAD))),
    Variation("stores repeats", (PLAIN,), on("_classify", takes_as_data(Input.OLD))),
    Variation("the daemon accepts", (PLAIN,), cells=((State.NONE, Input.SYN, to(State.ESTABLISHED)),)),
    Variation("a receipt establishes", (PLAIN,), on("_receipted", establishes_by_receipt)),
    Variation("FIN-WAIT-1: FIN leads to DRAIN", (PLAIN,), cells=((State.FIN_WAIT_1, Input.FIN, to(State.DRAIN)),)),
    Variation(
        "FIN-WAIT-2: FIN finishes, unprocessed",
        (PLAIN,),
        cells=((State.FIN_WAIT_2, Input.FIN, to(State.CLOSED, Cause.FINISHED)),),
    ),
    Variation(
        "CLOSING: our ack finishes, without theirs",
        (PLAIN,),
        cells=((State.CLOSING, Input.ACKNOWLEDGE_FIN, to(State.CLOSED, Cause.FINISHED)),),
    ),
    Variation(
        "CLOSE-WAIT: close skips CLOSING", (PLAIN,), cells=((State.CLOSE_WAIT, Input.CLOSE, to(State.LAST_ACK)),)
    ),
    Variation(
        "CLOSE-WAIT: an acked FIN is forgotten",
        (PLAIN,),
        cells=((State.CLOSE_WAIT, Input.CLOSE_LAST, to(State.CLOSING)),),
    ),
    Variation(
        "FIN-WAIT-1: their ack is not heard", (PLAIN,), cells=((State.FIN_WAIT_1, Input.ACK_FIN, to(State.FIN_WAIT_1)),)
    ),
    Variation("rows outlive the session", (ABORTS,), on("_strike_all", lambda self: [])),
    Variation("abort tells nobody", (ABORTS,), on("_end", ends_silently)),
    Variation("any ACK's receipt counts for the newest", (LATE,), on("answered", takes_any_ack_receipt)),
    Variation("one GAP ends the session", (replace(LATE, sends=(0, 1)),), on("answered", ends_at_a_gap)),
    Variation("NO_SESSION is not heard", (LOST_B,), on("answered", hears_no_no_session)),
    Variation("tombstones answer a PROBE with CLOSED", (PLAIN,), on("_receive_probe", buries_at_once)),
    Variation(
        "a PROBE looks for the peer's loss", (replace(LATE, sends=(1, 0)),), on("_compare", looks_for_the_peers_loss)
    ),
    Variation("SYN-ACK leaves the SYN's row", (), on("_answered_syn", lambda self: [])),
    Variation("an ACK leaves the rows it covers", (PLAIN,), on("_acknowledged", leaves_covered_rows)),
    Variation(
        "a new ACK leaves the older one's row", (Config("", sends=(2, 0)),), on("_enqueue_ack", leaves_the_older_ack)
    ),
    Variation("frames from any mailbox", (LOST_B, LOST_A), on("_objection", sees(from_mailbox=its_mailbox))),
    Variation(
        "frames to any mailbox",
        (LOST_B, LOST_A),
        on("_objection", sees(to_mailbox=lambda self, frame: self.local.mailbox)),
    ),
    Variation("frames of an epoch that is over", (BACK_A_1,), on("_objection", sees(epoch=its_epoch))),
    Variation("frames to an epoch that is over", (), on("_objection", sees(to_epoch=its_own_epoch))),
    Variation("answers of an epoch that is over", (), on("answered", takes_answers_of_any_epoch)),
    Variation(
        "a PROBE counts numbers given since the start",
        (BACK_A,),
        ((SendQueue, "can_have_reached", lambda self, rcv_nxt: rcv_nxt <= self.snd_nxt),),
    ),
    Variation(
        "nothing waits for the PROBE",
        (BACK_A_1,),
        (*on("may_transmit", lambda self, frame: True), *on("_objection", trusts_everyone)),
    ),
    Variation(
        "the window is one too wide",
        (Config("", sends=(3, 0)),),
        (
            (sendqueue, "WINDOW", 1),
            (SendQueue, "is_full", property(lambda self: self.snd_nxt - self.snd_una > sendqueue.WINDOW)),
        ),
    ),
    Variation("a repeat may say something else", (), ((ReceiveQueue, "recognises", lambda self, seq, digest: True),)),
    Variation("an ACK of what was never sent", (), on("_judge", takes_any_ack)),
]


def noticed(variation: Variation) -> str:
    """What notices the variation: an invariant, or else a script; empty if nothing does."""
    with variation.in_force():
        for config in variation.configs:
            verdict = search(config, watching=variation.noticed_by, most=500_000)
            if verdict.violation:
                return f"{verdict.violation}, after {len(verdict.way)} steps"
        for path in scripts():
            if said := differences(path):
                return f"script {path.stem}: {said[0]}"
    return ""
