"""How long each stage of a receipt takes with one daemon: a conversation for `doctor`.

`connect` and `answer` are the way to the daemon and back. `commit` is an answer after a transaction in the mailbox,
which is what `stored` costs; `flush` is one after that was on the disk itself, which is what durability `power` costs.
Nothing of it is a message: no agent is woken, nothing is taken, no count moves.
"""

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import TimedOut
from ..protocol.names import AgentName
from ..transport.dial import peer_pid
from ..transport.paths import CONTROL
from .wire import Caller, Exchange, connect, request, result_of

if TYPE_CHECKING:
    from .wire import Conversation

STAGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("answer", "ping", {}),
    ("commit", "check", {}),
    ("flush", "check", {"flush": True}),
)


class RoundTrip(NamedTuple):
    """`times` are seconds by stage; `pid` is whom the kernel names behind the socket; `status` the daemon's own."""

    times: dict[str, float]
    pid: int
    status: dict[str, Any]


def round_trip(caller: Caller, name: str, timeout: float) -> "Conversation[RoundTrip]":
    """With a daemon that runs; another is not started. Raises `PeerAbsent`, `TimedOut`, and what it refuses."""
    times: dict[str, float] = {}
    begun = time.perf_counter()
    sock = yield from connect(caller, AgentName(name), CONTROL, time.monotonic() + timeout, may_start=False)
    times["connect"] = time.perf_counter() - begun
    try:
        for stage, method, params in STAGES:
            begun = time.perf_counter()
            answers = yield Exchange(sock, request(method, params), timeout)
            times[stage] = time.perf_counter() - begun
            result_of(answers[0])
        answers = yield Exchange(sock, request("status", {}), timeout)
        return RoundTrip(times, peer_pid(sock), result_of(answers[0]))
    except OSError as error:
        raise TimedOut(
            f"the daemon of {name} did not answer within {timeout:g} s ({error.strerror})", waited=timeout
        ) from error
    finally:
        sock.close()
