"""Watching our socket directories with one inotify instance a process (a user has 128 of them).

It says only "something changed": whoever asked compares inodes itself. Where the kernel has no inotify, or no instance
left, `fd` is None and the daemon looks every 30 seconds instead.
"""

import os
from typing import Any

_IN_CLOEXEC = 0o2000000
_IN_NONBLOCK = 0o4000
_IN_CHANGES = 0x0040 | 0x0080 | 0x0100 | 0x0200 | 0x0400 | 0x0800  # moved from, to, create, delete, delete/move self


class DirectoryWatch:
    """`fd` becomes readable when an entry of a watched directory came, went or was replaced.

    Opened only when there is something to watch: a daemon with inherited sockets has nothing, and starts sooner.
    """

    def __init__(self) -> None:
        self.fd: int | None = None
        self._libc: Any = None

    def open(self) -> int | None:
        """The descriptor, or None where there is no inotify."""
        try:
            import ctypes

            self._libc = ctypes.CDLL(None, use_errno=True)
            fd = self._libc.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK)
        except (ImportError, MemoryError, OSError, AttributeError):  # hardened systems forbid what ctypes does
            return None
        self.fd = fd if fd >= 0 else None
        return self.fd

    def add(self, folder: str) -> bool:
        """Watches one more directory. False if that is not possible."""
        if self.fd is None:
            return False
        return bool(self._libc.inotify_add_watch(self.fd, os.fsencode(folder), _IN_CHANGES) >= 0)

    def drain(self) -> None:
        """Reads what is there, so that the descriptor falls silent."""
        assert self.fd is not None
        try:
            while os.read(self.fd, 65536):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
