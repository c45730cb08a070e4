"""What a session is to the people who look at it: a task, in the words of A2A's task states.

Derived from the machine's state and what was said, never stored.
"""

from .session import Role
from .states import Cause, State

SUBMITTED = "submitted"
WORKING = "working"
INPUT_REQUIRED = "input-required"
COMPLETED = "completed"
FAILED = "failed"
CANCELED = "canceled"
REJECTED = "rejected"


def task_state(
    state: State, cause: Cause | None, role: Role | None, reason: str, status: str | None, *, is_waiting: bool
) -> str:
    """`status` is that of the acceptor's FIN, `is_waiting` whether the acceptor asked for something."""
    if state in (State.NONE, State.SYN_SENT, State.SYN_RECEIVED):
        return SUBMITTED
    if state is not State.CLOSED:
        if status is not None:  # the acceptor's result is there; what follows is politeness
            return FAILED if status == "failed" else COMPLETED
        return INPUT_REQUIRED if is_waiting else WORKING
    match cause:
        case Cause.FINISHED:
            return FAILED if status == "failed" else COMPLETED
        case Cause.REJECTED:
            return REJECTED
        case Cause.ABORTED if role is Role.INITIATOR:
            return CANCELED
        case Cause.EXPIRED if reason == "accept_timeout":
            return CANCELED
        case _:
            return FAILED
