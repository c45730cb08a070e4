"""`AsyncAgent`: the same names as `Agent`, awaited."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import chain
from types import TracebackType
from typing import Any, Self

from ..errors import BackchannelError
from ..protocol.receipt import Stage
from ..transport import start
from ..transport.dial import Socket
from ..transport.paths import Places, register
from . import calls, wire
from .aiodrive import run
from .records import (
    AgentInfo,
    Answer,
    DeliveryRecord,
    ReceiptRecord,
    all_or_first_error,
    commit_params,
    handling,
    traced,
    unsettled,
    without_none,
)


class AsyncReceipt(ReceiptRecord):
    """What is known of a message you sent."""

    __slots__ = ()

    async def wait(self, stage: str = "acked", timeout: float | None = None) -> Self:
        """As `Receipt.wait`."""
        wanted = Stage(stage)
        raw = await run(
            calls.wait(
                self._agent._caller,
                self.to,
                self.id,
                wanted,
                timeout,
                self.raw.get("from"),
                queued=self.stage is Stage.QUEUED,
            )
        )
        self._learnt(raw)
        self._checked(wanted, timeout)
        return self

    async def refresh(self) -> Self:
        """As `Receipt.refresh`."""
        caller = self._agent._caller
        if self.stage is Stage.QUEUED:
            asked = calls.wait(caller, self.to, self.id, "stored", 0, self.raw.get("from"), queued=True)
        else:
            asked = calls.receipt(caller, self.id, self.to)
        self._learnt(await run(asked))
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
        reply = {"id": self.id, **self._token(), "text": text, "headers": headers}
        (raw,) = await run(calls.commit(self._agent._caller, [], [without_none(reply)], []))
        self.is_settled = True
        return AsyncReceipt(self._agent, raw)

    async def renew(self) -> AsyncReceipt:
        """As `Delivery.renew`."""
        return await self._agent._settle("renew", self.id, **self._token())  # type: ignore[no-any-return]

    async def _settle(self, method: str, **params: Any) -> AsyncReceipt:
        receipt: AsyncReceipt = await self._agent._settle(method, self.id, **self._token(), **params)
        self.is_settled = True
        return receipt


class AsyncAgent:
    """As `Agent`. Its daemon is started by the first call that needs it."""

    def __init__(self, name: str, *, places: Places | None = None) -> None:
        self._caller = wire.Caller(name, places)
        register(self._caller.places, self.name)
        if start.can_serve():
            start.record(self._caller.places, self.name)
        self._streams: set[_Stream] = set()

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

    async def commit(
        self,
        *,
        acks: Iterable[AsyncDelivery] = (),
        replies: Iterable[tuple[AsyncDelivery, str]] = (),
        sends: Iterable[tuple[str, str]] = (),
        timeout: float = wire.CALL_S,
    ) -> list[AsyncReceipt]:
        """As `Agent.commit`."""
        settled = list(acks)
        answered = list(replies)
        wire = commit_params(self._caller.me(), settled, answered, list(sends))
        receipts = [AsyncReceipt(self, raw) for raw in await run(calls.commit(self._caller, *wire, timeout))]
        for delivery in (*settled, *(d for d, _ in answered)):
            delivery.is_settled = True
        return receipts

    async def status(self, message_id: str, to: str | None = None) -> AsyncReceipt:
        """As `Agent.status`."""
        return AsyncReceipt(self, await run(calls.receipt(self._caller, message_id, to)))

    async def cancel(self, message_id: str, to: str | None = None) -> AsyncReceipt:
        """As `Agent.cancel`."""
        return AsyncReceipt(self, await run(calls.cancel(self._caller, message_id, to)))

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
        self._streams.add(stream)
        taken: dict[str, list[AsyncDelivery]] = {}  # by take, what is not settled yet
        unseen: list[AsyncDelivery] = []
        outer = handling.get()
        try:
            while True:
                async with stream.lock:
                    stream.unguard()
                    messages = await run(calls.take(self._caller, stream, prefetch, wait, kinds, session))
                    stream.guard()
                if not messages:
                    return
                unseen = [AsyncDelivery(self, message) for message in messages]
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
            self._streams.discard(stream)
            await self._release(taken, unseen)
            stream.finish()

    async def ack(self, message_id: str, delivery: int | None = None) -> AsyncReceipt:
        """As `Agent.ack`."""
        return await self._settle("ack", message_id, delivery=delivery)

    async def reject(self, message_id: str, reason: str, delivery: int | None = None) -> AsyncReceipt:
        """As `Agent.reject`."""
        return await self._settle("reject", message_id, reason=reason, delivery=delivery)

    async def release(self, message_id: str, delivery: int | None = None) -> AsyncReceipt:
        """As `Agent.release`."""
        return await self._settle("release", message_id, delivery=delivery)

    async def _settle(self, method: str, message_id: str, **params: Any) -> AsyncReceipt:
        return AsyncReceipt(self, await run(calls.settle(self._caller, method, message_id, **params)))

    async def _release(self, taken: dict[str, list[AsyncDelivery]], unseen: list[AsyncDelivery]) -> None:
        for delivery in chain.from_iterable(unsettled(taken).values()):
            try:
                await self._settle("release", delivery.id, **delivery._token(), unseen=delivery in unseen or None)
            except BackchannelError:
                pass  # the connection closes next, and the lease falls with it

    # --- around -------------------------------------------------------------------------------------------------------

    async def agents(self) -> list[AgentInfo]:
        """As `Agent.agents`."""
        return [
            AgentInfo(a["name"], a["online"], a["backlog"], a["receiving"], a["paused"], a["down"])
            for a in await run(calls.agents(self._caller))
        ]

    async def close(self) -> None:
        """As `Agent.close`."""
        for stream in list(self._streams):
            stream.finish()
        self._streams.clear()
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

    def __init__(self, agent: AsyncAgent) -> None:
        super().__init__()
        self.lock = asyncio.Lock()
        self._agent = agent
        self._loop = asyncio.get_running_loop()
        self._guarded_fd = -1
        self._task: asyncio.Task[None] | None = None

    def guard(self) -> None:
        # Nothing is due to arrive on it now: readable means that it broke.
        if self.sock is not None:
            self._guarded_fd = self.sock.fileno()
            self._loop.add_reader(self._guarded_fd, self._broke, self.sock)

    def unguard(self) -> None:
        if self._guarded_fd >= 0:
            self._loop.remove_reader(self._guarded_fd)
            self._guarded_fd = -1

    def finish(self) -> None:
        self.unguard()
        if self._task is not None:
            self._task.cancel()
        self.close()

    def _broke(self, sock: Socket) -> None:
        self.unguard()
        self._task = self._loop.create_task(self._take_up_again(sock))

    async def _take_up_again(self, sock: Socket) -> None:
        async with self.lock:
            if self.sock is not sock:
                return  # the loop over it was faster
            self.close()
            try:
                await run(calls.resume(self._agent._caller, self))
            except (BackchannelError, OSError):
                return  # down, or gone for good: the program's next call says so
            self.guard()
