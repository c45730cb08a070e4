"""What the client hands to a program: plain values, the same for both front ends."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from ..errors import BackchannelError, LocalProtocolError, Refused, TimedOut
from ..protocol import codes  # noqa: F401 - what `wire` imports late: a program that stays may outlive the files on disk
from ..protocol.names import USER
from ..protocol.receipt import WAITABLE, Stage
from . import calls, reach, sessioncalls, wire  # noqa: F401 - `reach` for the same reason

if TYPE_CHECKING:
    from .wire import Conversation

D = TypeVar("D", bound="DeliveryRecord")


class AgentInfo(NamedTuple):
    """One registered agent. `backlog` (messages unacked) is None while its daemon does not run."""

    name: str
    online: bool  # its daemon runs
    backlog: int | None
    oldest_unacked: float | None  # when the oldest message not acked yet was stored (Unix time)
    presence: str  # of the agent itself: working, idle, away; or paused, down: a person stopped it
    since: float | None  # when it last came, settled something, or went; None: not since its daemon started
    receiving: bool  # some process of the agent waits for mail, or holds some
    paused: bool  # a person stopped the handing out; mail waits
    down: bool
    wakes: bool | None  # a message gives it a turn even when it is idle; None: nothing says so
    adapters: list[dict[str, Any]]  # what connects it, and can do what; `attached`: it is connected now


class Answer(NamedTuple):
    """What came back for an `ask`; acknowledged already."""

    raw: Mapping[str, Any]

    @property
    def text(self) -> str:
        return str(self.raw["text"])

    @property
    def sender(self) -> str:
        return str(self.raw["from"])

    @property
    def id(self) -> str:
        return str(self.raw["id"])


class ReceiptRecord:
    """What is known of one message, as of the last answer. `raw` is that answer."""

    __slots__ = ("_agent", "raw")

    def __init__(self, agent: Any, raw: Mapping[str, Any]) -> None:
        self._agent = agent
        self.raw = raw

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def to(self) -> str:
        return str(self.raw["to"])

    @property
    def stage(self) -> Stage:
        return Stage(self.raw["stage"])

    @property
    def reason(self) -> str | None:
        """Why it was rejected, expired, cancelled or dead."""
        return text_or_none(self.raw["reason"])

    @property
    def durability(self) -> str | None:
        """What `stored` survives: `process` (every kill) or `power` (a power cut too). None while it is queued."""
        return text_or_none(self.raw["durability"])

    @property
    def duplicate(self) -> bool:
        """It was stored before, under the same id."""
        return bool(self.raw["duplicate"])

    @property
    def mailbox_id(self) -> str | None:
        return text_or_none(self.raw["mailbox_id"])

    @property
    def msg_no(self) -> int | None:
        """Its place in the mailbox: (mailbox_id, msg_no) names it for ever. None while it is queued."""
        number: int | None = self.raw["msg_no"]
        return number

    @property
    def delivery(self) -> int:
        """How often it was handed out."""
        return int(self.raw["delivery"])

    @property
    def evidence(self) -> str | None:
        return text_or_none(self.raw["evidence"])

    @property
    def reply_id(self) -> str | None:
        return text_or_none(self.raw["reply_id"])

    def __repr__(self) -> str:
        why = f", reason={self.reason!r}" if self.reason else ""
        return f"{type(self).__name__}(id={self.id!r}, to={self.to!r}, stage={self.stage.value!r}{why})"

    def _waiting(self, wanted: str, timeout: float | None) -> "Conversation[dict[str, Any]]":
        caller = self._agent._caller
        if "seq" in self.raw:  # a text of a session: its record tells
            return sessioncalls.wait_said(caller, dict(self.raw), wanted, timeout)
        if self.to == USER:
            return self._known(wanted)
        is_queued = self.stage is Stage.QUEUED
        return calls.wait(caller, self.to, self.id, wanted, timeout, self.raw.get("from"), queued=is_queued)

    def _asking(self) -> "Conversation[dict[str, Any]]":
        if self.stage is Stage.QUEUED or "seq" in self.raw:
            return self._waiting("stored", 0)
        if self.to == USER:
            return self._known("stored")
        return calls.receipt(self._agent._caller, self.id, self.to)

    def _known(self, wanted: str) -> "Conversation[dict[str, Any]]":
        """Of an answer to a process that is no agent: it lies with its question, and goes no further."""
        yield from ()
        if wanted != Stage.STORED:
            raise LocalProtocolError(
                f"the answer {self.id} lies with its question, where {USER} finds it: it is never {wanted}",
                code="bad_params",
                hint="wait for stored",
            )
        return dict(self.raw)

    def _learnt(self, raw: Mapping[str, Any]) -> None:
        """What is known now. That our own push was a repetition only its own answer said."""
        self.raw = {**raw, "duplicate": self.duplicate}

    def _checked(self, wanted: Stage, waited: float | None) -> None:
        """Raises what a wait for `wanted` raises, if the stage was not reached."""
        if self.stage.is_failure:
            raise Refused(
                f"message {self.id} to {self.to} was {self.stage} ({self.reason})",
                code=self.stage.value,
                reason=self.reason or "",
            )
        if not self.stage.reached(wanted):
            raise TimedOut(
                f"message {self.id} to {self.to} is {self.stage}, not {wanted}, after {waited or 0:g} s",
                hint="it is kept; wait again, or cancel it",
                waited=waited or 0.0,
            )


class DeliveryRecord:
    """One message handed to this process. It is leased until it is settled; `raw` is what came over the wire."""

    __slots__ = ("_agent", "ahead", "is_settled", "raw")

    def __init__(self, agent: Any, raw: Mapping[str, Any], ahead: int = 0) -> None:
        self._agent = agent
        self.raw = raw
        self.ahead = ahead  # how many `prefetch` leased with it that are yielded next, without a wait
        self.is_settled = False

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def kind(self) -> str:
        return str(self.raw["kind"])

    @property
    def sender(self) -> str:
        """Who sent it, proved to the daemon: an agent's name, or `@user`."""
        return str(self.raw["from"])

    @property
    def to(self) -> str:
        return str(self.raw["to"])

    @property
    def text(self) -> str:
        return str(self.raw["text"])

    @property
    def sent_at(self) -> float:
        """Unix time, seconds; for display."""
        return float(self.raw["sent_at"])

    @property
    def delivery(self) -> int:
        """The how-manieth handing-out this is: above 1, an earlier one was not acknowledged."""
        return int(self.raw["delivery"])

    @property
    def session(self) -> str | None:
        return text_or_none(self.raw["session"])

    @property
    def path(self) -> list[str]:
        """The agents its trace went through, oldest first."""
        return list(self.raw.get("path", ()))

    @property
    def reply_to(self) -> str | None:
        return text_or_none(self.raw["reply_to"])

    @property
    def trace_id(self) -> str | None:
        return text_or_none(self.raw["trace_id"])

    @property
    def hops(self) -> int:
        return int(self.raw["hops"])

    @property
    def priority(self) -> str:
        return str(self.raw["priority"])

    @property
    def headers(self) -> Mapping[str, str]:
        headers: Mapping[str, str] = self.raw["headers"]
        return headers

    @property
    def mailbox_id(self) -> str:
        return str(self.raw["mailbox_id"])

    @property
    def msg_no(self) -> int:
        """Its place in the mailbox. (mailbox_id, msg_no) names it for ever: store it with your effect."""
        return int(self.raw["msg_no"])

    @property
    def uid(self) -> int:
        """The kernel's word on the pushing process."""
        return int(self.raw["uid"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, sender={self.sender!r}, delivery={self.delivery})"

    def _token(self) -> dict[str, Any]:
        return {"delivery": self.delivery, "from": self.sender}


def stage_named(word: str) -> Stage:
    """The stage of a receipt to wait for. Raises `LocalProtocolError`."""
    try:
        return Stage(word)
    except ValueError:
        raise LocalProtocolError(
            f"{word!r} is no stage", code="bad_params", hint=f"use {', '.join(WAITABLE)}"
        ) from None


def text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def all_or_first_error(outcomes: list[Any], receipts: list[Any]) -> None:
    """Raises the first error among the outcomes of a batch; its `receipts` tells what became of each text."""
    for outcome in outcomes:
        if isinstance(outcome, BackchannelError):
            outcome.receipts = receipts  # type: ignore[attr-defined]
            raise outcome


class Handled(Protocol):
    """What one may be at: a delivery, or somebody's request."""

    @property
    def id(self) -> str: ...
    @property
    def to(self) -> str: ...
    @property
    def trace_id(self) -> str | None: ...
    @property
    def hops(self) -> int: ...
    @property
    def path(self) -> list[str]: ...


class Anew:
    """In the place of what is handled: nothing that was received leads to what is sent now."""


# What this thread or task is handling: what it sends meanwhile continues that trace.
handling: "ContextVar[Handled | Anew | None]" = ContextVar("backchannel_handling", default=None)


@contextmanager
def acting_on(delivery: "Handled | None") -> Iterator[None]:
    """What this thread or task sends inside continues the trace of `delivery`: for an adapter, whose model acts on it
    in another thread.

    None: it begins a trace of its own. That is for what a person asked for; the daemon of an agent that a model drives
    would else take it for a consequence of whatever the model was handed last.
    """
    token = handling.set(Anew() if delivery is None else delivery)
    try:
        yield
    finally:
        handling.reset(token)


def traced(me: str, **options: Any) -> dict[str, Any]:
    """The options of a push or a session, with the trace, path and hops of what is being handled."""
    handled = handling.get()
    if isinstance(handled, Anew):
        options |= {"trace_id": wire.new_id("m"), "hops": 0, "path": [me]}
    elif handled is not None and handled.to == me:
        options["trace_id"] = handled.trace_id or handled.id
        options["hops"] = handled.hops + 1
        options["path"] = [*handled.path, me]
    return options


def with_ahead(messages: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int]]:
    """What one take handed out, each with the number of those behind it."""
    return zip(messages, range(len(messages) - 1, -1, -1), strict=True)


def unsettled(taken: "dict[str, list[D]]") -> "dict[str, list[D]]":
    """Of what each take handed out, the deliveries that are not settled; takes without any are left out."""
    left = {}
    for take_id, deliveries in taken.items():
        if not_settled := [d for d in deliveries if not d.is_settled]:
            left[take_id] = not_settled
    return left
