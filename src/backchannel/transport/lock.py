"""The lock on a name: who holds `STATE/NAME/lock` is its daemon, and says in it where it serves.

`flock`, because the kernel lets go of it at the instant the process dies; a pid file would go on lying.
"""

import os
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock


class NameLock:
    """The held lock. Keep it for as long as the mailbox is open."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, socket_dir: str) -> None:
        """Tells those who look elsewhere where this name is served."""
        line = os.fsencode(socket_dir) + b"\n"
        os.pwrite(self._fd, line, 0)
        os.ftruncate(self._fd, len(line))

    def close(self) -> None:
        os.close(self._fd)


def acquire(path: str) -> NameLock | None:
    """The lock, or None if somebody holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return NameLock(fd)


def served_in(path: str) -> str | None:
    """The socket directory of the daemon that holds the lock, or None if nobody holds it.

    To look is to hold it for an instant; a daemon that starts just then tries again.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        flock(fd, LOCK_SH | LOCK_NB)
        flock(fd, LOCK_UN)
        return None
    except BlockingIOError:
        return os.read(fd, 4096).decode("utf-8", "surrogateescape").strip()
    finally:
        os.close(fd)
