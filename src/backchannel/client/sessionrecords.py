"""What the client knows of sessions: how one stands, an offer, and the common half of both `Session`s.

A session is kept by the daemons. What stands here is the last answer about it and what was taken and not yet read;
the conversations are written once, and each front end carries them out.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import LocalProtocolError, OverLimit, TimedOut
from . import calls, sessioncalls
from .records import DeliveryRecord, text_or_none

if TYPE_CHECKING:
    from .wire import Conversation, Stream

UNREAD_MAX = 10_000  # data that `wait` keeps in memory; who sends more wants to be read


class Result(NamedTuple):
    """What the peer said with its FIN: `status` is `ok` or `failed`."""

    status: str
    text: str

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"


class SessionRecord:
    """How a session stands, as of the last answer. `raw` is that answer."""

    __slots__ = ("raw",)

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def peer(self) -> str:
        return str(self.raw["peer"])

    @property
    def role(self) -> str:
        """Ours: `initiator` (we opened it) or `acceptor`."""
        return str(self.raw["role"])

    @property
    def task(self) -> str:
        return str(self.raw["task"])

    @property
    def state(self) -> str:
        """As RFC 9293 calls it: `SYN-SENT`, `ESTABLISHED`, `FIN-WAIT-1`, ..., and `DRAIN` where TCP has TIME-WAIT."""
        return str(self.raw["state"])

    @property
    def is_open(self) -> bool:
        """Not CLOSED yet."""
        return self.state != "CLOSED"

    @property
    def task_state(self) -> str:
        """As A2A calls it: submitted, working, input-required, completed, failed, canceled, rejected."""
        return str(self.raw["task_state"])

    @property
    def cause(self) -> str | None:
        """Of a CLOSED one: finished, rejected, aborted (by us), reset, expired."""
        return text_or_none(self.raw["cause"])

    @property
    def reason(self) -> str:
        return str(self.raw["reason"] or "")

    @property
    def retry_after(self) -> float | None:
        """When the peer that rejected wants to be asked again, seconds."""
        return _number(self.raw["retry_after"])

    @property
    def status(self) -> str | None:
        """Of the task, by the agent that accepted it: `ok` or `failed`; None until it closed."""
        return text_or_none(self.raw["status"])

    @property
    def result(self) -> str | None:
        return text_or_none(self.raw["result"])

    @property
    def messages(self) -> int:
        """Said so far, in both directions; `max_messages` is the budget for them."""
        return int(self.raw["messages"])

    @property
    def bytes(self) -> int:
        return int(self.raw["bytes"])

    @property
    def max_messages(self) -> int | None:
        found: int | None = self.raw["max_messages"]
        return found

    @property
    def max_bytes(self) -> int | None:
        found: int | None = self.raw["max_bytes"]
        return found

    @property
    def deadline(self) -> float | None:
        """Seconds that are left."""
        return _number(self.raw["deadline"])

    @property
    def idle_timeout(self) -> float | None:
        return _number(self.raw["idle_timeout"])

    @property
    def unacked(self) -> int:
        """What we said and the peer's agent has not processed."""
        return int(self.raw["unacked"])

    @property
    def unread(self) -> int:
        """What the peer said and our agent has not processed."""
        return int(self.raw["unread"])

    @property
    def window(self) -> int:
        """How many more texts may be said now."""
        return int(self.raw["window"])

    @property
    def progress(self) -> str | None:
        """The peer's last note on how it goes."""
        return text_or_none(self.raw["progress"])

    @property
    def progress_at(self) -> float | None:
        """Unix time, seconds."""
        return _number(self.raw["progress_at"])

    @property
    def trace_id(self) -> str | None:
        return text_or_none(self.raw["trace_id"])

    @property
    def hops(self) -> int:
        return int(self.raw["hops"])

    @property
    def path(self) -> list[str]:
        """The agents its trace went through, oldest first."""
        return list(self.raw["path"])

    @property
    def opened_at(self) -> float:
        """Unix time, seconds; for display."""
        return float(self.raw["opened_at"])

    @property
    def ended_at(self) -> float | None:
        return _number(self.raw["ended_at"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, peer={self.peer!r}, state={self.state!r})"


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


class RequestBase:
    """Somebody offers a task. `accept` or `reject` it; nothing else answers it."""

    __slots__ = ("_agent", "record")

    def __init__(self, agent: Any, record: SessionRecord) -> None:
        self._agent = agent
        self.record = record

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def sender(self) -> str:
        """Who offers it, proved to the daemon."""
        return self.record.peer

    @property
    def to(self) -> str:
        return str(self._agent.name)

    @property
    def task(self) -> str:
        return self.record.task

    @property
    def max_messages(self) -> int | None:
        return self.record.max_messages

    @property
    def max_bytes(self) -> int | None:
        return self.record.max_bytes

    @property
    def deadline(self) -> float | None:
        """Seconds that are left."""
        return self.record.deadline

    @property
    def idle_timeout(self) -> float | None:
        return self.record.idle_timeout

    @property
    def trace_id(self) -> str | None:
        return self.record.trace_id

    @property
    def hops(self) -> int:
        return self.record.hops

    @property
    def path(self) -> list[str]:
        return self.record.path

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, sender={self.sender!r}, task={self.task!r})"


class SessionBase:
    """The half of a `Session` that does not wait: what is known of it, and its conversations."""

    def __init__(self, agent: Any, raw: Mapping[str, Any], stream: "Stream") -> None:
        self._agent = agent
        self._caller = agent._caller
        self._stream = stream
        self._current: DeliveryRecord | None = None  # leased to us, as long as it is not settled
        self._unread: list[DeliveryRecord] = []  # taken and acked by `wait`
        self._is_read = False  # the peer's FIN was processed
        self.record = SessionRecord(raw)
        self._learn(raw)

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def peer(self) -> str:
        return self.record.peer

    @property
    def role(self) -> str:
        """Ours: `initiator` (we opened it) or `acceptor`."""
        return self.record.role

    @property
    def task(self) -> str:
        return self.record.task

    @property
    def state(self) -> str:
        """As last known, in the words of RFC 9293; `refresh` asks again."""
        return self.record.state

    @property
    def task_state(self) -> str:
        """As last known, in the words of A2A."""
        return self.record.task_state

    @property
    def result(self) -> Result:
        """What the peer said with its FIN. Raises `LocalProtocolError` while it has not come."""
        raw = self.record.raw
        if raw["peer_status"] is None:
            raise LocalProtocolError(
                f"session {self.id} with {self.peer} has no result yet: it is {self.state}",
                code="session_state",
                hint="read it to its end, or close() and wait()",
            )
        return Result(str(raw["peer_status"]), str(raw["peer_result"] or ""))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, peer={self.peer!r}, state={self.state!r})"

    def _learn(self, raw: Mapping[str, Any]) -> None:
        if raw["version"] >= self.record.raw["version"]:
            self.record = SessionRecord(raw)
        # What we ended ourselves is read by nobody here: what is left of it goes to whoever receives.
        if self.state in sessioncalls.OVER and (not self.record.unread or self.record.cause == "aborted"):
            self._stream.close()

    # --- conversations ------------------------------------------------------------------------------------------------

    def _look(self) -> "Conversation[None]":
        self._learn((yield from sessioncalls.look(self._caller, self.id)))

    def _after(self, last: DeliveryRecord | None) -> "Conversation[DeliveryRecord | None]":
        """Acks the last, and takes the next; None at the peer's FIN. What an earlier loop left comes again."""
        if last is not None:
            yield from self._ack(last)
        return (yield from self._next(None))

    def _next(self, wait_s: float | None) -> "Conversation[DeliveryRecord | None]":
        """The next data; None at the peer's FIN, or after `wait_s` seconds without any."""
        if self.record.cause == "aborted":
            self._raise_if_ended()
        if self._unread:
            return self._unread.pop(0)
        if self._current is not None and not self._current.is_settled:
            return self._current
        return (yield from self._take(None if wait_s is None else time.monotonic() + wait_s))

    def _take(self, deadline: float | None) -> "Conversation[DeliveryRecord | None]":
        while not self._is_read:
            left = 0.0 if self._is_all_read() else calls.slice_left(deadline)  # but for a notice
            self._stream.held.clear()
            raw = yield from sessioncalls.take_mail(self._caller, self._stream, self.id, left)
            if raw is None:
                yield from self._look()
                self._raise_if_ended()
                self._is_read = self._is_all_read()
                if calls.slice_left(deadline) <= 0:
                    break
                continue
            self._stream.held.add(self._stream.take_id)  # type: ignore[arg-type]
            delivery: DeliveryRecord = self._agent._delivery(raw)
            if delivery.kind == "data":
                self._current = delivery
                return delivery
            yield from self._ack(delivery)
            yield from self._look()  # a notice is a hint; how it stands the record says
            self._is_read = delivery.kind == "finished"
        if self._is_read:
            self._stream.close()  # nothing more can come
        return None

    def _is_all_read(self) -> bool:
        """Whether all that the peer will ever say was processed, as last known."""
        is_said = not self.record.is_open or self.record.raw["peer_status"] is not None
        return is_said and not self.record.unread

    def _raise_if_ended(self) -> None:
        if self.record.cause not in (None, "finished"):
            self._stream.close()
            raise sessioncalls.ended(self.record.raw)  # type: ignore[arg-type]

    def _ack(self, delivery: DeliveryRecord) -> "Conversation[None]":
        if not delivery.is_settled:
            yield from calls.settle(
                self._caller, "ack", delivery.id, delivery=delivery.delivery, sender=delivery.sender
            )
            delivery.is_settled = True

    def _until_over(self, timeout: float | None) -> "Conversation[None]":
        deadline = None if timeout is None else time.monotonic() + timeout
        yield from self._look()
        if self.state in (*sessioncalls.TALKING, *sessioncalls.UNANSWERED):
            raise LocalProtocolError(
                f"session {self.id} with {self.peer} is {self.state}: it is not over before both have closed it",
                code="session_state",
                hint="close() it first",
            )
        while not self._is_read and calls.slice_left(deadline) > 0:
            if self._current is not None and not self._current.is_settled:
                yield from self._ack(self._current)
                self._unread.append(self._current)
            if len(self._unread) >= UNREAD_MAX:
                raise OverLimit(f"session {self.id} has more than {UNREAD_MAX} unread data", hint="read them in a loop")
            yield from self._take(deadline)
        record = dict(self.record.raw)
        self._learn((yield from sessioncalls.watch_until(self._caller, record, sessioncalls.is_closed, deadline)))
        self._raise_if_ended()
        if self.record.is_open:
            raise TimedOut(
                f"session {self.id} with {self.peer} is {self.state} after {timeout or 0:g} s",
                hint="it goes on without you; wait again, or abort it",
                waited=timeout or 0.0,
            )


def unsettled_before_next(delivery: DeliveryRecord) -> LocalProtocolError:
    """Asked for the next while this one is not settled: a session hands out one at a time, so that order holds."""
    return LocalProtocolError(
        f"data {delivery.id} is not settled", code="session_state", hint="ack() or release() it before the next"
    )


def words_of(error: BaseException) -> str:
    """What a peer is told when an exception ended the session."""
    return f"{type(error).__name__}: {error}"[: sessioncalls.REASON_CHARS_MAX]
