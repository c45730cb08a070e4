"""Raw sockets in Python: what the machine allows a patient programmer, with nothing stored and nobody named.

The server is the one everybody writes with epoll: many connections at a time, each read as soon as it is accepted.
Every connect-and-echo is an acknowledged send and a round trip at once, so both tables have it.
"""

import select
import socket
import time
from collections.abc import Callable

from ..bench import Bench, Samples, flood, timed, timed_elsewhere
from ..helper import flood as flood_role
from ..helper import ready, tell
from ..sizes import BIG_TEXT, TEXT

READ_BYTES = 65536
BACKLOG = 512


def echoes(bench: Bench, connection: str) -> Samples:
    """Send, and receive the same; over one connection, or socket, connect and close each time."""
    bench.helper(f"{__name__}:echo", bench.path("echo"))
    return timed(_echoing(bench.path("echo"), connection), bench.sizes.messages)


def big_echoes(bench: Bench) -> Samples:
    """1 MiB each way over one connection, received whole into a buffer that is there already."""
    bench.helper(f"{__name__}:big_echo", bench.path("echo"))
    data, buffer = BIG_TEXT.encode(), bytearray(len(BIG_TEXT))
    with _connected(bench.path("echo")) as sock:

        def once() -> None:
            sock.sendall(data)
            receive_whole(sock, buffer)

        return timed(once, bench.sizes.big)


def one_way(bench: Bench, idle_s: float) -> Samples:
    """socket, connect, send, until another process has the bytes."""
    receiver = bench.helper(f"{__name__}:receiver", bench.path("receiver"))

    def once() -> None:
        with _connected(bench.path("receiver")) as sock:
            sock.sendall(TEXT.encode())

    return timed_elsewhere(once, receiver, bench.sizes.one_way, idle_s)


def senders(bench: Bench, senders: int, connection: str) -> Samples:
    """Several processes with one echo server."""
    bench.helper(f"{__name__}:echo", bench.path("echo"))
    count = bench.sizes.flood
    role = f"{__name__}:sender"
    helpers = [bench.helper_unready(role, bench.path("echo"), connection, str(count)) for _ in range(senders)]
    return flood(helpers, count)


# --- roles ------------------------------------------------------------------------------------------------------------


def echo(path: str) -> None:
    """Sends back what comes, to many at a time."""
    listener = _listen(path)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    links: dict[int, socket.socket] = {}

    def serve(link: socket.socket) -> None:
        try:
            data = link.recv(READ_BYTES)
        except BlockingIOError:
            return
        if data:
            link.send(data)
        else:
            del links[link.fileno()]
            link.close()

    ready()
    while True:
        for fd, _ in epoll.poll():
            if fd != listener.fileno():
                serve(links[fd])
                continue
            try:
                link, _ = listener.accept()
            except BlockingIOError:
                continue
            link.setblocking(False)
            links[link.fileno()] = link
            epoll.register(link, select.EPOLLIN)
            serve(link)


def big_echo(path: str) -> None:
    """One connection, bodies of one known size."""
    listener = _listen(path)
    buffer = bytearray(len(BIG_TEXT))
    ready()
    link, _ = listener.accept()
    while receive_whole(link, buffer):
        link.sendall(buffer)


def receiver(path: str) -> None:
    """Tells when it has the bytes of each connection."""
    listener = _listen(path)
    ready()
    while True:
        link, _ = listener.accept()
        with link:
            link.recv(READ_BYTES)
            tell(time.monotonic_ns())


def sender(path: str, connection: str, count: str) -> None:
    flood_role(_echoing(path, connection), int(count))


# --- helpers ----------------------------------------------------------------------------------------------------------


def receive_whole(sock: socket.socket, buffer: bytearray) -> int:
    """Fills the buffer. Returns its length, or 0 if the other end closed before."""
    return sock.recv_into(buffer, 0, socket.MSG_WAITALL) // len(buffer) * len(buffer)


def _echoing(path: str, connection: str) -> Callable[[], None]:
    data = TEXT.encode()
    if connection == "new":

        def once() -> None:
            with _connected(path) as sock:
                sock.sendall(data)
                sock.recv(READ_BYTES)

        return once
    sock = _connected(path)

    def again() -> None:
        sock.sendall(data)
        sock.recv(READ_BYTES)

    return again


def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return sock


def _listen(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen(BACKLOG)
    return sock
