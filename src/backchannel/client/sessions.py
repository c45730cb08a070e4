"""`Session` and `Request`, blocking: what `Agent.open`, `session` and `requests` hand out. `aiosessions` has the same.

A session lives in the daemons. A `Session` is this process's hold on it: one connection that has claimed its mail, so
that nobody else of the agent takes it, and the leases of what it took. Another process may find it again by its id.
"""

import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..errors import BackchannelError, LocalProtocolError
from . import sessioncalls
from .drive import run
from .records import handling
from .sessionrecords import RequestBase, SessionBase, unsettled_before_next, words_of

if TYPE_CHECKING:
    from .blocking import Agent, Delivery, Receipt, _Stream


class Session(SessionBase):
    """A task that two agents agreed on, with texts both ways in order, and a result at the end.

    `with` closes it on leaving, and aborts it on an exception. Every method raises `LocalProtocolError`
    (`session_state`, with the state, the cause and the next step) when the session is past it.
    """

    _agent: "Agent"
    _stream: "_Stream"

    # --- talking ------------------------------------------------------------------------------------------------------

    def send(
        self, text: str, *, timeout: float | None = 60.0, input_required: bool = False, key: str | None = None
    ) -> "Receipt":
        """Says a text; it is committed in your own daemon, which brings it to the peer, in order.

        With a thousand texts that the peer has not processed it waits for room, at most `timeout` seconds (None:
        without end), then raises `OverLimit` (`window`). `input_required` tells the peer that you cannot go on without
        an answer. The same `key` and text again is said once. Raises `Refused` (`budget`) when `max_messages` or
        `max_bytes` is used up: that ends the session.
        """
        said = run(sessioncalls.say(self._caller, self.id, text, timeout, key, input_required=input_required))
        return self._agent._receipt(sessioncalls.as_receipt(said))

    def progress(self, note: str = "") -> Self:
        """You are still at it: leases begin anew, and the peer can see the note and when it was made."""
        self._learn(run(sessioncalls.progress(self._caller, self.id, note)))
        return self

    # --- reading ------------------------------------------------------------------------------------------------------

    def __iter__(self) -> "Iterator[Delivery]":
        """The peer's texts, until it has said all (its FIN). Asking for the next acknowledges the last.

        Leaving the loop acknowledges nothing: the next loop begins with the same text, unless you acked it. Raises
        `Refused` when the session ended otherwise (`reset` or `expired`, with the reason).
        """
        outer = handling.get()
        last = None
        try:
            while (last := self._take_turn(self._after(last))) is not None:
                handling.set(last)
                yield last
        finally:
            handling.set(outer)

    def receive(self, wait: float | None = 0) -> "Iterator[Delivery]":
        """The peer's texts, to be acknowledged by hand, each before the next.

        Ends at the peer's FIN, or after `wait` seconds without a text (None: never; 0: what is there).
        """
        outer = handling.get()
        try:
            while (delivery := self._take_turn(self._next(wait))) is not None:
                handling.set(delivery)
                yield delivery
                if not delivery.is_settled:
                    raise unsettled_before_next(delivery)
        finally:
            handling.set(outer)

    # --- ending -------------------------------------------------------------------------------------------------------

    def close(self, result: str = "", status: str = "ok") -> Self:
        """You have said all; `status` is `ok` or `failed`. The peer may go on talking until it closes too.

        Closing again with the same result does nothing.
        """
        self._learn(run(sessioncalls.close(self._caller, self.id, result, status)))
        return self

    def wait(self, timeout: float | None = None) -> Self:
        """Waits until both have closed it and all was processed, at most `timeout` seconds (None: without end).

        What the peer said and you have not read is acknowledged, and kept in memory for a loop afterwards; the peer's
        result is in `result`. Close your own end before. Raises `TimedOut`, or `Refused` when the session ended
        otherwise, with the cause as its code.
        """
        self._take_turn(self._until_over(timeout))
        return self

    def abort(self, reason: str) -> Self:
        """Ends it at once, for both. The peer is told why; what was on its way may be lost."""
        self._learn(run(sessioncalls.abort(self._caller, self.id, reason)))
        return self

    def detach(self) -> None:
        """Lets go of its mail: it goes to whoever of this agent receives. The session goes on as it is."""
        self._stream.is_over = True
        self._stream.close()

    def refresh(self) -> Self:
        """Asks the daemon how it stands."""
        run(self._look())
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            if self.state in sessioncalls.TALKING:
                try:
                    self.close()
                except LocalProtocolError as over:
                    if over.code != "session_state":
                        raise
        elif self.state not in sessioncalls.OVER:
            try:
                self.abort(words_of(error))
            except BackchannelError:
                pass  # what went wrong first is what the caller has to see

    def __del__(self) -> None:
        if "_stream" in self.__dict__:
            self._stream.is_over = True
            self._stream.close()

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _take_turn(self, conversation: Any) -> Any:
        """Carries out what uses the session's own connection; one thread at a time."""
        if self._stream.pid != os.getpid():  # a fork's copy: what is leased is the parent's
            self._stream.close()
            self._stream = self._agent._keeper.open(self._stream.claim)
            self._current = None
        return self._stream.carry_out(conversation)


class Request(RequestBase):
    """Somebody offers a task."""

    __slots__ = ()

    def accept(
        self,
        *,
        max_messages: int | None = None,
        max_bytes: int | None = None,
        deadline: float | None = None,
        idle_timeout: float | None = None,
    ) -> Session:
        """You will do it. The limits are yours, beside the opener's: the lower counts. `deadline` and `idle_timeout` in
        seconds.

        Raises `LocalProtocolError` (`session_state`) if it was answered by another process or given up meanwhile.
        """
        agent: Agent = self._agent
        limits = {
            "max_messages": max_messages, "max_bytes": max_bytes, "deadline": deadline, "idle_timeout": idle_timeout
        }  # fmt: skip
        return agent._hold(
            self.id, lambda stream: sessioncalls.accept_and_claim(agent._caller, stream, self.id, **limits)
        )

    def reject(self, reason: str, retry_after: float | None = None) -> None:
        """You will not do it; the opener is told why, and in how many seconds it may ask again."""
        run(sessioncalls.reject(self._agent._caller, self.id, reason, retry_after))
