"""What the model was shown: mail stays leased until a later step of the model proves that it read it.

An answer of ours goes to a program, not to the model, and nothing in the protocol says when the model read it. But a
model's next step is made with all earlier answers before it. So mail that a call returned is acknowledged (evidence
`turn`) when another call comes that belongs to a later step. Calls of one and the same step prove nothing: they come
together, or one right after the other. A call counts as a later step only if nothing else was under way and the last
answer is `STEP_S` old, which is less than any model needs. In doubt the lease is kept: at worst mail comes twice.

If the program dies, the leases fall with our connection, and the mail is handed out again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio

from ..client import AsyncAgent, AsyncDelivery, SessionRecord
from ..errors import LocalProtocolError, Refused

STEP_S = 0.25  # between an answer and a call of a later step of the model


class Shown:
    """Deliveries that one call returned, and the loop over the mailbox that holds their lease."""

    __slots__ = ("_lease", "deliveries", "is_answered")

    def __init__(self, lease: AsyncIterator[AsyncDelivery]) -> None:
        self._lease = lease
        self.deliveries: list[AsyncDelivery] = []
        self.is_answered = False  # the call that shows them has ended

    @property
    def is_settled(self) -> bool:
        return all(delivery.is_settled for delivery in self.deliveries)

    async def let_go(self) -> None:
        """What is not settled is handed out again."""
        await self._lease.aclose()  # type: ignore[attr-defined]


class Mail:
    """The mail of one client. What a tool does, it does inside `call`."""

    def __init__(self, me: AsyncAgent, step_s: float = STEP_S) -> None:
        self._me = me
        self.step_s = step_s
        self._shown: list[Shown] = []
        self._under_way = 0
        self._answered_at = -step_s
        self._settling = asyncio.Lock()

    @asynccontextmanager
    async def call(self, named: Collection[str] = ()) -> AsyncIterator[None]:
        """One call of a tool. What the model has seen by now is acknowledged first, but for what this call names: the
        tool settles that itself. What a call leased that has no answer in the end was not shown, and is let go."""
        is_later_step = not self._under_way and time.monotonic() - self._answered_at >= self.step_s
        self._under_way += 1
        mine: list[Shown] = []
        token = _shown_by_this_call.set(mine)
        is_answered = False
        try:
            if is_later_step:
                await self._settle_seen(named)
            yield
            is_answered = True
        finally:
            _shown_by_this_call.reset(token)
            self._under_way -= 1
            self._answered_at = time.monotonic()
            with anyio.CancelScope(shield=True):  # a call that was cancelled still has to clean up
                await self._tidy(mine, is_answered=is_answered)

    async def take(self, wait_s: float, count: int) -> list[AsyncDelivery]:
        """Leases what waits, whatever its kind; waits for the first."""
        return await self.hold(self._me.receive(wait=wait_s, kinds=None, prefetch=count))

    async def hold(self, lease: AsyncIterator[AsyncDelivery]) -> list[AsyncDelivery]:
        """Keeps what a loop over the mailbox has leased at once, until it is settled."""
        shown = Shown(lease)
        async for delivery in lease:
            shown.deliveries.append(delivery)
            if not delivery.ahead:
                self._shown.append(shown)
                _shown_by_this_call.get().append(shown)
                break
        return shown.deliveries

    @property
    def held(self) -> dict[str, AsyncDelivery]:
        """What was shown and is not settled, by its id."""
        return {d.id: d for shown in self._shown for d in shown.deliveries if not d.is_settled}

    async def settle(self, delivery: AsyncDelivery, evidence: str) -> None:
        """Acknowledges one. With the result of a session that we opened our own half is closed too: nothing more can
        come, and models forget it."""
        record = await self.session_of(delivery) if delivery.kind == "finished" else None
        is_ours = record is not None and record.role == "initiator" and record.state == "CLOSE-WAIT"
        closes: list[Any] = [record] if is_ours else []
        try:
            await self._me.commit(acks=[delivery], closes=closes, evidence=evidence)
        except (Refused, LocalProtocolError):
            if closes:
                await delivery.ack(evidence)  # it ended meanwhile, in another way
            else:
                raise

    async def session_of(self, delivery: AsyncDelivery) -> SessionRecord | None:
        """How the session of this mail stands; None if nothing is known of it any more."""
        try:
            return await self._me.look(str(delivery.session))
        except LocalProtocolError as forgotten:
            if forgotten.code != "no_such_session":
                raise
            return None

    async def close(self) -> None:
        """Hands everything back."""
        for shown in self._shown:
            await shown.let_go()
        self._shown.clear()

    async def _settle_seen(self, named: Collection[str]) -> None:
        async with self._settling:
            seen = [d for shown in self._shown if shown.is_answered for d in shown.deliveries]
            for delivery in seen:
                if delivery.is_settled or delivery.id in named:
                    continue
                try:
                    await self.settle(delivery, "turn")
                except (Refused, LocalProtocolError):
                    delivery.is_settled = True  # by another process of this agent, or by a person

    async def _tidy(self, mine: list[Shown], *, is_answered: bool) -> None:
        for shown in mine:
            shown.is_answered = True
        done = [shown for shown in self._shown if shown.is_settled or (shown in mine and not is_answered)]
        self._shown = [shown for shown in self._shown if shown not in done]
        for shown in done:
            await shown.let_go()


_shown_by_this_call: ContextVar[list[Shown]] = ContextVar("backchannel_shown_by_this_call")
