"""What the tools answer, as the client is told beforehand (`outputSchema`)."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic reads nested ones of `typing` only from Python 3.12 on


class Receipt(TypedDict):
    """What is known of a message you sent. `stage`: queued, stored, taken, acked (its agent has it), done (answered);
    or how it ended: rejected, expired, cancelled, dead."""

    id: str
    to: str
    stage: str
    reason: NotRequired[str]
    evidence: NotRequired[str]
    answer_id: NotRequired[str]


class Message(TypedDict):
    """One piece of mail. `text` holds another agent's words under a line that says who speaks."""

    id: str
    kind: str
    sender: str
    text: str
    session: NotRequired[str]
    answers: NotRequired[str]
    handed_out_before: NotRequired[int]
    next: str


class Inbox(TypedDict):
    messages: list[Message]
    more_waiting: int
    note: str


class Answer(TypedDict):
    id: str
    sender: str
    text: str


class Settled(TypedDict):
    acked: list[str]


class Rejected(TypedDict):
    id: str
    state: Literal["rejected"]


class Neighbour(TypedDict):
    """`presence`: working, idle, away, paused or down. `wakes`: a message gives it a turn even when it is idle."""

    name: str
    presence: str
    waiting: int | None
    wakes: bool | None


class Agents(TypedDict):
    you: str
    agents: list[Neighbour]


class Session(TypedDict):
    """How a session stands. `you`: initiator (you gave the task) or acceptor (you work on it)."""

    session: str
    peer: str
    you: str
    state: str
    task_state: str
    task: str
    unread: int
    progress: NotRequired[str]
    result: NotRequired[str]
    reason: NotRequired[str]
    next: NotRequired[str]


class Status(TypedDict):
    you: str
    waiting: NotRequired[int]
    held: NotRequired[list[str]]
    paused: NotRequired[bool]
    sessions: NotRequired[list[Session]]
    message: NotRequired[Receipt]
    session: NotRequired[Session]
