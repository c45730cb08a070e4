"""The host: the one place where disk and wire meet.

Requests of one pass of the loop go in, one by one, and change the mailbox's open transaction. `finish` hands out what
waits to those who wait for it, commits once, and only then gives back what may be sent. There is no other way to an
answer, so nothing can be acknowledged before it is on disk. No sockets and no clock in here: callers are objects, time
is an argument, and a simulation can run it as it is.
"""

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import Raw

from ..errors import BackchannelError, LocalProtocolError, NotPermitted, OverLimit
from ..mailbox.database import is_full
from ..mailbox.mailbox import Mailbox, State
from ..mailbox.outbox import Outbox, Row
from ..protocol import fastcodec, frame
from ..protocol.envelope import Envelope, Peer, shown_sender, to_delivery
from ..protocol.names import AgentName, make_id
from ..protocol.receipt import Stage
from ..transport.policy import Policy
from .callers import Answer, Caller, Taker, Watcher
from .config import Config
from .control import Control, queued
from .courier import Courier, Errand, Reply
from .inbox import RESERVE_CHECK_BYTES, Inbox
from .log import logger
from .operating import Operating
from .sessioncalls import SessionCalls
from .sessions import Sessions
from .taking import Taking

TAKE_BYTES_MAX = 1 << 20  # of texts in one answer, beyond its first; the client's line has to end somewhere
UNDELIVERED_KEPT = 1000
STORAGE_RETRY_S = 1.0  # after a failed transaction of our own (a lease that fell, a ttl that passed)


class StorageFailed(Exception):
    """The disk did not do what it was told. The daemon ends; the next start recovers."""


class Host:
    """One agent's daemon without its sockets.

    `key_of(name)` reads an agent's key, `is_model_driven(name)` its settings, `registered()` lists the agents of this
    user; `random(n)` gives n random bytes, `free_bytes()` the room on the disk, `policy()` who else may come.
    After `receive`, `closed` or `handle_timer`, call `finish` and send what it returns. `stopping` asks the server to
    close this name.
    """

    def __init__(
        self,
        name: AgentName,
        mailbox: Mailbox,
        config: Config,
        *,
        now: float,
        uid: int,
        key_of: Callable[[str], str | None],
        is_model_driven: Callable[[str], bool],
        registered: Callable[[], list[str]],
        random: Callable[[int], bytes],
        free_bytes: Callable[[], int],
        policy: Callable[[], Policy | None] = lambda: None,
    ) -> None:
        self.name = str(name)
        self.mailbox = mailbox
        self.config = config
        self.stopping = False
        self.refusals: dict[str, int] = {}  # by code, since the start
        self.random = random
        self.registered = registered
        self.uid = uid
        self.own_peer = Peer(uid, os.getgid(), os.getpid())
        self.key_of = key_of
        self.is_model_driven = is_model_driven
        self.free_bytes = free_bytes
        self.policy = policy
        self.takers: list[Taker] = []
        self.watchers: list[Watcher] = []
        self._pass: list[tuple[Caller, bytes]] = []  # the requests of this pass, should it have to be done again
        self._left: list[Caller] = []  # who closed in this pass
        self._back: list[Errand] = []  # whose answers are written down in this pass
        self.staged: list[Answer] = []
        self._failure: Exception | None = None
        self._own_retry: float | None = None
        self._is_stuck = False  # the disk refused the last handing out
        self._sent: dict[str, dict[str, Any]] = {}  # receipts that came in this pass, for those who wait for them
        self.undelivered: dict[str, dict[str, Any]] = {}  # the last that targets refused, for those who ask later
        self.outbox = Outbox(mailbox)
        self.sessions = Sessions(self, now)
        self.courier = Courier(
            self.name,
            self.outbox,
            self.sessions.frames,
            key=self._key_for,
            jitter=lambda: random(1)[0] / 256,
            prepare=self.sessions.prepare,
        )
        self.inbox_calls = inbox = Inbox(self)
        self.taking = taking = Taking(self)
        self.own_calls = control = Control(self)
        self.session_calls = session_calls = SessionCalls(self)
        self.operating = operating = Operating(self, now)
        self._inbox: dict[str, Callable[..., bytes | None]] = {
            "push": inbox.push,
            "receipt": inbox.receipt,
            "wait": inbox.wait,
            "cancel": inbox.cancel,
            "frame": session_calls.frame,
            "probe": session_calls.probe,
            "ping": inbox.ping,
        }
        self._control: dict[str, Callable[..., bytes | None]] = {
            **self._inbox,
            "take": taking.take,
            "ack": taking.ack,
            "reject": taking.reject,
            "release": taking.release,
            "renew": taking.renew,
            "commit": control.commit,
            "claim": control.claim,
            "sessions": session_calls.sessions,
            "open": session_calls.open,
            "accept": session_calls.accept,
            "say": session_calls.say,
            "close": session_calls.close,
            "abort": session_calls.abort,
            "trace": session_calls.trace,
            "pause": control.pause,
            "resume": control.resume,
            "peek": control.peek,
            "log": control.log,
            "tap": control.tap,
            "config": control.config,
            "status": taking.status,
            "check": operating.check,
            "metrics": operating.metrics,
            "audit": operating.audit,
            "backup": operating.backup,
            "purge": operating.purge,
            "purges": operating.purges,
            "stop": taking.stop,
        }

    # --- a pass -------------------------------------------------------------------------------------------------------

    def receive(self, caller: Caller, line: bytes, now: float, wall: float) -> None:
        """One request. Its answer comes out of `finish`, now or in a later pass."""
        self._pass.append((caller, line))
        if self._failure is not None:
            return  # the pass has failed already and will be done again, request by request
        try:
            self._dispatch(caller, line, now, wall)
        except Exception as error:
            self._failure = error

    def finish(self, now: float, wall: float) -> list[Answer]:
        """Hands out, commits, and returns what may be sent, in order. Raises `StorageFailed`.

        Who sends an answer takes it off its caller's `pending`.
        """
        if self._failure is None:
            try:
                if self.mailbox.next_expiry is not None:
                    self.mailbox.expire(now, wall)  # what came back too late is not handed out once more
                if self.takers:
                    self._hand_out()
                if self._commit(now, wall):
                    self._is_stuck = False
            except sqlite3.Error as error:
                self._failure = error
        if self._failure is not None:
            self._start_over(now, wall)
        answers = self.staged
        self.staged = []
        self._pass.clear()
        self._left.clear()
        self._back.clear()
        if self.takers:
            answers = self._answer_takers(answers, now, wall)
        if self.watchers:
            self._answer_watchers(answers, now)
        self._sent.clear()
        if self.own_calls.tappers or now < self.own_calls.events.wanted_until:
            self.own_calls.answer_taps(answers, now, wall)
        self.mailbox.changed.clear()
        if self.session_calls.watchers:
            self.session_calls.answer_watchers(answers, now)
        self.sessions.changed.clear()
        if self.operating.auditors:
            self.operating.answer_audits(answers)
        return answers

    def refuse(self, caller: Caller, error: BackchannelError) -> Answer:
        """The answer to what could not even be read as a request."""
        self._count_refusal(error)
        return Answer(caller, frame.answer_error(b"null", error))

    def errand_answered(self, errand: Errand, line: bytes, now: float, wall: float) -> None:
        """The courier came back: what was receipted leaves the outbox, what was refused for good bounces."""
        reply = self.courier.answered(errand, line, now)
        self._back.append(errand)
        self._own(lambda: self._settle_errand(errand, reply, now, wall))

    def errand_failed(self, errand: Errand, why: str, now: float, wall: float, *, is_final: bool = False) -> None:
        """Nobody was there. `is_final`: nobody ever will be, the name is gone."""
        if is_final:
            self.courier.gone(errand)
            self._back.append(errand)
            reply = Reply(code="unknown_agent", message=why)
            self._own(lambda: self._settle_errand(errand, reply, now, wall))
        else:
            self.courier.failed(errand, now, why)

    def _settle_errand(self, errand: Errand, reply: Reply, now: float, wall: float) -> None:
        if isinstance(errand.row, Row):
            has_left = reply.is_result or not reply.retry
            if has_left:
                self._settle_row(errand.row, reply, now, wall)
        else:
            has_left = self.sessions.answered(errand, reply, now, wall)
        self.courier.settled(errand, now, has_left=has_left, why=reply.message)
        for target in self.courier.returned:
            self.sessions.probe_peer(target, now, wall)
        self.courier.returned.clear()

    def _settle_row(self, row: Row, reply: Reply, now: float, wall: float) -> None:
        self.outbox.remove(row)
        if reply.is_result:
            self.operating.queued.observe(wall - row.queued_at)
            self._sent[row.id] = reply.result
            return
        refused = queued(row.id, row.target, self.name)
        refused |= {"stage": Stage.REJECTED.value, "reason": reply.message, "code": reply.code}
        self._sent[row.id] = self.undelivered[row.id] = refused
        if len(self.undelivered) > UNDELIVERED_KEPT:
            del self.undelivered[next(iter(self.undelivered))]
        if frame.wants_bounce(row.params):
            headers = {"to": row.target, "code": reply.code, "stage": "rejected"}
            self.notice("bounce", reply.message, wall, now=now, headers=headers, reply_to=row.id)

    def closed(self, caller: Caller, now: float, wall: float) -> None:
        """The connection is gone: what it waited for is forgotten, what it held falls."""
        self._left.append(caller)
        self._let_go(caller, now, wall)
        if caller.is_control and self._failure is None:
            self._own(lambda: self.mailbox.release_expired(now, wall))

    def handle_timer(self, now: float, wall: float) -> None:
        """What is due: ttls and detached leases (waits end in `finish`). Calling it early does nothing."""
        if self._own_retry is not None and self._own_retry <= now:
            self._own_retry = None
        if self._own_retry is None:
            self._own(lambda: self._end_overdue(now, wall))

    @property
    def deadline(self) -> float | None:
        """When `handle_timer` has something to do, seconds since boot; None: only when somebody calls."""
        times: list[float | None] = [self._own_retry]
        if self._own_retry is None:
            times = [self.mailbox.next_expiry, self.sessions.endpoint.deadline]
            if self.mailbox.leases:
                times += [lease.deadline for lease in self.mailbox.leases.values()]
        for others in (self.takers, self.watchers, self.own_calls.tappers, self.session_calls.watchers):
            if others:
                times += [x.deadline for x in others]
        earliest = None
        for at in times:
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    def is_idle(self, now: float) -> bool:
        """Whether no process is needed: what lies here can lie as well without one until somebody calls.

        Not idle is what holds or waits (a lease, a taker, an open session, a row that must go out), and what is due at
        some time (a ttl). A session that is over has only to be forgotten: the next start does that.
        """
        waits = self.takers or self.watchers or self.own_calls.tappers or self.session_calls.watchers
        if waits or self.mailbox.leases or len(self.outbox) or len(self.sessions.frames) or self.operating.is_under_way:
            return False
        if self.mailbox.has_ttl_to_come() or self._own_retry is not None or self.courier.deadline is not None:
            return False
        if not self.own_calls.inheritance.is_over(now):  # a model thinks longer, and its hops are in memory only
            return False
        return all(session.state is session.state.CLOSED for session in self.sessions.endpoint.sessions())

    def clear_up(self, now: float, wall: float) -> None:
        """One step of what retention asks for, in a transaction of its own, when it is due and nobody waits. Raises
        `StorageFailed`."""
        is_begun = self.mailbox.in_transaction
        if is_begun:
            return  # something changed since the answers went out; the pass that commits it comes first
        try:
            self.operating.clear_up(now, wall)
            if self.mailbox.in_transaction:
                self.mailbox.commit()
        except sqlite3.Error as error:
            self._roll_back(now)
            if not is_full(error):
                raise StorageFailed(str(error)) from error

    # --- inside a pass ------------------------------------------------------------------------------------------------

    def _dispatch(self, caller: Caller, line: bytes, now: float, wall: float) -> None:
        caller.pending += 1
        request_id = b"null"
        try:
            request = frame.parse_request(line)
            request_id = bytes(request.id)  # type: ignore[arg-type]
            methods = self._control if caller.is_control else self._inbox
            handler = methods.get(request.method)
            if handler is None:
                raise self._unknown_method(request.method)
            if self.is_stranger(caller):  # the sockets' modes let none in, but in the system layout
                self._check_stranger(caller)
            answer = handler(caller, request, request_id, now, wall)
            if answer is not None:
                self.staged.append(Answer(caller, answer))
        except BackchannelError as error:
            self._count_refusal(error)
            caller.spoke_wrongly = caller.spoke_wrongly or error.code == "malformed"
            self.staged.append(Answer(caller, frame.answer_error(request_id, error)))
        except Exception:
            caller.pending -= 1
            raise

    def is_stranger(self, caller: Caller) -> bool:
        """Whether it is another user's process: neither the agent's own nor root's."""
        return caller.peer.uid not in (self.uid, 0)

    def _check_stranger(self, caller: Caller) -> None:
        policy = self.policy()
        if caller.is_control or policy is None:
            raise NotPermitted(
                f"uid {caller.peer.uid} may not speak to {self.name}", hint=f"only uid {self.uid} may, and root"
            )
        if not policy.permits(caller.peer.uid):
            raise NotPermitted(
                f"uid {caller.peer.uid} may not speak to {self.name}",
                hint=f"root adds it in {policy.path}: as the owner of an agent, or to `users`",
            )

    def _key_for(self, target: str) -> str | None:
        """Our key, to show to the daemon of an agent of our own user; who we are to another's says the kernel."""
        is_theirs = (policy := self.policy()) is not None and policy.owners.get(target, self.uid) != self.uid
        return None if is_theirs else self.key_of(self.name)

    def _count_refusal(self, error: BackchannelError) -> None:
        self.refusals[error.code] = self.refusals.get(error.code, 0) + 1

    def _let_go(self, caller: Caller, now: float, wall: float) -> None:
        self.taking.let_go(caller, wall)
        self.own_calls.closed(caller)
        self.session_calls.closed(caller)
        self.takers = [t for t in self.takers if t.caller is not caller]
        self.watchers = [w for w in self.watchers if w.caller is not caller]
        if caller.is_control:
            for lease in [x for x in self.mailbox.leases.values() if x.holder is caller]:
                lease.holder, lease.deadline = None, now  # should the disk fail us, the timer drops it later

    def _end_overdue(self, now: float, wall: float) -> None:
        self.mailbox.expire(now, wall)
        self.mailbox.release_expired(now, wall)
        self.sessions.carry_out(self.sessions.endpoint.handle_timer(now), now, wall)

    def _own(self, change: Callable[[], None]) -> None:
        """A change that no request asked for. If the disk fails it, it is tried again a little later."""
        if self._failure is not None:
            return  # what stands in the transaction will be undone
        try:
            change()
        except sqlite3.Error as error:
            self._failure = error

    def _commit(self, now: float, wall: float) -> bool:
        """Ends the pass, or one request that is done alone: all of it becomes true. False if nothing was to be written.

        The sessions' part is saved last, in the same transaction; what they have to say comes out only after it.
        """
        mailbox = self.mailbox
        if mailbox.poisoned:
            self.sessions.poisoned(now, wall)
        if mailbox.ended_undone:
            self._bounce(wall)
        saved = self.sessions.save(wall)
        is_written = mailbox.in_transaction
        if is_written:
            mailbox.commit()
        if saved is not None:
            self.sessions.committed(saved, now)
        return is_written

    def new_id(self, wall: float) -> str:
        """An id for a message that bears none of its sender's."""
        return make_id("m", int(wall * 1000), self.random(10))

    def notice(
        self, kind: str, text: str, wall: float, *, now: float, headers: dict[str, str], reply_to: str | None = None
    ) -> None:
        """Puts a daemon's own word into the agent's mailbox: a bounce, or that a loop was stopped."""
        own = self.own_peer
        envelope = Envelope(
            self.new_id(wall), self.name, kind, fastcodec.encode(text), own.uid, own.gid, own.pid, wall,
            headers=fastcodec.encode(headers), reply_to=reply_to,
        )  # fmt: skip
        self.mailbox.put(envelope, now=now, wall=wall, is_own=True)

    def notify(self, target: str, kind: str, text: str, notice_id: str, wall: float, **fields: Any) -> None:
        """Sends a daemon's word to another agent, through the outbox. It never bounces: who would want that?"""
        push = {"to": target, "id": notice_id, "text": text, "kind": kind, "sent_at": wall, **fields}
        self.outbox.add(target, notice_id, fastcodec.encode(push), wall)

    def _bounce(self, wall: float) -> None:
        """Tells senders' daemons what ended undone, in the transaction that ended it."""
        for state, stage, reason in self.mailbox.ended_undone:
            if not state.sender.startswith("@"):
                headers = {"to": self.name, "stage": stage.value}
                self.notify(state.sender, "bounce", reason, self.new_id(wall), wall, headers=headers, reply_to=state.id)
        self.mailbox.ended_undone.clear()

    def _hand_out(self) -> None:
        if not self.mailbox.counters.stored or self.mailbox.paused:
            return
        claims = self.own_calls.claims or self.own_calls.session_claims
        for taker in self.takers:
            if taker.count <= len(taker.handed):
                continue
            is_free = taker.kinds is None and taker.session is None and not claims
            taker.handed += self.mailbox.lease(
                taker.lease,
                taker.count - len(taker.handed),
                bytes_max=TAKE_BYTES_MAX,
                reply_to=taker.reply_to,
                session=taker.session,
                wants=None if is_free else partial(self.may_have, taker),
            )

    def has_room(self, size: int, now: float) -> bool:
        """Whether the disk would keep its reserve."""
        return self.inbox_calls.has_room(size, now)

    def may_have(self, taker: Taker, kind: str, session: str | None, reply_to: str | None) -> bool:
        return taker.wants(kind, session, reply_to) and self.own_calls.may_have(taker.caller, session, reply_to)

    def _answer_takers(self, staged: list[Answer], now: float, wall: float) -> list[Answer]:
        """All answers of the pass. Who waits for mail hears first, and is at work while its sender reads the receipt;
        but what one caller asked is answered in order."""
        left = []
        answers: list[Answer] = []
        for taker in self.takers:
            taker.is_new = False
            is_over = taker.deadline is not None and taker.deadline <= now
            if taker.session is not None and not taker.handed:
                is_over = is_over or self.sessions.is_exhausted(taker.session)
            if taker.handed or is_over:
                if taker.handed and self.config.driven_by == "model":
                    self._inherit(taker.handed[-1].envelope, now)
                # Handing out is a commit. While the disk refuses it, "nothing is there" would be a lie.
                is_stuck = not taker.handed and self._is_stuck
                line = frame.answer_error(taker.request_id, self.disk_full()) if is_stuck else self.taken(taker)
                answers.append(Answer(taker.caller, line))
                self.operating.handed_out(taker.handed, wall)
            else:
                left.append(taker)
        self.takers = left
        if not staged or not answers:
            return staged or answers
        asked = [answer.caller for answer in staged]
        behind = [answer for answer in answers if answer.caller in asked]
        return [answer for answer in answers if answer.caller not in asked] + staged + behind

    def _inherit(self, envelope: Envelope, now: float) -> None:
        path = envelope.path.split(",") if envelope.path else []
        if envelope.kind in ("message", "offer", "data"):
            self.own_calls.inheritance.delivered(envelope.id, envelope.trace_id, envelope.hops, path, now)

    def _answer_watchers(self, answers: list[Answer], now: float) -> None:
        left = []
        for watcher in self.watchers:
            watcher.is_new = False
            if watcher.msg_no is None:
                if (receipt := self._sent.get(watcher.id)) is not None:
                    answers.append(Answer(watcher.caller, frame.answer(watcher.request_id, receipt)))
                elif watcher.deadline <= now and (row := self.outbox.find(watcher.id)) is not None:
                    answers.append(Answer(watcher.caller, self.queued_line(watcher.request_id, row)))
                else:
                    left.append(watcher)
                continue
            try:
                state = self.mailbox.get_by_number(watcher.msg_no)
            except LocalProtocolError as gone:  # who waits for an answer to what was acked long ago
                answers.append(Answer(watcher.caller, frame.answer_error(watcher.request_id, gone)))
                continue
            if state.stage.reached(watcher.wanted) or watcher.deadline <= now:
                line = self.receipt_line(watcher.request_id, state, with_reply=True)
                answers.append(Answer(watcher.caller, line))
            else:
                left.append(watcher)
        self.watchers = left

    def _start_over(self, now: float, wall: float) -> None:
        """The transaction failed. Undo the pass, then do its requests one by one.

        One that does not fit on a full disk is then refused, and does not take the acks of others down with it. One
        that shows a mistake of ours is answered `internal`, and harms nobody else.
        """
        failure, self._failure = self._failure, None
        requests, self._pass = self._pass, []
        for answer in self.staged:
            answer.caller.pending -= 1
        self.staged = []
        new_ones = [t.caller for t in self.takers if t.is_new] + [w.caller for w in self.watchers if w.is_new]
        new_ones += self.session_calls.forget_new() + self.own_calls.forget_new() + self.operating.forget_new()
        for caller in new_ones + self.sessions.asking():
            caller.pending -= 1
        self.takers = [t for t in self.takers if not t.is_new]
        self.watchers = [w for w in self.watchers if not w.is_new]
        for taker in self.takers:
            taker.handed = []
        self._roll_back(now)
        if isinstance(failure, sqlite3.Error) and not is_full(failure):
            raise StorageFailed(str(failure)) from failure
        if isinstance(failure, sqlite3.Error):
            self._make_room()
        self._own_retry = now + STORAGE_RETRY_S
        for errand in self._back:  # or they would go round for as long as the disk is full
            self.courier.undone(errand, self._own_retry)
        self.inbox_calls.unchecked_bytes = RESERVE_CHECK_BYTES
        for caller, line in requests:
            self._do_alone(caller, line, now, wall)
        for caller in self._left:
            self._let_go(caller, now, wall)
        error = self._alone(self._hand_out, now, wall)
        self._is_stuck = error is not None
        if error is not None and not isinstance(error, sqlite3.Error):
            raise error

    def _make_room(self) -> None:
        """Puts the log into the file, if that has room: what only changes stages (an ack) then finds some again."""
        try:
            self.mailbox.checkpoint(truncate=True)
        except sqlite3.Error as error:
            if not is_full(error):
                raise StorageFailed(str(error)) from error

    def _do_alone(self, caller: Caller, line: bytes, now: float, wall: float) -> None:
        before, pending = len(self.staged), caller.pending
        waiting = self.takers[:], self.watchers[:], self.session_calls.watchers[:], self.own_calls.tappers[:]
        auditors = self.operating.auditors[:]
        error = self._alone(lambda: self._dispatch(caller, line, now, wall), now, wall)
        if error is not None:
            del self.staged[before:]
            caller.pending = pending + 1  # whether it failed before its answer was staged, or after
            # One that came to wait does not: it has its answer.
            self.takers, self.watchers, self.session_calls.watchers, self.own_calls.tappers = waiting
            self.operating.auditors = auditors
            request_id = bytes(frame.parse_request(line).id)  # type: ignore[arg-type]
            self.staged.append(Answer(caller, frame.answer_error(request_id, self._disk_full_or_bug(error))))

    def _alone(self, change: Callable[[], None], now: float, wall: float) -> Exception | None:
        """A change with a transaction to itself. Returns why nothing of it happened: a full disk, a mistake of ours."""
        handed = [(taker, len(taker.handed)) for taker in self.takers]
        try:
            change()
            self._commit(now, wall)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not is_full(error):
                raise StorageFailed(str(error)) from error
            for taker, count in handed:
                del taker.handed[count:]
            self._roll_back(now)
            return error
        return None

    def _roll_back(self, now: float) -> None:
        try:
            self.mailbox.rollback()
            self.outbox.reload()
            self.sessions.roll_back(now)
        except sqlite3.Error as error:
            raise StorageFailed(str(error)) from error
        self._sent.clear()

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _disk_full_or_bug(self, error: Exception) -> BackchannelError:
        if isinstance(error, sqlite3.Error):
            return self.disk_full()
        logger.error("a mistake of ours; nothing of the request happened", exc_info=error)
        return BackchannelError(
            f"the daemon of {self.name} made a mistake ({type(error).__name__}); nothing of this request happened",
            code="internal",
            hint="please report it, with the daemon's log",
        )

    def disk_full(self) -> OverLimit:
        return OverLimit(
            f"the disk under the mailbox of {self.name} is full",
            code="full",
            hint="free some space; nothing was stored, try again then",
            retry=True,
        )

    def store(self, envelope: Envelope, now: float, wall: float, *, is_own: bool = False) -> tuple[State, bool]:
        """Puts a message into the mailbox, and into the hands of who waits for it. Its state, and whether it was there
        already. Raises as `Mailbox.put`."""
        taker = self._idle_taker(envelope)
        lease = taker.lease if taker is not None else None
        state, duplicate, handed = self.mailbox.put(envelope, now=now, wall=wall, lease=lease, is_own=is_own)
        if taker is not None and handed is not None:
            taker.handed.append(handed)
        return state, duplicate

    def _idle_taker(self, envelope: Envelope) -> Taker | None:
        """Somebody who waits with nothing before him: then a message is stored and handed out in one step."""
        if not self.takers or self.mailbox.counters.stored or self.mailbox.paused:
            return None
        if self.mailbox.is_in_hand(envelope.kind, envelope.session):
            return None
        for taker in self.takers:
            if len(taker.handed) < taker.count and self.may_have(
                taker, envelope.kind, envelope.session, envelope.reply_to
            ):
                return taker
        return None

    def queued_line(self, request_id: bytes, row: Row) -> bytes:
        return frame.answer(request_id, queued(row.id, row.target, self.name))

    def taken(self, taker: Taker) -> bytes:
        name, mailbox_id = self.name, self.mailbox.mailbox_id
        messages = [to_delivery(h.envelope, name, h.delivery, h.msg_no, mailbox_id) for h in taker.handed]
        return frame.answer(taker.request_id, {"take_id": taker.lease.take_id, "messages": messages})

    def receipt_line(
        self,
        request_id: bytes,
        state: State,
        *,
        duplicate: bool = False,
        stage: Stage | None = None,
        power: bool = False,
        with_reply: bool = False,
    ) -> bytes:
        receipt = frame.Receipt(
            state.id,
            self.name,
            shown_sender(state.sender),
            state.word if stage is None else stage._value_,
            state.reason,
            "power" if power else state.durability,
            duplicate,
            self.mailbox.mailbox_id,
            state.msg_no,
            state.delivery,
            state.evidence,
            state.reply_id,
        )
        if with_reply and state.stage is Stage.DONE and (text := self.mailbox.reply_text(state.msg_no)) is not None:
            receipt.reply_text = Raw(text)
        return frame.answer(request_id, receipt)

    def is_held_by(self, caller: Caller) -> bool:
        """Whether it waits for mail on this connection, or holds some of it."""
        return any(t.caller is caller for t in self.takers) or any(
            x.holder is caller for x in self.mailbox.leases.values()
        )

    @property
    def is_receiving(self) -> bool:
        """Some process of the agent is there: it waits for mail, or holds some."""
        return bool(self.takers) or any(x.holder is not None for x in self.mailbox.leases.values())

    def _unknown_method(self, method: str) -> LocalProtocolError:
        where = " on the inbox; the agent's own calls go to control.sock" if method in self._control else ""
        return LocalProtocolError(
            f"there is no method {method[:40]!a}{where}", code="unknown_method", hint="docs/protocol.md lists them"
        )
