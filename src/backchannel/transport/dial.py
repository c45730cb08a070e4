"""Connecting to a daemon's socket: the client's half of the transport.

Blocking sockets with the kernel's own timeouts (SO_SNDTIMEO, SO_RCVTIMEO): Python's would poll before every call, and
its connect does not wait for a place in a full backlog.
"""

import os
from _socket import (
    AF_UNIX,
    SO_PEERCRED,
    SO_RCVTIMEO,
    SO_SNDBUF,
    SO_SNDTIMEO,
    SOCK_CLOEXEC,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

from .paths import SOCKET_PATH_BYTES_MAX

USUAL_ROOM_BYTES = 128 << 10  # what fits into a socket nobody changed, 208 KiB with the kernel's own part
ROOM_BYTES_MAX = 2 << 20
TIMEOUT_STEP_MS = 10  # a timeout of a second or more is rounded up to this, so that most calls set none anew


class Socket(socket):
    """The plain type, without what the `socket` module adds; it knows which timeout was set last."""

    __slots__ = ("timeout", "timeout_ms")

    timeout: float  # as it was asked for
    timeout_ms: int  # as it was set


def connect(path: str, timeout: float) -> Socket:
    """A connected socket whose sends and receives wait at most `timeout` seconds.

    Raises `OSError`: ENOENT (nobody), ECONNREFUSED (a socket without its daemon), EACCES, EAGAIN (the daemon did not
    take the connection in time).
    """
    sock = Socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    sock.timeout, sock.timeout_ms = -1.0, 0
    try:
        set_timeout(sock, timeout)
        _connect(sock, path)
    except BaseException:
        sock.close()
        raise
    return sock


def connect_nonblocking(path: str) -> Socket:
    """As `connect`, without waiting: EAGAIN at once if the backlog is full. The socket stays non-blocking."""
    sock = Socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    sock.setblocking(False)
    try:
        _connect(sock, path)
    except BaseException:
        sock.close()
        raise
    return sock


def set_timeout(sock: Socket, timeout: float) -> None:
    """How long one send or receive may take, seconds (at least a millisecond: the kernel reads 0 as for ever)."""
    if timeout == sock.timeout:  # nearly always
        return
    sock.timeout = timeout
    timeout_ms = int(max(timeout, 0.0) * 1000) + 1
    if timeout_ms > 1000:
        timeout_ms = -(-timeout_ms // TIMEOUT_STEP_MS) * TIMEOUT_STEP_MS
    if timeout_ms == sock.timeout_ms:
        return
    sock.timeout_ms = timeout_ms
    value = _timeval(timeout_ms)
    sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, value)
    sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, value)


def make_room(sock: socket, size: int) -> None:
    """Lets the kernel hold what is sent next, so far as it allows, if it is more than `USUAL_ROOM_BYTES`: else a long
    line goes in pieces, and both ends are woken for each."""
    sock.setsockopt(SOL_SOCKET, SO_SNDBUF, min(size, ROOM_BYTES_MAX))


def peer_uid(sock: socket) -> int:
    """The uid of the process that listens at the other end, by the kernel's word."""
    return int.from_bytes(sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[4:8], "little")


def peer_pid(sock: socket) -> int:
    """The pid of the process that listens at the other end. To show, or to signal; never to decide on."""
    return int.from_bytes(sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[:4], "little")


def _timeval(milliseconds: int) -> bytes:
    seconds, rest = divmod(milliseconds, 1000)
    return seconds.to_bytes(8, "little") + (rest * 1000).to_bytes(8, "little")


def _connect(sock: Socket, path: str) -> None:
    size = len(path) if path.isascii() else len(os.fsencode(path))
    if size <= SOCKET_PATH_BYTES_MAX:
        sock.connect(path)
    else:
        _connect_far(sock, path)


def _connect_far(sock: Socket, path: str) -> None:
    """Through a descriptor of the directory: the kernel takes 107 bytes of path, file systems far more."""
    folder, _, file = path.rpartition("/")
    fd = os.open(folder, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{fd}/{file}")
    finally:
        os.close(fd)
