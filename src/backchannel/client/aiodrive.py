"""The asyncio driver: carries out what a conversation asks for, on the running loop.

Raw non-blocking sockets: streams would cost twice the round trip, and asyncio's own connect reports success on a full
backlog. A task that is cancelled in the middle of a call costs that call's connection, nothing else.
"""

import asyncio
import errno
from typing import TYPE_CHECKING

from ..transport.dial import USUAL_ROOM_BYTES, Socket, connect_nonblocking, make_room
from .drive import ANSWER_BYTES_MAX, READ_BYTES
from .wire import Connect, Exchange, Race, Sleep

if TYPE_CHECKING:
    from .wire import Conversation, T

BACKLOG_PAUSE_S = 0.005  # between two attempts on a full backlog; the kernel offers nothing to wait for


async def run(conversation: "Conversation[T]") -> "T":
    """Carries a conversation to its end. Returns what it returns, raises what it raises."""
    outcome: object = None
    step = conversation.send
    try:
        while True:
            wanted = step(outcome)
            try:
                outcome = await _carry_out(wanted)
                step = conversation.send
            except (OSError, asyncio.CancelledError) as error:
                outcome = error
                step = conversation.throw
    except StopIteration as end:
        result: T = end.value
        return result


async def _carry_out(wanted: object) -> object:
    if isinstance(wanted, Exchange):
        try:
            async with asyncio.timeout(max(0.001, wanted.timeout)):
                return await _exchange(wanted.sock, wanted.data, wanted.count)
        except TimeoutError:
            raise BlockingIOError(errno.EAGAIN, "no answer in time") from None
    if isinstance(wanted, Connect):
        return await _connect(wanted.path, wanted.timeout)
    if isinstance(wanted, Race):
        return await _race(wanted)
    assert isinstance(wanted, Sleep)
    await asyncio.sleep(wanted.seconds)
    return None


async def _connect(path: str, timeout: float) -> Socket:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        try:
            return connect_nonblocking(path)
        except BlockingIOError:
            if loop.time() >= deadline:
                raise
        await asyncio.sleep(BACKLOG_PAUSE_S)


async def _exchange(sock: Socket, data: bytes, count: int) -> list[bytes]:
    loop = asyncio.get_running_loop()
    if len(data) > USUAL_ROOM_BYTES:
        make_room(sock, len(data))
    try:
        await loop.sock_sendall(sock, data)  # type: ignore[arg-type]
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise
        # Refused before it was read whole: the answer that says why is here already.
    chunks: list[bytes] = []
    size = seen = 0
    while seen < count:
        chunk = await loop.sock_recv(sock, READ_BYTES)  # type: ignore[arg-type]
        if not chunk:
            if seen:
                break
            raise ConnectionResetError(errno.ECONNRESET, "closed before it answered")
        chunks.append(chunk)
        size += len(chunk)
        if b"\n" in chunk:
            seen += chunk.count(b"\n")
        elif size > ANSWER_BYTES_MAX:
            raise OSError(errno.EMSGSIZE, "the answer has no end")
    received = b"".join(chunks)
    return received.split(b"\n")[: min(seen, count)] if count > 1 else [received]


async def _race(race: Race) -> tuple[int, bytes]:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[int] = loop.create_future()
    for index, (sock, data) in enumerate(race.requests):
        if data:
            await loop.sock_sendall(sock, data)  # type: ignore[arg-type]
        loop.add_reader(sock.fileno(), _set, ready, index)
    try:
        async with asyncio.timeout(max(0.001, race.timeout)):
            index = await ready
    except TimeoutError:
        raise BlockingIOError(errno.EAGAIN, "no answer in time") from None
    finally:
        for sock, _ in race.requests:
            loop.remove_reader(sock.fileno())
    lines = await _exchange(race.requests[index][0], b"", 1)
    return index, lines[0]


def _set(future: "asyncio.Future[int]", value: int) -> None:
    if not future.done():
        future.set_result(value)
