"""`Agent`: the blocking front end. One-line methods over `calls`; `aio.AsyncAgent` has the same names.

Usable from several threads (each call has a connection to itself) and after a fork (a child closes its copies).
"""

import os
import select
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..errors import BackchannelError, LocalProtocolError
from ..transport import start
from ..transport.dial import Socket
from ..transport.paths import Places, register
from . import calls, sessioncalls, wire
from .adapters import Adapter
from .commit import Close, Commit, Send
from .drive import run
from .records import (
    AgentInfo,
    Answer,
    DeliveryRecord,
    ReceiptRecord,
    all_or_first_error,
    handling,
    stage_named,
    traced,
    unsettled,
    with_ahead,
)
from .sessionrecords import SessionRecord
from .sessions import Request, Session

if TYPE_CHECKING:
    from .wire import Conversation, T

LOOK_AGAIN_S = 0.1  # how soon a broken connection that its own thread uses is looked at again


class Receipt(ReceiptRecord):
    """What is known of a message you sent."""

    __slots__ = ()

    def wait(self, stage: str = "acked", timeout: float | None = None) -> Self:
        """Waits until the message reached `stage`, at most `timeout` seconds (None: without end).

        Raises `Refused` if it was rejected, cancelled, expired or dead, and `TimedOut`.
        """
        wanted = stage_named(stage)
        self._learnt(run(self._waiting(wanted, timeout)))
        self._checked(wanted, timeout)
        return self

    def refresh(self) -> Self:
        """Asks the daemon once."""
        self._learnt(run(self._asking()))
        return self


class Delivery(DeliveryRecord):
    """A message handed to you. Settle it: `ack`, `reject` or `release`; else it is handed out again."""

    __slots__ = ()

    def ack(self, evidence: str = "ack") -> Receipt:
        """You have it. Raises `Refused` (`stale`) if it was handed to somebody else meanwhile."""
        return self._settle("ack", evidence=evidence)

    def reject(self, reason: str) -> Receipt:
        """You will not do it; the sender can read why."""
        return self._settle("reject", reason=reason)

    def release(self) -> Receipt:
        """Not now: it is handed out again, to you or another process of this agent."""
        return self._settle("release")

    def reply(self, text: str, headers: dict[str, str] | None = None) -> Receipt:
        """The answer: the message is `done`, and your daemon sends the text to its sender, in one commit.

        To a session's data: it is acknowledged, and the text is said in the session.
        """
        commit = Commit(self._agent.name, replies=[(self, text)], headers=headers)
        (raw,) = commit.receipts(run(calls.commit(self._agent._caller, commit.lists)))
        return Receipt(self._agent, raw)

    def renew(self) -> Receipt:
        """A detached lease begins anew. (What `receive` yields is held, and needs none.)"""
        return self._agent._settle("renew", self.id, delivery=self.delivery, sender=self.sender)  # type: ignore[no-any-return]

    def _settle(self, method: str, **params: Any) -> Receipt:
        settling = calls.settle(
            self._agent._caller, method, self.id, sender=self.sender, delivery=self.delivery, **params
        )
        receipt = Receipt(self._agent, run(settling))
        self.is_settled = True
        return receipt


class Agent:
    """One agent of this machine, and its mailbox. Makes the name if it is new; starts its daemon when none runs.

    Raises `LocalProtocolError` for a bad name, `PeerAbsent` if its daemon is down by a person's wish or cannot start.
    """

    def __init__(self, name: str, *, places: Places | None = None, adapter: Adapter | None = None) -> None:
        self._caller = wire.Caller(name, places)
        self._caller.adapter = None if adapter is None else adapter._asdict()
        places = self._caller.places
        register(places, self.name)
        if start.can_serve():
            start.record(places, self.name)
        run(calls.ping(self._caller, self.name))
        self._keeper = _Keeper(self._caller)

    @property
    def name(self) -> str:
        return str(self._caller.name)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(
        self,
        to: str,
        text: str,
        *,
        key: str | None = None,
        priority: str | None = None,
        ttl: float | None = None,
        durability: str | None = None,
        headers: dict[str, str] | None = None,
        reply_to: str | None = None,
        timeout: float = wire.CALL_S,
    ) -> Receipt:
        """Stores a text in `to`'s mailbox; returns once it is there. `ttl` and `timeout` in seconds.

        `key` makes a repetition by you harmless: the same key with the same text is stored once. Raises `PeerAbsent`,
        `OverLimit`, `NotPermitted`, `Refused` (`key_reused`), or `TimedOut` when no receipt came: send it again with
        the same key then.
        """
        options = traced(
            self._caller.me(), priority=priority, ttl=ttl, durability=durability, headers=headers, reply_to=reply_to
        )
        return Receipt(self, run(calls.push(self._caller, to, text, key, timeout, **options)))

    def send_many(
        self,
        to: str,
        texts: Iterable[str],
        *,
        priority: str | None = None,
        ttl: float | None = None,
        durability: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = wire.CALL_S,
    ) -> list[Receipt]:
        """Stores many texts, in order, over one connection and with a commit a batch.

        Raises the first error; its `receipts` then tells of each text a receipt or the error it met.
        """
        options = traced(self._caller.me(), priority=priority, ttl=ttl, durability=durability, headers=headers)
        outcomes = run(calls.push_many(self._caller, to, texts, timeout, **options))
        receipts = [o if isinstance(o, BackchannelError) else Receipt(self, o) for o in outcomes]
        all_or_first_error(outcomes, receipts)
        return receipts  # type: ignore[return-value]

    def broadcast(self, text: str, to: Iterable[str] | None = None, **options: Any) -> dict[str, Any]:
        """Sends to several agents (None: everybody registered and not down, but us); all are tried.

        Returns a `Receipt` or the error for each name. `options` are those of `send`.
        """
        outcomes: dict[str, Any] = {}
        if isinstance(to, str):
            raise LocalProtocolError(f"{to!r} is one name, and a list is wanted", code="bad_params", hint=f"[{to!r}]")
        for name in self._caller.everybody_else() if to is None else to:
            try:
                outcomes[name] = self.send(name, text, **options)
            except BackchannelError as error:
                outcomes[name] = error
        return outcomes

    def ask(
        self,
        to: str,
        text: str,
        *,
        timeout: float | None = 60.0,
        key: str | None = None,
        priority: str | None = None,
        ttl: float | None = None,
        durability: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Asks and waits for the answer, at most `timeout` seconds (None: without end); acknowledges it.

        Raises `Refused` with the reason if the question was rejected, expired or died, and `TimedOut`: an answer that
        comes later stays in the mailbox.
        """
        options = traced(self._caller.me(), priority=priority, ttl=ttl, durability=durability, headers=headers)
        return Answer(run(calls.ask(self._caller, to, text, timeout, key, **options)))

    def answers(
        self,
        to: str,
        text: str,
        *,
        timeout: float | None = 60.0,
        key: str | None = None,
        priority: str | None = None,
        ttl: float | None = None,
        durability: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Iterator[Delivery]:
        """As `ask`, and the answer is leased to you as in `receive`: yours to settle, handed out again if you die.

        Yields it once. Leaving the loop releases it if it was not settled.
        """
        options = traced(self._caller.me(), priority=priority, ttl=ttl, durability=durability, headers=headers)
        stream = self._keeper.open()
        answer: Delivery | None = None
        outer = handling.get()
        try:
            question = calls.ask_on(self._caller, stream, to, text, timeout, key, **options)
            answer = Delivery(self, stream.carry_out(question))
            assert stream.take_id is not None
            stream.held.add(stream.take_id)
            handling.set(answer)
            yield answer
        finally:
            handling.set(outer)
            self._let_go(stream, {} if answer is None else {"": [answer]}, [])

    def commit(
        self,
        *,
        acks: Iterable[Delivery] = (),
        replies: Iterable[tuple[Delivery, str]] = (),
        sends: Iterable[Send] = (),
        closes: Iterable[Close] = (),
        evidence: str = "ack",
        timeout: float = wire.CALL_S,
    ) -> list[Receipt]:
        """One transaction in your daemon: all of it happens, or nothing; its outbox then pushes what was sent.

        A text may go to a name or into a session (held, or looked at). `closes` are sessions, or tuples of a session,
        its result and its status; `evidence` (ack, flush, turn) is that of the acks. Returns a receipt (`queued`) for
        each reply, then for each send. Raises what stood in the way of any of it; a session's full window is not
        waited for.
        """
        commit = Commit(self._caller.me(), acks, replies, sends, closes, evidence=evidence)
        return [Receipt(self, raw) for raw in commit.receipts(run(calls.commit(self._caller, commit.lists, timeout)))]

    def status(self, message_id: str, to: str | None = None, sender: str | None = None) -> Receipt:
        """What is known of a message. `to` (whose mailbox) shortens the search, `sender` tells two of one id apart."""
        return Receipt(self, run(calls.receipt(self._caller, message_id, to, sender)))

    def cancel(self, message_id: str, to: str | None = None, sender: str | None = None) -> Receipt:
        """Takes a message back. Raises `Refused` (`taken`, `ended`; `queued`: it is not there yet)."""
        return Receipt(self, run(calls.cancel(self._caller, message_id, to, sender)))

    # --- receiving ----------------------------------------------------------------------------------------------------

    def receive(
        self,
        wait: float | None = 0,
        *,
        kinds: tuple[str, ...] | None = ("message",),
        session: str | None = None,
        prefetch: int = 1,
    ) -> Iterator[Delivery]:
        """Yields deliveries as they come; ends after `wait` seconds without one (None: never; 0: what is there).

        Each is leased to this process: handed out again if it dies. Leaving the loop releases what was not settled.
        """
        stream = self._keeper.open()
        taken: dict[str, list[Delivery]] = {}  # by take, what is not settled yet
        unseen: list[Delivery] = []
        outer = handling.get()
        try:
            while True:
                with stream.lock:
                    messages = run(calls.take(self._caller, stream, prefetch, wait, kinds, session))
                    if not messages:
                        return
                    unseen = [Delivery(self, message, ahead) for message, ahead in with_ahead(messages)]
                    assert stream.take_id is not None
                    taken[stream.take_id] = list(unseen)
                    stream.held.add(stream.take_id)
                while unseen:
                    delivery = unseen.pop(0)
                    handling.set(delivery)
                    yield delivery
                taken = unsettled(taken)
                stream.held = set(taken)
        finally:
            handling.set(outer)
            self._let_go(stream, taken, unseen)

    def ack(self, message_id: str, delivery: int | None = None, sender: str | None = None) -> Receipt:
        """Acknowledges by id; without `delivery` the current one is meant."""
        return self._settle("ack", message_id, delivery=delivery, sender=sender)

    def reject(self, message_id: str, reason: str, delivery: int | None = None, sender: str | None = None) -> Receipt:
        """Says no by id."""
        return self._settle("reject", message_id, reason=reason, delivery=delivery, sender=sender)

    def release(self, message_id: str, delivery: int | None = None, sender: str | None = None) -> Receipt:
        """Gives back by id."""
        return self._settle("release", message_id, delivery=delivery, sender=sender)

    def _settle(self, method: str, message_id: str, **params: Any) -> Receipt:
        return Receipt(self, run(calls.settle(self._caller, method, message_id, **params)))

    def _let_go(self, stream: "_Stream", taken: dict[str, list[Delivery]], unseen: list[Delivery]) -> None:
        """Ends a loop over deliveries: what is not settled is given back."""
        if os.getpid() != stream.pid:  # a fork's copy: what is leased is the parent's
            if stream.sock is not None:
                stream.sock.close()
            return
        for delivery in chain.from_iterable(unsettled(taken).values()):
            try:
                self._settle(
                    "release",
                    delivery.id,
                    delivery=delivery.delivery,
                    sender=delivery.sender,
                    unseen=delivery in unseen or None,
                )
            except BackchannelError:
                pass  # the connection closes next, and the lease falls with it
        self._keeper.close(stream)

    # --- sessions -----------------------------------------------------------------------------------------------------

    def open(
        self,
        to: str,
        task: str,
        *,
        timeout: float | None = 300.0,
        max_messages: int | None = None,
        max_bytes: int | None = None,
        deadline: float | None = None,
        idle_timeout: float | None = None,
    ) -> Session:
        """Offers a task and waits until `to`'s agent accepts, at most `timeout` seconds (None: without end).

        The budgets end the session for both: texts in both directions together (`max_messages`, `max_bytes`), seconds
        from now (`deadline`), seconds without any text (`idle_timeout`). Raises `Refused` when it was rejected (with
        `reason`, and `retry_after` in seconds), `TimedOut` (the offer is withdrawn then), `PeerAbsent` at once for a
        name that nobody has.
        """
        session_id = wire.new_id("s")
        options = traced(
            self._caller.me(), max_messages=max_messages, max_bytes=max_bytes, deadline=deadline,
            idle_timeout=idle_timeout,
        )  # fmt: skip
        return self._hold(
            session_id,
            lambda stream: sessioncalls.open_session(self._caller, stream, session_id, to, task, timeout, **options),
        )

    def requests(self, wait: float | None = None) -> Iterator[Request]:
        """Yields the tasks that others offer, as they come; ends after `wait` seconds without one (None: never).

        One that is answered by another process or given up by its opener before it is its turn is left out. What is not
        answered stays an open offer, and is yielded by the next `requests`.
        """
        seen: set[str] = set()
        outer = handling.get()
        try:
            while (raw := run(sessioncalls.next_offer(self._caller, seen, wait))) is not None:
                request = Request(self, SessionRecord(raw))
                handling.set(request)
                yield request
        finally:
            handling.set(outer)

    def session(self, session_id: str) -> Session:
        """A session of this agent, found again by its id: after a restart of your program, or in another process.

        Raises `LocalProtocolError` (`no_such_session`), and `Refused` (`taken`) while another process holds it.
        """
        look = sessioncalls.look(self._caller, session_id)
        return self._hold(session_id, lambda stream: sessioncalls.claimed(self._caller, stream, look))

    def look(self, session_id: str) -> SessionRecord:
        """How a session of this agent stands, without taking hold of its mail; `commit` can say something in it.

        Raises `LocalProtocolError` (`no_such_session`).
        """
        return SessionRecord(run(sessioncalls.look(self._caller, session_id)))

    def sessions(self, state: str | None = None, is_open: bool | None = None) -> list[SessionRecord]:
        """The sessions of this agent, newest first: those in `state`, those that are (not) CLOSED."""
        found = run(sessioncalls.all_sessions(self._caller, state=state, is_open=is_open))
        return [SessionRecord(raw) for raw in found]

    def _hold(self, session_id: str, claiming: "Callable[[_Stream], Conversation[Any]]") -> Session:
        """Carries out what claims a session's mail and gives its record, and keeps the claim for the `Session`."""
        stream = self._keeper.open({"session": session_id})
        try:
            raw = stream.carry_out(claiming(stream))
        except BaseException:
            self._keeper.close(stream)
            raise
        return Session(self, raw, stream)

    def _delivery(self, raw: Any) -> Delivery:
        return Delivery(self, raw)

    def _receipt(self, raw: Any) -> Receipt:
        return Receipt(self, raw)

    # --- around -------------------------------------------------------------------------------------------------------

    def agents(self) -> list[AgentInfo]:
        """All registered agents of this machine."""
        return [AgentInfo(**a) for a in run(calls.agents(self._caller))]

    def close(self) -> None:
        """Closes connections; what is leased and unsettled falls. The mailbox and its daemon stay."""
        self._keeper.close_all()
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Agent({self.name!r})"


class _Stream(wire.Stream):
    """A taking connection that the keeper guards; `lock` is held while it is used."""

    def __init__(self, keeper: "_Keeper", claim: dict[str, Any] | None) -> None:
        super().__init__(claim)
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self._keeper = keeper

    def connected(self) -> None:
        self._keeper.guard(self)

    def carry_out(self, conversation: "Conversation[T]") -> "T":
        with self.lock:
            return run(conversation)


class _Keeper:
    """Keeps leases over a daemon's restart while the program is busy with what it took.

    A held lease waits five seconds for its client. The program may think for an hour, so a thread of ours sleeps on the
    taking connections and takes the lease up again when one breaks. (Without epoll there is no such thread: then a
    daemon's restart may hand out again what a busy program holds.)
    """

    def __init__(self, caller: wire.Caller) -> None:
        self._caller = caller
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._guarded: dict[int, tuple[_Stream, Socket]] = {}
        self._epoll: select.epoll | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None

    def open(self, claim: dict[str, Any] | None = None) -> _Stream:
        if self._pid != os.getpid():
            self._forget_after_fork()
        return _Stream(self, claim)

    def guard(self, stream: _Stream) -> None:
        assert stream.sock is not None
        if not hasattr(select, "epoll"):
            return
        with self._lock:
            if self._epoll is None:
                self._epoll = select.epoll()
                self._wake = os.eventfd(0)
                self._epoll.register(self._wake, select.EPOLLIN)
                self._thread = threading.Thread(target=self._run, args=(self._epoll,), name="keeper", daemon=True)
                self._thread.start()
            fd = stream.sock.fileno()
            self._guarded[fd] = (stream, stream.sock)
            self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT)

    def close(self, stream: _Stream) -> None:
        stream.is_over = True
        sock = stream.sock
        if stream.lock.locked() and sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # a thread that waits on it has the lock, and may wait for ever
            except OSError:
                pass  # it is gone already
        with stream.lock:
            for fd, (guarded, _) in list(self._guarded.items()):
                if guarded is stream:  # the number may belong to another stream by now
                    self._guarded.pop(fd, None)
            stream.close()

    def close_all(self) -> None:
        if self._pid != os.getpid():
            self._forget_after_fork()
            return
        for stream, _ in list(self._guarded.values()):
            self.close(stream)
        if self._epoll is not None and self._thread is not None:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._epoll.close()
            os.close(self._wake)
        self._epoll = self._thread = None

    def _forget_after_fork(self) -> None:
        for _, sock in self._guarded.values():
            sock.close()
        if self._epoll is not None:
            self._epoll.close()
            os.close(self._wake)
        self.__init__(self._caller)  # type: ignore[misc]

    def _run(self, epoll: select.epoll) -> None:
        broken: list[tuple[_Stream, Socket]] = []
        while True:
            for fd, _ in epoll.poll(LOOK_AGAIN_S if broken else None):
                if fd == self._wake:
                    return
                found = self._guarded.pop(fd, None)
                if found is not None:
                    broken.append(found)
            # One that its own thread uses must not keep the others waiting.
            broken = [found for found in broken if not self._take_up_again(*found)]

    def _take_up_again(self, stream: _Stream, sock: Socket) -> bool:
        """False if its own thread is using it: that one sees for itself, or we look again."""
        if stream.sock is not sock:
            return True  # closed, or its own thread was faster
        if not stream.lock.acquire(blocking=False):
            return False
        try:
            if not stream.is_over and stream.sock is sock:
                stream.close()
                run(calls.resume(self._caller, stream))
        except (BackchannelError, OSError):
            pass  # down, or gone for good: the program's next call says so
        finally:
            if stream.is_over:  # let go of meanwhile
                stream.close()
            stream.lock.release()
        return True
