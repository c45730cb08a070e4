"""One request and its answer: finding a daemon, starting it, saying a thing again until it is answered.

Generators that yield what they need (`Connect`, `Exchange`, `Race`, `Sleep`); a driver carries it out and sends the
outcome back in, an `OSError` as an exception. An answer that does not come leaves a request unknown: it is repeated
with the same id until its time is over, and the daemon tells a repetition from a new message. On the command line's
fast path: standard library, and little of that.
"""

import errno
import os
import time
from _thread import allocate_lock  # `threading` costs a millisecond more

from .. import errors
from ..errors import LocalProtocolError, NotPermitted, PeerAbsent, RemoteProtocolError, TimedOut
from ..protocol.codec import RESULT, Malformed, decode_answer, decode_result, encode_params, encode_request
from ..protocol.names import AgentName, make_id
from ..transport.dial import Socket, peer_uid
from ..transport.paths import CONTROL, Places, find_places, read_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, TypeVar

    T = TypeVar("T")
    Conversation = Generator[Any, Any, T]

CALL_S = 10.0  # how long a call may take unless told otherwise, seconds
CLAIM_S = 0.5  # until somebody else's claim is believed: it may be that of a process that just died
POOL_IDLE_S = 1.0  # how long a connection may be kept for the next call of a burst
POOL_MAX = 8
IDS_AT_ONCE = 64  # for how many the kernel is asked for random bytes at once

ABSENT = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR})
_BROKEN = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF})


class Connect:
    """Wanted: a connected socket. `timeout` in seconds."""

    __slots__ = ("path", "timeout")

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self.timeout = timeout


class Exchange:
    """Wanted: these bytes sent, `count` lines read back. EAGAIN or ETIMEDOUT when `timeout` seconds are over."""

    __slots__ = ("count", "data", "sock", "timeout")

    def __init__(self, sock: Socket, data: bytes, timeout: float, count: int = 1) -> None:
        self.sock = sock
        self.data = data
        self.timeout = timeout
        self.count = count


class Race:
    """Wanted: each request sent on its socket, and the first line that comes: (which, line). Nothing to send: b""."""

    __slots__ = ("requests", "timeout")

    def __init__(self, requests: "list[tuple[Socket, bytes]]", timeout: float) -> None:
        self.requests = requests
        self.timeout = timeout


class Sleep:
    """Wanted: some time to pass."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Process:
    """This process, as far as a fork must be noticed."""

    forks = 0  # between the process that imported us and this one; compared instead of `getpid`, a system call
    random: "list[bytes]" = []  # of ids to come  # noqa: RUF012 - there is one process


def _forked() -> None:
    Process.forks += 1
    Process.random.clear()  # or parent and child would make the same ids


os.register_at_fork(after_in_child=_forked)


class Caller:
    """Who calls: an agent with its key, or a process that is none; with the connections it keeps for a moment."""

    def __init__(self, name: str | None, places: Places | None = None) -> None:
        self.name = AgentName(name) if name is not None else None
        self.places = places or find_places()
        self.adapter: dict[str, Any] | None = None  # what takes for the agent, and what it can do (`adapters.py`)
        self.queued_to: dict[
            str, str
        ] = {}  # targets for whom our own daemon may still hold messages: the last one's id
        self._key: str | None = None
        self._addresses: dict[str, tuple[AgentName, str]] = {}  # of our own user's agents
        self._idle: list[tuple[float, str, str, Socket]] = []  # oldest first
        self._lock = allocate_lock()
        self._forks = Process.forks
        self._is_closed = False

    @property
    def key(self) -> str:
        """Our secret. Raises `PeerAbsent` if we are not registered."""
        assert self.name is not None, "only an agent has a key"
        if self._key is None:
            self._key = read_key(self.places, self.name)
        if self._key is None:
            raise PeerAbsent(f"there is no agent {self.name}", code="unknown_agent", hint=f"backchannel up {self.name}")
        return self._key

    def me(self) -> AgentName:
        """Our own name. Raises `LocalProtocolError` if we are no agent."""
        if self.name is None:
            raise LocalProtocolError(
                "who are you?", code="bad_name", hint="set BACKCHANNEL_AGENT=NAME, or use --as NAME"
            )
        return self.name

    def address(self, to: str) -> tuple[AgentName, str]:
        """The checked name, and the params of a push that are the same for every text we send there, encoded."""
        known = self._addresses.get(to) if isinstance(to, str) else None
        if known is not None:
            return known
        name = AgentName(to)
        params = {"to": str(name)}
        is_ours = self.places.is_ours(name)
        if self.name is not None:
            params["from"] = str(self.name)
            if is_ours:
                params["auth"] = self.key  # who we are to another user's agent says the kernel
        found = name, encode_params(params) + ","
        if is_ours:  # what is another user's today may be ours tomorrow
            self._addresses[name] = found
        return found

    def forget_address(self, name: str) -> bool:
        """What was found out of NAME is looked at again. True if there was something."""
        return self._addresses.pop(name, None) is not None

    def everybody_else(self) -> list[str]:
        """All registered agents but this one and those that are down."""
        places = self.places
        return [
            name for name in places.registered() if name != self.name and not os.path.exists(places.state(name, "down"))
        ]

    def keep(self, name: str, socket: str, sock: Socket) -> None:
        """Keeps a connection for the next call of a burst."""
        if self._is_closed:  # a lease given back after the end: nobody would close it
            sock.close()
            return
        with self._lock:
            self._idle.append((time.monotonic(), name, socket, sock))
            surplus = self._idle.pop(0)[-1] if len(self._idle) > POOL_MAX else None
        if surplus:
            surplus.close()

    def kept(self, name: str, socket: str, now: float) -> Socket | None:
        """A connection kept a moment ago, if there is one; those that are older are closed."""
        if self._forks != Process.forks:
            self.forget_after_fork()
        idle = self._idle
        if not idle:
            return None
        oldest = now - POOL_IDLE_S
        with self._lock:
            while idle and idle[0][0] < oldest:
                idle.pop(0)[-1].close()
            for i in range(len(idle) - 1, -1, -1):
                if idle[i][1] == name and idle[i][2] == socket:
                    return idle.pop(i)[-1]
        return None

    def forget_after_fork(self) -> None:
        """A child closes its copies: two processes on one connection would read each other's answers."""
        self._forks = Process.forks
        self._lock = allocate_lock()  # another thread of the parent may have held it
        self._drop_idle()

    def close(self) -> None:
        self._is_closed = True
        self._drop_idle()

    def _drop_idle(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop()[-1].close()


def call(
    caller: Caller,
    name: str,
    socket: str,
    method: str,
    params: "dict[str, Any]",
    timeout: float,
    *,
    may_start: bool = True,
) -> "Conversation[Any]":
    """One request and its answer, over a kept connection or a new one, repeated until it is answered.

    Raises what the daemon refused as the error it stands for, `PeerAbsent`, `NotPermitted`, or `TimedOut`.
    """
    line = request(method, params)
    answers = yield from exchange(caller, name, socket, [line], timeout, may_start=may_start)
    return result_of(answers[0])


class Stream:
    """A connection of its own for taking: what it leased lives as long as it does.

    `take_id` is its last take; `held` are the takes of which something is not settled yet. `claim` names mail that
    nobody else of this agent is to get meanwhile (the params of `claim`). One that `is_over` is not connected again.
    """

    def __init__(self, claim: "dict[str, Any] | None" = None) -> None:
        self.sock: Socket | None = None
        self.take_id: str | None = None
        self.held: set[str] = set()
        self.claim = claim
        self.is_over = False

    def connected(self) -> None:
        """There is a new connection; a front end that guards it overrides this."""

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


def stream_call(
    caller: Caller, stream: Stream, method: str, params: "dict[str, Any]", timeout: float
) -> "Conversation[Any]":
    """One request and its answer on the stream's own connection; on a new one its claim and its leases come first."""
    lines = [request(method, params)]
    claimed = 0
    left = timeout
    deadline = time.monotonic() + timeout
    taken_until = 0.0
    pause = 0.01
    while True:
        if stream.sock is None:
            stream.sock = yield from connect(caller, caller.me(), CONTROL, deadline, may_start=True)
            stream.connected()
            # They wait only a moment for us.
            first = [request("take", {"take_id": held, "resume": True}) for held in sorted(stream.held)]
            if stream.claim is not None:
                first.insert(0, request("claim", stream.claim))
                claimed = 1
            lines = [*first, lines[-1]]
            left = max(0.0, deadline - time.monotonic())
        try:
            answers = yield Exchange(stream.sock, b"".join(lines), left, len(lines))
            for answer in answers[:claimed]:
                result_of(answer)
            result = result_of(answers[-1])
            if len(answers) < len(lines):  # that was the answer to one before ours
                raise ConnectionResetError(errno.ECONNRESET, "closed before it answered")
            return result
        except OSError as error:
            stream.close()
            if stream.is_over:  # let go of in another thread
                raise errors.LocalProtocolError(
                    f"the Agent {caller.me()} was closed meanwhile", hint="make a new one"
                ) from error
            give_up_if_over(error, caller.me(), deadline, timeout)
        except errors.BackchannelError as error:
            if error.code not in ("busy", "taken"):
                raise
            stream.close()
            taken_until = taken_until or time.monotonic() + CLAIM_S
            if time.monotonic() + pause > (deadline if error.code == "busy" else taken_until):
                raise
        except BaseException:
            stream.close()
            raise
        yield Sleep(pause)
        pause = min(pause * 2, 0.5)


def exchange(
    caller: Caller, name: str, socket: str, lines: list[bytes], timeout: float, *, may_start: bool = True
) -> "Conversation[list[bytes]]":
    now = time.monotonic()
    deadline = now + timeout
    left = timeout
    pause = 0.0
    while True:
        sock = caller.kept(name, socket, now)
        if sock is None:
            sock = yield from connect(caller, name, socket, deadline, may_start=may_start)
            left = max(0.0, deadline - time.monotonic())
        try:
            answers: list[bytes] = yield Exchange(sock, b"".join(lines), left, len(lines))
        except OSError as error:
            sock.close()
            give_up_if_over(error, name, deadline, timeout)
        except BaseException:
            sock.close()
            raise
        else:
            if not _is_busy(answers[0]) or time.monotonic() + pause > deadline:
                caller.keep(name, socket, sock)
                return answers
            sock.close()
            pause = pause or 0.005
        # A daemon that just died is started again by the next attempt; the first repetition comes at once.
        if pause:
            yield Sleep(pause)
        pause = min(pause * 2 or 0.005, 0.5)
        now = time.monotonic()
        left = max(0.0, deadline - now)


def connect(caller: Caller, name: str, socket: str, deadline: float, *, may_start: bool) -> "Conversation[Socket]":
    """A connection to NAME's socket, wherever it is served; its daemon is started if it may be and must be."""
    if may_start:  # else it is asked first whether the daemon runs: to connect may be to start it
        path = f"{caller.places.socket_dir}/{name}/{socket}"
        try:
            sock: Socket = yield Connect(path, max(0.0, deadline - time.monotonic()))
        except OSError:
            pass  # what it means, and what mends it, is found out below
        else:
            check_server(caller, name, sock, path)
            return sock
    from .reach import reach  # beside the fast path

    return (yield from reach(caller, name, socket, deadline, may_start=may_start))


def check_server(caller: Caller, name: str, sock: Socket, path: str) -> None:
    """Only NAME's daemon gets to see a text or a key; whoever else listens there is an impostor."""
    try:
        uid = peer_uid(sock)
        is_foreign = uid not in (os.geteuid(), 0)
        # If NAME was ours until now, the request that waits for this connection holds our key.
        if is_foreign and (caller.forget_address(name) or not caller.places.may_serve(name, uid)):
            raise NotPermitted(
                f"{path} is served by uid {uid}, which is not {name}'s", hint="somebody else's process listens there"
            )
    except BaseException:
        sock.close()
        raise


# --- helpers ---------------------------------------------------------------------------------------------------------


def request(method: str, params: "dict[str, Any]", rpc_id: int = 1, encoded: str = "") -> bytes:
    try:
        return encode_request(rpc_id, method, params, encoded)
    except UnicodeEncodeError:
        raise LocalProtocolError(
            "the text has a lone surrogate, which is no Unicode",
            code="malformed",
            hint="decode it with errors='replace'",
        ) from None
    except TypeError as error:
        raise LocalProtocolError(
            f"{method}: {error}", code="bad_params", hint="texts, numbers and headers only"
        ) from None


def result_of(line: bytes) -> "Any":
    if line.startswith(RESULT):  # nearly always
        try:
            return decode_result(line)
        except Malformed as wrong:
            raise _no_answer(wrong) from None
    _, outcome = numbered(line)
    if isinstance(outcome, errors.BackchannelError):
        raise outcome
    return outcome


def numbered(line: bytes) -> "tuple[int | None, Any]":
    """Which request a line answers (None: one that could not be read), and its result, or the exception it means."""
    try:
        answer = decode_answer(line)  # a daemon's: we looked at its uid
        if "result" in answer:
            return answer["id"], answer["result"]
        from ..protocol.codes import error_for  # beside the fast path

        error = answer["error"]
        data = error["data"]
        return answer["id"], error_for(
            data["code"], error["message"], hint=data["hint"], retry=data["retry"], reason=data.get("reason", "")
        )
    except (Malformed, KeyError, TypeError) as wrong:
        raise _no_answer(wrong) from None


def _no_answer(wrong: Exception) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"the answer was no JSON-RPC answer ({type(wrong).__name__})", hint="is the daemon of another version?"
    )


def _is_busy(line: bytes) -> bool:
    return line.startswith(b'{"jsonrpc":"2.0","id":null') and b'"busy"' in line


def is_crowded(line: bytes) -> bool:
    try:
        result_of(line)
    except errors.BackchannelError as error:
        return error.code in ("again", "busy")
    return False


def give_up_if_over(error: OSError, name: str, deadline: float, timeout: float) -> None:
    over = time.monotonic() >= deadline
    if over or error.errno in (errno.EAGAIN, errno.ETIMEDOUT):
        raise TimedOut(
            f"the daemon of {name} did not answer within {timeout:g} s",
            hint="is it stopped or overloaded?",
            waited=timeout,
        ) from None
    if error.errno not in _BROKEN and error.errno not in ABSENT and error.errno not in (errno.EINVAL, errno.EINTR):
        raise error


def new_id(prefix: str) -> str:
    try:
        random = Process.random.pop()
    except IndexError:
        bytes_of_many = os.urandom(10 * IDS_AT_ONCE)
        random, *more = [bytes_of_many[i : i + 10] for i in range(0, len(bytes_of_many), 10)]
        Process.random += more
    return make_id(prefix, time.time_ns() // 1_000_000, random)
