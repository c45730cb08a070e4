"""Carrying the courier's errands: one connection out for each, written and read without ever waiting.

The same door as everybody's: the target's inbox, found where its lock says, its daemon started if it may be. Whoever
listens there must be its daemon by the kernel's word.
"""

import errno
import os
import select
import socket
from collections.abc import Callable

from ..errors import BackchannelError
from ..transport.dial import connect_nonblocking, peer_uid
from ..transport.lock import served_in
from ..transport.paths import INBOX, Places
from ..transport.start import start
from .courier import Errand

ERRAND_S = 10.0  # from connecting to the last answer
READ_BYTES = 65536


class NobodyThere(Exception):
    """The target cannot be reached now; `is_final` if there is no such agent any more."""

    def __init__(self, why: str, *, is_final: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final


class Carriage:
    """One errand under way. Tell it of its descriptor's events; `done` is called once, with the answer or an error."""

    def __init__(
        self, errand: Errand, sock: socket.socket, deadline: float, done: Callable[["Carriage", bytes, str], None]
    ) -> None:
        self.errand = errand
        self.deadline = deadline
        self._sock = sock
        self._out = memoryview(errand.line)
        self._in = b""
        self._done = done

    @property
    def fd(self) -> int:
        return self._sock.fileno()

    @property
    def events(self) -> int:
        return select.EPOLLIN | (select.EPOLLOUT if self._out else 0)

    def handle(self) -> None:
        """Moves on as far as the socket allows."""
        try:
            if self._out:
                self._out = self._out[self._sock.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._out = memoryview(b"")  # what was refused unread may still be answered
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(error.strerror or "the connection broke")
            return
        self._in += data
        if b"\n" in self._in:
            self.end("")
        elif not data:
            self.end("it closed the connection")

    def end(self, why: str) -> None:
        """It is over; without `why`, with what was answered."""
        self._done(self, self._in.partition(b"\n")[0], why)
        self._sock.close()


def connect(places: Places, name: str) -> socket.socket:
    """A connection to NAME's inbox. Raises `NobodyThere`; a daemon that does not run is started for the next try."""
    try:
        return _connect(places, name)
    except (BackchannelError, OSError) as error:  # what stands in the way may be gone at the next try
        raise NobodyThere(str(error)) from None


def _connect(places: Places, name: str) -> socket.socket:
    served = served_in(places.state(name, "lock"))
    for folder in dict.fromkeys((places.socket_dir, served or places.socket_dir)):
        try:
            sock = connect_nonblocking(f"{folder}/{name}/{INBOX}")
        except BlockingIOError:
            raise NobodyThere("it does not take connections") from None
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
                raise NobodyThere(error.strerror or "no connection") from None
            continue
        try:
            uid = peer_uid(sock)
            if not places.may_serve(name, uid):
                raise NobodyThere(f"uid {uid} listens there, which is not its daemon's")
        except BaseException:
            sock.close()
            raise
        return socket.socket(fileno=sock.detach())
    if not places.is_ours(name):
        is_known = name in places.registered()
        why = "its daemon does not run, and only its owner can start it" if is_known else f"there is no agent {name}"
        raise NobodyThere(why, is_final=not is_known)
    if os.path.exists(places.state(name, "down")):
        raise NobodyThere("it is down")
    if served is None:
        start(places, name)
    raise NobodyThere("its daemon is starting")
