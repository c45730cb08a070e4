"""The blocking driver: carries out what a conversation asks for, one system call after another."""

import errno
import time

from ..transport.dial import USUAL_ROOM_BYTES, Socket, connect, make_room, set_timeout
from .wire import Connect, Exchange, Race, Sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .wire import Conversation, T

READ_BYTES = 65536
ANSWER_BYTES_MAX = 64 << 20  # more than any daemon answers; a peer that goes on is no daemon


def run(conversation: "Conversation[T]") -> "T":
    """Carries a conversation to its end. Returns what it returns, raises what it raises.

    An interruption by the user is told to the conversation, which may have something to take back.
    """
    outcome: object = None
    step = conversation.send
    try:
        while True:
            wanted = step(outcome)
            try:
                if type(wanted) is Exchange:
                    outcome = exchange(wanted.sock, wanted.data, wanted.timeout, wanted.count)
                else:
                    outcome = _carry_out(wanted)
                step = conversation.send
            except (OSError, KeyboardInterrupt) as error:
                outcome = error
                step = conversation.throw
    except StopIteration as end:
        result: T = end.value
        return result


def _carry_out(wanted: object) -> object:
    if isinstance(wanted, Connect):
        return connect(wanted.path, wanted.timeout)
    if isinstance(wanted, Race):
        return race(wanted.requests, wanted.timeout)
    assert isinstance(wanted, Sleep)
    time.sleep(wanted.seconds)
    return None


def exchange(sock: Socket, data: bytes, timeout: float, count: int = 1) -> list[bytes]:
    """Sends, and reads `count` lines. Raises `OSError`; ECONNRESET if the other end closed first."""
    set_timeout(sock, timeout)
    if len(data) > USUAL_ROOM_BYTES:
        make_room(sock, len(data))
    try:
        sock.sendall(data)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise
        # Refused before it was read whole: the answer that says why is here already.
    chunk = sock.recv(READ_BYTES)
    if count == 1 and chunk.endswith(b"\n"):  # nearly always
        return [chunk]
    chunks: list[bytes] = []
    size = seen = 0
    while True:
        if not chunk:
            if seen:
                return b"".join(chunks).split(b"\n")[:seen]
            raise ConnectionResetError(errno.ECONNRESET, "closed before it answered")
        chunks.append(chunk)
        size += len(chunk)
        if b"\n" in chunk:  # of a long answer most have none, and to count or split takes thirty times as long
            if count == 1:
                return [chunk if len(chunks) == 1 else b"".join(chunks)]
            seen += chunk.count(b"\n")
            if seen >= count:
                return b"".join(chunks).split(b"\n")[:count]
        if size > ANSWER_BYTES_MAX:
            raise OSError(errno.EMSGSIZE, "the answer has no end")
        chunk = sock.recv(READ_BYTES)


def race(requests: list[tuple[Socket, bytes]], timeout: float) -> tuple[int, bytes]:
    """Sends each, and returns (which, line) for the first that answers. The others may be raced again."""
    import select

    deadline = time.monotonic() + timeout
    poll = select.poll()
    which = {}
    for index, (sock, data) in enumerate(requests):
        set_timeout(sock, timeout)
        if data:
            sock.sendall(data)
        which[sock.fileno()] = index
        poll.register(sock.fileno(), select.POLLIN)
    for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        index = which[fd]
        return index, exchange(requests[index][0], b"", max(0.0, deadline - time.monotonic()))[0]
    raise BlockingIOError(errno.EAGAIN, "no answer in time")
