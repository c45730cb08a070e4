"""Carrying the courier's errands: connections out, written and read without ever waiting.

The same door as everybody's: the target's inbox, found where its lock says, its daemon started if it may be. Whoever
listens there must be its daemon by the kernel's word. A connection that brought its answer is kept for a moment: the
next errand to that target mostly comes at once, and a new connection costs both daemons more than the frame does.
"""

import errno
import os
import select
from collections.abc import Callable

from ..errors import BackchannelError
from ..transport.dial import Socket, connect_nonblocking, peer_uid
from ..transport.lock import served_in
from ..transport.paths import INBOX, Places
from ..transport.start import start
from .courier import Errand

ERRAND_S = 10.0  # from setting out to the last answer
KEPT_S = 1.0  # as the client library; the inbox itself lets go after five
KEPT_MAX = 64  # connections of a process, to all targets together; each has a place in somebody's inbox
READ_BYTES = 65536


class NobodyThere(Exception):
    """The target cannot be reached now; `is_final` if there is no such agent any more."""

    def __init__(self, why: str, *, is_final: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final


class Carriage:
    """A connection to one target's inbox, with one errand under way, or with none while it is kept.

    Tell it of its descriptor's events. `done` is called for each errand, once, with the answer or why there is none;
    and for a kept one that is over, without an errand.
    """

    def __init__(
        self, target: str, sock: Socket, done: Callable[["Carriage", Errand | None, bytes, str], None]
    ) -> None:
        self.target = target
        self.errand: Errand | None = None
        self.deadline = 0.0
        self.is_fresh = True  # connected for this errand; a kept one may be gone, which says nothing of its target
        self.is_closed = False
        self._sock = sock
        self._out = memoryview(b"")
        self._in = b""
        self._done = done

    @property
    def fd(self) -> int:
        return self._sock.fileno()

    @property
    def events(self) -> int:
        return select.EPOLLIN | (select.EPOLLOUT if self._out else 0)

    def carry(self, errand: Errand, now: float) -> None:
        """Sets out with it."""
        assert self.errand is None, "one at a time"
        self.errand = errand
        self.deadline = now + ERRAND_S
        self._out = memoryview(errand.line)
        self._write()

    def keep(self, now: float) -> None:
        """Waits for the next errand."""
        self.is_fresh = False
        self.deadline = now + KEPT_S

    def handle(self) -> None:
        """Moves on as far as the socket allows."""
        if self._out:
            self._write()
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(error.strerror or "the connection broke")
            return
        self._in += data
        answer, is_whole, rest = self._in.partition(b"\n")
        if is_whole and self.errand is not None:
            self._in = b""
            self.is_closed = bool(rest)  # more than was asked: it would be taken for the next answer
            self._finish(answer, "")
            if rest:
                self._sock.close()
        elif is_whole or not data:
            self.end("it closed the connection")

    def end(self, why: str) -> None:
        """It is over, and so is the errand under way."""
        self.is_closed = True
        self._finish(b"", why)
        self._sock.close()

    def _finish(self, answer: bytes, why: str) -> None:
        errand, self.errand = self.errand, None
        self._done(self, errand, answer, why)

    def _write(self) -> None:
        try:
            self._out = self._out[self._sock.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._out = memoryview(b"")  # what was refused unread may still be answered


def connect(places: Places, name: str) -> Socket:
    """A connection to NAME's inbox. Raises `NobodyThere`; a daemon that does not run is started for the next try."""
    try:
        return _connect(places, name)
    except (BackchannelError, OSError) as error:  # what stands in the way may be gone at the next try
        raise NobodyThere(str(error)) from None


def _connect(places: Places, name: str) -> Socket:
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
        return sock
    if not places.is_ours(name):
        is_known = name in places.registered()
        why = "its daemon does not run, and only its owner can start it" if is_known else f"there is no agent {name}"
        raise NobodyThere(why, is_final=not is_known)
    if os.path.exists(places.state(name, "down")):
        raise NobodyThere("it is down")
    if served is None:
        start(places, name)
    raise NobodyThere("its daemon is starting")
