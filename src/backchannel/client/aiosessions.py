"""`AsyncSession` and `AsyncRequest`: as `sessions`, awaited."""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..errors import BackchannelError, LocalProtocolError
from . import sessioncalls
from .aiodrive import run
from .records import handling
from .sessionrecords import RequestBase, SessionBase, unsettled_before_next, words_of

if TYPE_CHECKING:
    from .aio import AsyncAgent, AsyncDelivery, AsyncReceipt, _Stream


class AsyncSession(SessionBase):
    """As `Session`; use it with `async with` and `async for`."""

    _agent: "AsyncAgent"
    _stream: "_Stream"

    # --- talking ------------------------------------------------------------------------------------------------------

    async def send(
        self, text: str, *, timeout: float | None = 60.0, input_required: bool = False, key: str | None = None
    ) -> "AsyncReceipt":
        """As `Session.send`."""
        said = await run(sessioncalls.say(self._caller, self.id, text, timeout, key, input_required=input_required))
        return self._agent._receipt(sessioncalls.as_receipt(said))

    async def progress(self, note: str = "") -> Self:
        """As `Session.progress`."""
        self._learn(await run(sessioncalls.progress(self._caller, self.id, note)))
        return self

    # --- reading ------------------------------------------------------------------------------------------------------

    async def __aiter__(self) -> "AsyncIterator[AsyncDelivery]":
        """As `Session.__iter__`."""
        outer = handling.get()
        last = None
        try:
            while (last := await self._take_turn(self._after(last))) is not None:
                handling.set(last)
                yield last
        finally:
            handling.set(outer)

    async def receive(self, wait: float | None = 0) -> "AsyncIterator[AsyncDelivery]":
        """As `Session.receive`."""
        outer = handling.get()
        try:
            while (delivery := await self._take_turn(self._next(wait))) is not None:
                handling.set(delivery)
                yield delivery
                if not delivery.is_settled:
                    raise unsettled_before_next(delivery)
        finally:
            handling.set(outer)

    # --- ending -------------------------------------------------------------------------------------------------------

    async def close(self, result: str = "", status: str = "ok") -> Self:
        """As `Session.close`."""
        self._learn(await run(sessioncalls.close(self._caller, self.id, result, status)))
        return self

    async def wait(self, timeout: float | None = None) -> Self:
        """As `Session.wait`."""
        await self._take_turn(self._until_over(timeout))
        return self

    async def abort(self, reason: str) -> Self:
        """As `Session.abort`."""
        self._learn(await run(sessioncalls.abort(self._caller, self.id, reason)))
        return self

    async def detach(self) -> None:
        """As `Session.detach`."""
        self._stream.finish()

    async def refresh(self) -> Self:
        """As `Session.refresh`."""
        await run(self._look())
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            if self.state in sessioncalls.TALKING:
                try:
                    await self.close()
                except LocalProtocolError as over:
                    if over.code != "session_state":
                        raise
        elif self.state not in sessioncalls.OVER:
            try:
                await self.abort(words_of(error))
            except BackchannelError:
                pass  # what went wrong first is what the caller has to see

    def __del__(self) -> None:
        if "_stream" in self.__dict__:
            self._stream.finish()

    # --- helpers ------------------------------------------------------------------------------------------------------

    async def _take_turn(self, conversation: Any) -> Any:
        """Carries out what uses the session's own connection; one task at a time."""
        return await self._stream.carry_out(conversation)


class AsyncRequest(RequestBase):
    """As `Request`."""

    __slots__ = ()

    async def accept(
        self,
        *,
        max_messages: int | None = None,
        max_bytes: int | None = None,
        deadline: float | None = None,
        idle_timeout: float | None = None,
    ) -> AsyncSession:
        """As `Request.accept`."""
        agent: AsyncAgent = self._agent
        limits = {
            "max_messages": max_messages, "max_bytes": max_bytes, "deadline": deadline, "idle_timeout": idle_timeout
        }  # fmt: skip
        return await agent._hold(
            self.id, lambda stream: sessioncalls.accept_and_claim(agent._caller, stream, self.id, **limits)
        )

    async def reject(self, reason: str, retry_after: float | None = None) -> None:
        """As `Request.reject`."""
        await run(sessioncalls.reject(self._agent._caller, self.id, reason, retry_after))
