"""How a turn of Hermes ended: the only evidence on which mail is acknowledged.

What Hermes *sends* does not tell: a provider that is down, an interruption and a restart look like any other final
text. Its hooks do: `post_llm_call` fires when a turn came to an answer, `on_session_end` says whether it was complete.
A turn is known by the heading line of what it was given, and from then on by Hermes' turn id, so that the turns of
subagents and of other chats are never mistaken for it. The hooks run in the agent's threads, all else in the gateway's
loop; what they share are single assignments.
"""

from concurrent.futures import Future
from typing import Any, NamedTuple

from .chats import Chat


class Outcome(NamedTuple):
    """How a turn ended.

    `kind` is one of: `answered` (`text` is the answer), `silent` (a good turn that says nothing), `incomplete` (it
    ended, but not well: `text` is Hermes' word why), `failed` (it came to no end), `stopping` (the gateway ends).
    """

    kind: str
    text: str = ""

    @property
    def has_ended(self) -> bool:
        """The turn ended, for good or bad: doing it again would do the work again."""
        return self.kind in ("answered", "silent", "incomplete")


class Turn:
    """One turn that we asked for, or that we watch."""

    __slots__ = ("finals", "heading", "is_answered", "is_complete", "session_id", "turn_id")

    def __init__(self, heading: str, session_id: str | None = None) -> None:
        self.heading = heading
        self.session_id = session_id  # of Hermes: then it is known by that, since it has begun already
        self.turn_id: str | None = None
        self.is_answered = False
        self.is_complete = True
        self.finals: list[str] = []  # what Hermes sent as final text while it ran

    def outcome(self, complaint: str = "") -> Outcome:
        """As far as it is known; a turn without an answer has failed."""
        text = "\n\n".join(self.finals).strip()
        if not self.is_answered:
            return Outcome("failed", text or complaint)
        if not self.is_complete:
            return Outcome("incomplete", text or complaint)
        return Outcome("answered", text) if text else Outcome("silent")


class TurnLog:
    """The turns under way in this process. Its three methods are Hermes' hooks."""

    def __init__(self) -> None:
        self._turns: list[Turn] = []

    def expect(self, heading: str) -> Turn:
        turn = Turn(heading)
        self._turns.append(turn)
        return turn

    def expect_next(self, session_id: str) -> Turn:
        """The end of the turn that runs in this session of Hermes."""
        turn = Turn("", session_id)
        self._turns.append(turn)
        return turn

    def forget(self, turn: Turn) -> None:
        if turn in self._turns:
            self._turns.remove(turn)

    def pre_llm_call(self, user_message: Any = "", turn_id: str | None = None, **_: Any) -> None:
        for turn in list(self._turns):
            if turn.heading and turn.turn_id is None and turn.heading in str(user_message):
                turn.turn_id = turn_id

    def post_llm_call(self, turn_id: str | None = None, session_id: str | None = None, **_: Any) -> None:
        for turn in list(self._turns):
            if turn.turn_id is None and turn.session_id is not None and turn.session_id == session_id:
                turn.turn_id = turn_id
            if turn_id is not None and turn.turn_id == turn_id:
                turn.is_answered = True

    def on_session_end(
        self, turn_id: str | None = None, completed: bool = True, interrupted: bool = False, **_: Any
    ) -> None:
        for turn in list(self._turns):
            if turn_id is not None and turn.turn_id == turn_id:
                turn.is_complete = completed and not interrupted


class Awaited(NamedTuple):
    """A tool that waits for an answer of `peer`, in the turn of a chat."""

    peer: str
    answer: "Future[str]"
    chat: Chat
    session_id: str  # Hermes' own, of the turn that asked
