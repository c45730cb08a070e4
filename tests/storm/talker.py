"""One agent of the storm of sessions, as the nursery starts it. It may be killed at any instruction.

In some threads it opens sessions, one after another; in others it works at those that the others open. What it is told
goes to its journal before its next step. Started again it takes up what is open: whatever a step needs to know is in
the session's plan, in the daemon's record, or in the mail that is handed to it again.
"""

import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backchannel import Agent, BackchannelError, PeerAbsent, Refused, TimedOut
from backchannel.client import sessioncalls
from backchannel.client.blocking import Delivery
from backchannel.client.drive import run
from backchannel.client.sessions import Session
from backchannel.transport import start

from .agent import join
from .journal import Journal
from .plan import FINISHES, RETRY_AFTER_S, Plan, plan_of, session_id
from .sessionhistory import ACCEPTOR, INITIATOR, KINDS, Doing, Heard, Said, Settled, Told

LANES = 2  # sessions that each opens at a time with each other one
THINK_S = 0.02  # at most, between two steps
LOOK_S = 0.2
PASSING = (  # of the errors that a storm brings, the codes
    "unreachable", "timeout", "taken", "stale", "session_state", "no_such_session", "rejected", "reset", "expired",
    "budget",
)  # fmt: skip
LANE = "lane"  # a `Doing` of no session: how far an opening thread is


def main() -> None:
    """NAME OTHERS FOLDER."""
    name, others, folder = sys.argv[1:]
    start.can_serve = lambda: False  # the storm has recorded a daemon under witness
    journal = Journal(f"{folder}/{name}.journal", KINDS)
    targets = others.split(",")
    if len({e.session for e in journal.tail if isinstance(e, Doing) and e.what == LANE}) < LANES * len(targets):
        journal.look_further_back()  # one of its lanes has long been waiting
    agent = join(name)
    Talker(agent, journal, targets, Path(folder)).work()
    agent.close()


class Talker:
    def __init__(self, agent: Agent, journal: Journal, others: list[str], folder: Path) -> None:
        self._agent = agent
        self._journal = journal
        self._others = others
        self._folder = folder
        self._dice = random.Random(os.getpid())
        self._at_work: set[str] = set()  # sessions that a thread of ours accepted

    def work(self) -> None:
        """Until the file `over` says that everybody is at rest."""
        lanes = [self._begin(self._open_all, to, lane) for to in self._others for lane in range(LANES)]
        self._begin(self._answer_offers)
        while any(lane.is_alive() for lane in lanes):
            self._take_notices()
        while not (self._folder / "over").exists():
            (self._folder / f"{self._agent.name}.idle").touch()
            self._take_notices()
            self._sweep()

    def _begin(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        """A thread that fails must not fail alone."""

        def surely() -> None:
            try:
                work(*arguments)
            except BaseException:
                traceback.print_exc()
                os._exit(1)

        thread = threading.Thread(target=surely, daemon=True)
        thread.start()
        return thread

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open_all(self, to: str, lane: int) -> None:
        """One session after another with `to`, until the file `enough` is there; begins with the last one again."""
        lane_name = f"{to} {lane}"
        before = [e.words for e in self._journal.tail if isinstance(e, Doing) and e.session == lane_name]
        number = int(before[-1]) if before else 0
        while before or not (self._folder / "enough").exists():
            before.clear()
            self._do(lane_name, LANE, str(number))
            plan = plan_of(session_id(self._agent.name, to, lane, number))
            self._until_over(plan, INITIATOR, self._open, plan, to)
            number += 1

    def _open(self, plan: Plan, to: str) -> None:
        self._do(plan.id, "open", plan.task)
        caller = self._agent._caller
        patience = sessioncalls.WITHOUT_END_S if plan.accept_timeout is None else plan.accept_timeout
        record = run(sessioncalls.offer(caller, plan.id, to, plan.task, patience, max_messages=plan.max_messages))
        self._told(record)
        if plan.ending == "withdrawn":
            self._think()
            record = self._abort(plan)
        record = run(sessioncalls.watch_until(caller, record, lambda now: now["state"] != "SYN-SENT", None))
        self._told(record)
        self._hold(plan, self._lead)

    def _hold(self, plan: Plan, work: Callable[[Session, Plan], None]) -> None:
        """Nobody else has the session meanwhile."""
        session = self._agent.session(plan.id)
        try:
            work(session, plan)
        finally:
            session.detach()

    def _lead(self, session: Session, plan: Plan) -> None:
        """The opener's part, from wherever it was left."""
        self._told(session.record.raw)
        if session.state in sessioncalls.TALKING:
            for number in range(1, plan.asked + 1):
                self._say(session, f"question-{number}", plan.question(number))
            if plan.ending == "at_once" or (plan.ending == "opener_first" and not plan.answers):
                self._close(session, plan)
            if plan.ending == "opener_aborts" and not plan.aborts_at:
                self._abort(plan)
        for delivery in session.receive(None):
            seq = self._heard(delivery)
            if plan.ending == "opener_aborts" and seq == plan.aborts_at:
                self._abort(plan)
            elif plan.ending == "opener_first" and seq == plan.answers:
                self._commit(delivery, closes=[(session, plan.result(self._agent.name))])
            else:
                self._ack(delivery)
        self._finish(session, plan)

    # --- being asked --------------------------------------------------------------------------------------------------

    def _answer_offers(self) -> None:
        while True:
            try:
                for record in self._agent.sessions(is_open=True):
                    if record.role == ACCEPTOR and record.state != "SYN-RECEIVED":
                        self._work_at(record.id)
                for request in self._agent.requests(LOOK_S):
                    plan = plan_of(request.id)
                    if plan.ending == "rejected":
                        self._do(plan.id, "reject", plan.reason)
                        request.reject(plan.reason, RETRY_AFTER_S)
                    elif plan.ending != "unanswered":
                        self._do(plan.id, "accept", "")
                        self._told(run(sessioncalls.accept(self._agent._caller, plan.id)))
                        self._work_at(plan.id)
            except BackchannelError as error:
                if error.code not in PASSING:
                    raise

    def _work_at(self, session: str) -> None:
        if session not in self._at_work:
            self._at_work.add(session)
            plan = plan_of(session)
            self._begin(self._until_over, plan, ACCEPTOR, self._hold, plan, self._follow)

    def _follow(self, session: Session, plan: Plan) -> None:
        """The acceptor's part, from wherever it was left."""
        self._told(session.record.raw)
        third = next(name for name in self._others if name != session.peer)
        closes_itself = plan.ending in ("acceptor_first", "at_once")
        if session.state in sessioncalls.TALKING:
            for number in range(1, plan.told + 1):
                self._say(session, f"remark-{number}", plan.remark(number))
            if closes_itself and not plan.asked:
                self._close(session, plan)
            if plan.ending == "acceptor_aborts" and not plan.aborts_at:
                self._abort(plan)
        for delivery in session.receive(None):
            seq = self._heard(delivery)
            if plan.ending == "acceptor_aborts" and seq == plan.aborts_at:
                self._abort(plan)
                continue
            is_last = closes_itself and seq == plan.asked
            self._commit(
                delivery,
                sends=[(session, plan.answer(seq)), (third, plan.note(seq))],
                closes=[(session, plan.result(self._agent.name), plan.status)] if is_last else [],
            )
        self._finish(session, plan)

    # --- steps of both ------------------------------------------------------------------------------------------------

    def _until_over(self, plan: Plan, role: str, work: Callable[..., None], *arguments: object) -> None:
        """Carries on, whatever breaks, until the session is closed at our end."""
        while True:
            try:
                work(*arguments)
            except BackchannelError as error:
                if error.code not in PASSING:
                    raise
            try:
                record = self._agent.look(plan.id)
                self._told(record.raw)
                if not record.is_open:
                    return
            except BackchannelError as error:
                # An opener may have died before it offered; nobody accepts what nobody offered.
                if error.code not in PASSING or (error.code == "no_such_session" and role == ACCEPTOR):
                    raise
            time.sleep(0.01)

    def _say(self, session: Session, key: str, text: str) -> None:
        self._think()
        self._do(session.id, "say", text)
        receipt = session.send(text, key=key)
        assert receipt.id.startswith(f"{session.id}/")
        seq = int(receipt.id.rpartition("/")[2])
        self._journal.write(Said(self._agent.name, session.id, key, seq, text, receipt.duplicate, time.monotonic()))

    def _heard(self, delivery: Delivery) -> int:
        assert delivery.session is not None
        seq = int(delivery.id.rpartition("/")[2])
        self._journal.write(
            Heard(self._agent.name, delivery.session, seq, delivery.text, delivery.delivery, time.monotonic())
        )
        self._think()
        return seq

    def _ack(self, delivery: Delivery) -> None:
        self._do(delivery.session, "ack", delivery.id.rpartition("/")[2])
        delivery.ack()
        self._settled(delivery)

    def _commit(self, delivery: Delivery, sends: Any = (), closes: Any = ()) -> None:
        """The ack, and all that follows from it."""
        for close in closes:
            self._do(delivery.session, "close", close[1])
        self._do(delivery.session, "commit", delivery.id.rpartition("/")[2])
        self._agent.commit(acks=[delivery], sends=sends, closes=closes)
        self._settled(delivery)

    def _settled(self, delivery: Delivery) -> None:
        seq = int(delivery.id.rpartition("/")[2])
        self._journal.write(Settled(self._agent.name, str(delivery.session), seq, delivery.delivery, time.monotonic()))

    def _close(self, session: Session, plan: Plan) -> None:
        text = plan.result(self._agent.name)
        self._do(plan.id, "close", text)
        session.close(text, "ok" if session.role == INITIATOR else plan.status)
        self._told(session.record.raw)

    def _abort(self, plan: Plan) -> dict[str, Any]:
        self._do(plan.id, "abort", plan.reason)
        record = run(sessioncalls.abort(self._agent._caller, plan.id, plan.reason))
        self._told(record)
        return record

    def _finish(self, session: Session, plan: Plan) -> None:
        """The peer has said all."""
        if plan.ending in FINISHES:
            if session.state in sessioncalls.TALKING:
                self._close(session, plan)
            session.wait()
            self._told(session.record.raw)

    def _think(self) -> None:
        time.sleep(self._dice.uniform(0, THINK_S))

    # --- what nobody works at -----------------------------------------------------------------------------------------

    def _take_notices(self) -> None:
        """Notes for us, and hints about sessions."""
        kinds = ("message", "offer", "accepted", "rejected", "reset", "bounce")
        try:
            for delivery in self._agent.receive(LOOK_S, kinds=kinds):
                assert delivery.kind != "bounce", delivery.text
                delivery.ack()
        except (PeerAbsent, TimedOut, Refused):
            pass

    def _sweep(self) -> None:
        """What is left of sessions that are over: what came before our own abort, say."""
        try:
            if self._agent.sessions(is_open=True):
                return
            for delivery in self._agent.receive(LOOK_S, kinds=None):
                if delivery.kind == "data":
                    self._heard(delivery)
                    self._ack(delivery)
                else:
                    delivery.ack()
        except (PeerAbsent, TimedOut, Refused):
            pass

    # --- writing down -------------------------------------------------------------------------------------------------

    def _do(self, session: str | None, what: str, words: str) -> None:
        self._journal.write(Doing(self._agent.name, str(session), what, words, time.monotonic()))

    def _told(self, record: Any) -> None:
        known = {field: record.get(field) for field in Told._fields}
        known.update(agent=self._agent.name, session=record["id"], at=time.monotonic())
        self._journal.write(Told(**known))
