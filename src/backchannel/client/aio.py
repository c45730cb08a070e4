"""`AsyncAgent`: the same names as `Agent`, awaited."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from ..errors import BackchannelError, LocalProtocolError
from ..transport import start
from ..transport.dial import Socket
from ..transport.paths import Places, register
from . import calls, sessioncalls, wire
from .adapters import Adapter
from .aiodrive import run
from .aiosessions import AsyncRequest, AsyncSession
from .commit import Close, Commit, Send
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

if TYPE_CHECKING:
    from .wire import Conversation, T


class AsyncReceipt(ReceiptRecord):
    """What is known of a message you sent."""

    __slots__ = ()

    async def wait(self, stage: str = "acked", timeout: float | None = None) -> Self:
        """As `Receipt.wait`."""
        wanted = stage_named(stage)
        self._learnt(await run(self._waiting(wanted, timeout)))
        self._checked(wanted, timeout)
        return self

    async def refresh(self) -> Self:
        """As `Receipt.refresh`."""
        self._learnt(await run(self._asking()))
        return self


class AsyncDelivery(DeliveryRecord):
    """A message handed to you. Settle it: `ack`, `reject` or `release`; else it is handed out again."""

    __slots__ = ()

    async def ack(self, evidence: str = "ack") -> AsyncReceipt:
        """As `Delivery.ack`."""
        return await self._settle("ack", evidence=evidence)

    async def reject(self, reason: str) -> AsyncReceipt:
        """As `Delivery.reject`."""
        return await self._settle("reject", reason=reason)

    async def release(self) -> AsyncReceipt:
        """As `Delivery.release`."""
        return await self._settle("release")

    async def reply(self, text: str, headers: dict[str, str] | None = None) -> AsyncReceipt:
        """As `Delivery.reply`."""
        commit = Commit(self._agent.name, replies=[(self, text)], headers=headers)
        (raw,) = commit.receipts(await run(calls.commit(self._agent._caller, commit.lists)))
        return AsyncReceipt(self._agent, raw)

    async def renew(self) -> AsyncReceipt:
        """As `Delivery.renew`."""
        return await self._agent._settle("renew", self.id, delivery=self.delivery, sender=self.sender)  # type: ignore[no-any-return]

    async def _settle(self, method: str, **params: Any) -> AsyncReceipt:
        settling = calls.settle(
            self._agent._caller, method, self.id, sender=self.sender, delivery=self.delivery, **params
        )
        receipt = AsyncReceipt(self._agent, await run(settling))
        self.is_settled = True
        return receipt


class AsyncAgent:
    """As `Agent`. Its daemon is started by the first call that needs it."""

    def __init__(self, name: str, *, places: Places | None = None, adapter: Adapter | None = None) -> None:
        self._caller = wire.Caller(name, places)
        self._caller.adapter = None if adapter is None else adapter._asdict()
        register(self._caller.places, self.name)
        if start.can_serve():
            start.record(self._caller.places, self.name)
        self._streams: WeakSet[_Stream] = WeakSet()

    @property
    def name(self) -> str:
        return str(self._caller.name)

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send(
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
    ) -> AsyncReceipt:
        """As `Agent.send`."""
        options = traced(
            self._caller.me(), priority=priority, ttl=ttl, durability=durability, headers=headers, reply_to=reply_to
        )
        return AsyncReceipt(self, await run(calls.push(self._caller, to, text, key, timeout, **options)))

    async def send_many(
        self,
        to: str,
        texts: Iterable[str],
        *,
        priority: str | None = None,
        ttl: float | None = None,
        durability: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = wire.CALL_S,
    ) -> list[AsyncReceipt]:
        """As `Agent.send_many`."""
        options = traced(self._caller.me(), priority=priority, ttl=ttl, durability=durability, headers=headers)
        outcomes = await run(calls.push_many(self._caller, to, texts, timeout, **options))
        receipts = [o if isinstance(o, BackchannelError) else AsyncReceipt(self, o) for o in outcomes]
        all_or_first_error(outcomes, receipts)
        return receipts  # type: ignore[return-value]

    async def broadcast(self, text: str, to: Iterable[str] | None = None, **options: Any) -> dict[str, Any]:
        """As `Agent.broadcast`."""
        outcomes: dict[str, Any] = {}
        if isinstance(to, str):
            raise LocalProtocolError(f"{to!r} is one name, and a list is wanted", code="bad_params", hint=f"[{to!r}]")
        for name in self._caller.everybody_else() if to is None else to:
            try:
                outcomes[name] = await self.send(name, text, **options)
            except BackchannelError as error:
                outcomes[name] = error
        return outcomes

    async def ask(
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
        """As `Agent.ask`."""
        options = traced(self._caller.me(), priority=priority, ttl=ttl, durability=durability, headers=headers)
        return Answer(await run(calls.ask(self._caller, to, text, timeout, key, **options)))

    async def answers(
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
    ) -> AsyncIterator[AsyncDelivery]:
        """As `Agent.answers`. Leave it with `aclosing`, as `receive`."""
        options = traced(self._caller.me(), priority=priority, ttl=ttl, durability=durability, headers=headers)
        stream = _Stream(self)
        answer: AsyncDelivery | None = None
        outer = handling.get()
        try:
            question = calls.ask_on(self._caller, stream, to, text, timeout, key, **options)
            answer = AsyncDelivery(self, await stream.carry_out(question))
            assert stream.take_id is not None
            stream.held.add(stream.take_id)
            handling.set(answer)
            yield answer
        finally:
            handling.set(outer)
            await self._release({} if answer is None else {"": [answer]}, [])
            stream.finish()

    async def commit(
        self,
        *,
        acks: Iterable[AsyncDelivery] = (),
        replies: Iterable[tuple[AsyncDelivery, str]] = (),
        sends: Iterable[Send] = (),
        closes: Iterable[Close] = (),
        evidence: str = "ack",
        timeout: float = wire.CALL_S,
    ) -> list[AsyncReceipt]:
        """As `Agent.commit`."""
        commit = Commit(self._caller.me(), acks, replies, sends, closes, evidence=evidence)
        answer = await run(calls.commit(self._caller, commit.lists, timeout))
        return [AsyncReceipt(self, raw) for raw in commit.receipts(answer)]

    async def status(self, message_id: str, to: str | None = None, sender: str | None = None) -> AsyncReceipt:
        """As `Agent.status`."""
        return AsyncReceipt(self, await run(calls.receipt(self._caller, message_id, to, sender)))

    async def cancel(self, message_id: str, to: str | None = None, sender: str | None = None) -> AsyncReceipt:
        """As `Agent.cancel`."""
        return AsyncReceipt(self, await run(calls.cancel(self._caller, message_id, to, sender)))

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def receive(
        self,
        wait: float | None = 0,
        *,
        kinds: tuple[str, ...] | None = ("message",),
        session: str | None = None,
        prefetch: int = 1,
    ) -> AsyncIterator[AsyncDelivery]:
        """As `Agent.receive`. Leave it with `aclosing` (or to its end) so that the lease is released at once."""
        stream = _Stream(self)
        taken: dict[str, list[AsyncDelivery]] = {}  # by take, what is not settled yet
        unseen: list[AsyncDelivery] = []
        outer = handling.get()
        try:
            while True:
                messages = await stream.carry_out(calls.take(self._caller, stream, prefetch, wait, kinds, session))
                if not messages:
                    return
                unseen = [AsyncDelivery(self, message, ahead) for message, ahead in with_ahead(messages)]
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
            await self._release(taken, unseen)
            stream.finish()

    async def ack(self, message_id: str, delivery: int | None = None, sender: str | None = None) -> AsyncReceipt:
        """As `Agent.ack`."""
        return await self._settle("ack", message_id, delivery=delivery, sender=sender)

    async def reject(
        self, message_id: str, reason: str, delivery: int | None = None, sender: str | None = None
    ) -> AsyncReceipt:
        """As `Agent.reject`."""
        return await self._settle("reject", message_id, reason=reason, delivery=delivery, sender=sender)

    async def release(self, message_id: str, delivery: int | None = None, sender: str | None = None) -> AsyncReceipt:
        """As `Agent.release`."""
        return await self._settle("release", message_id, delivery=delivery, sender=sender)

    async def _settle(self, method: str, message_id: str, **params: Any) -> AsyncReceipt:
        return AsyncReceipt(self, await run(calls.settle(self._caller, method, message_id, **params)))

    async def _release(self, taken: dict[str, list[AsyncDelivery]], unseen: list[AsyncDelivery]) -> None:
        for delivery in chain.from_iterable(unsettled(taken).values()):
            try:
                await self._settle(
                    "release",
                    delivery.id,
                    delivery=delivery.delivery,
                    sender=delivery.sender,
                    unseen=delivery in unseen or None,
                )
            except BackchannelError:
                pass  # the connection closes next, and the lease falls with it

    # --- sessions -----------------------------------------------------------------------------------------------------

    async def open(
        self,
        to: str,
        task: str,
        *,
        timeout: float | None = 300.0,
        max_messages: int | None = None,
        max_bytes: int | None = None,
        deadline: float | None = None,
        idle_timeout: float | None = None,
    ) -> AsyncSession:
        """As `Agent.open`. A task that is cancelled here withdraws its offer."""
        session_id = wire.new_id("s")
        options = traced(
            self._caller.me(), max_messages=max_messages, max_bytes=max_bytes, deadline=deadline,
            idle_timeout=idle_timeout,
        )  # fmt: skip
        return await self._hold(
            session_id,
            lambda stream: sessioncalls.open_session(self._caller, stream, session_id, to, task, timeout, **options),
        )

    async def requests(self, wait: float | None = None) -> AsyncIterator[AsyncRequest]:
        """As `Agent.requests`."""
        seen: set[str] = set()
        outer = handling.get()
        try:
            while (raw := await run(sessioncalls.next_offer(self._caller, seen, wait))) is not None:
                request = AsyncRequest(self, SessionRecord(raw))
                handling.set(request)
                yield request
        finally:
            handling.set(outer)

    async def session(self, session_id: str) -> AsyncSession:
        """As `Agent.session`."""
        look = sessioncalls.look(self._caller, session_id)
        return await self._hold(session_id, lambda stream: sessioncalls.claimed(self._caller, stream, look))

    async def look(self, session_id: str) -> SessionRecord:
        """As `Agent.look`."""
        return SessionRecord(await run(sessioncalls.look(self._caller, session_id)))

    async def sessions(self, state: str | None = None, is_open: bool | None = None) -> list[SessionRecord]:
        """As `Agent.sessions`."""
        found = await run(sessioncalls.all_sessions(self._caller, state=state, is_open=is_open))
        return [SessionRecord(raw) for raw in found]

    async def _hold(self, session_id: str, claiming: "Callable[[_Stream], Conversation[Any]]") -> AsyncSession:
        """As `Agent._hold`."""
        stream = _Stream(self, {"session": session_id})
        try:
            raw = await stream.carry_out(claiming(stream))
        except BaseException:
            stream.finish()
            raise
        return AsyncSession(self, raw, stream)

    def _delivery(self, raw: Any) -> AsyncDelivery:
        return AsyncDelivery(self, raw)

    def _receipt(self, raw: Any) -> AsyncReceipt:
        return AsyncReceipt(self, raw)

    # --- around -------------------------------------------------------------------------------------------------------

    async def agents(self) -> list[AgentInfo]:
        """As `Agent.agents`."""
        return [AgentInfo(**a) for a in await run(calls.agents(self._caller))]

    async def close(self) -> None:
        """As `Agent.close`."""
        for stream in list(self._streams):
            stream.finish()
        self._caller.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncAgent({self.name!r})"


class _Stream(wire.Stream):
    """A taking connection. While the program is busy the loop watches it, and takes the lease up again if it breaks."""

    def __init__(self, agent: AsyncAgent, claim: dict[str, Any] | None = None) -> None:
        super().__init__(claim)
        agent._streams.add(self)
        self.lock = asyncio.Lock()
        self._agent = agent
        self._loop = asyncio.get_running_loop()
        self._guarded_fd = -1
        self._task: asyncio.Task[None] | None = None

    async def carry_out(self, conversation: "Conversation[T]") -> "T":
        async with self.lock:
            self.unguard()
            try:
                return await run(conversation)
            finally:
                self.guard()

    def guard(self) -> None:
        # Nothing is due to arrive on it now: readable means that it broke.
        if self.sock is not None and not self.is_over:
            self._guarded_fd = self.sock.fileno()
            self._loop.add_reader(self._guarded_fd, self._broke, self.sock)

    def unguard(self) -> None:
        if self._guarded_fd >= 0:
            self._loop.remove_reader(self._guarded_fd)
            self._guarded_fd = -1

    def close(self) -> None:
        self.unguard()  # first: the number of a closed descriptor belongs to another connection at once
        super().close()

    def finish(self) -> None:
        self.is_over = True
        if self._task is not None:
            self._task.cancel()
        self.close()

    def _broke(self, sock: Socket) -> None:
        self.unguard()
        self._task = self._loop.create_task(self._take_up_again(sock))

    async def _take_up_again(self, sock: Socket) -> None:
        async with self.lock:
            if self.sock is not sock or self.is_over:
                return  # the loop over it was faster
            self.close()
            try:
                await run(calls.resume(self._agent._caller, self))
            except (BackchannelError, OSError):
                return  # down, or gone for good: the program's next call says so
            self.guard()
