"""Getting the log onto the disk itself: in the loop while somebody waits and the disk is quick, else beside it.

A commit survives the death of every process as soon as it returned; a power cut it survives once the log was flushed.
A flush begins at most 10 ms after the oldest unflushed commit; receipts that promised more wait for theirs, and all
that wait share one: who comes during it is in the next. To hand a flush to a thread and to hear of its end costs nearly
as much as the flush of a quick disk; a slow one would stop the other names of the process and whoever reads, so there
it is worth that.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import NamedTuple

from .news import News

FLUSH_AFTER_S = 0.010
HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24  # of a log, https://www.sqlite.org/fileformat2.html#walformat
QUICK_S = 0.002  # what everybody may wait for a flush in the loop: twenty sends; a good disk takes a tenth of it
LAST = 8  # flushes decide whether the disk is quick,
SLOW_MAX = 2  # of them may have been slow: on a busy machine some always are
AHEAD = bytes(512 << 10)  # written behind the log at a time: a hundred messages of room for half a millisecond


class Flush(NamedTuple):
    """One that ended: of which log, up to which of its commits, and what went wrong."""

    log: "Log"
    upto: int
    error: OSError | None


class Flusher:
    """Runs fdatasync: `flush` here and now, `ask` in a thread. Then `fd` becomes readable when a flush ended, and
    `done()` returns which."""

    def __init__(self, sync: Callable[[int], None] = os.fdatasync) -> None:
        self._news: News[Flush] = News()
        self.fd = self._news.fd
        self._sync = sync
        self._was_slow: deque[bool] = deque(maxlen=LAST)
        self._asked: SimpleQueue[tuple[Log, int] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
        self._thread.start()

    @property
    def is_quick(self) -> bool:
        return self._was_slow.count(True) <= SLOW_MAX

    def flush(self, log: "Log", upto: int) -> Flush:
        begun = time.monotonic()
        error = None
        try:
            self._sync(log.fd)
        except OSError as failed:
            error = failed
        self._was_slow.append(time.monotonic() - begun > QUICK_S)
        return Flush(log, upto, error)

    def ask(self, log: "Log", upto: int) -> None:
        self._asked.put((log, upto))

    def done(self) -> list[Flush]:
        """The flushes of the thread that ended since the last call."""
        return self._news.take()

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()
        self._news.close()

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            self._news.tell(self.flush(*asked))


class Log:
    """One mailbox's write-ahead log: how far it was committed, how far flushed, and what waits for that.

    Opened once and kept: it is a file of its own, so closing it could not drop SQLite's locks on the mailbox.
    """

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._committed = 0
        self._size = 0  # of the file, with the zeros behind the log
        self.is_closed = False
        self._in_flight = False
        self._since: float | None = None
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    def committed(self, now: float) -> None:
        """A commit returned."""
        self._committed += 1
        if self._since is None:
            self._since = now

    def is_longer_than(self, size: int) -> bool:
        """Whether more than `size` bytes of it are in use.

        After a checkpoint SQLite writes it anew from the beginning, and the file keeps its length. What belongs to the
        log as it is now bears the two numbers (the salt) that stand in its header.
        """
        header = os.pread(self.fd, HEADER_BYTES, 0)
        frame_bytes = FRAME_HEADER_BYTES + int.from_bytes(header[8:12], "big")
        begins = HEADER_BYTES + size // frame_bytes * frame_bytes
        salt = os.pread(self.fd, 8, begins + 8)
        return len(salt) == 8 and salt == header[16:24]

    def after_flush(self, action: Callable[[], None]) -> None:
        """Runs `action` once everything committed so far is on the disk."""
        self._waiting.append((self._committed, action))

    @property
    def deadline(self) -> float | None:
        """When a flush must begin."""
        if self._in_flight:
            return None
        if self._waiting:
            return 0.0  # at once, even if nothing was committed: a repeated push may ask for more than the first did
        return None if self._since is None else self._since + FLUSH_AFTER_S

    @property
    def is_awaited(self) -> bool:
        """Whether an answer waits for a flush."""
        return bool(self._waiting)

    def begin(self, now: float) -> int | None:
        """Up to which commit a flush has to begin now; tell `flushed` when it ended. None: not yet.

        One at a time: the kernel tells a failure to one of the calls that were under way on a descriptor, and the other
        would promise what is lost.
        """
        deadline = self.deadline
        if deadline is None or deadline > now:
            return None
        self._in_flight = True
        self._since = None
        return self._committed

    def make_room(self) -> None:
        """Writes zeros behind a log that has grown: SQLite takes them for its end, and soon writes over them.

        To flush a file that has grown takes twice as long as to flush one that keeps its size, whose description need
        not be written too. Only for the thread that commits: nobody else may write where the log ends.
        """
        size = os.lseek(self.fd, 0, os.SEEK_END)  # no fstat: who has looked at the times gets new ones, to be flushed
        if size != self._size:
            with suppress(OSError):  # a full disk: then the flush takes as long as it takes
                self._size = size + os.pwrite(self.fd, AHEAD, size)

    def flushed(self, upto: int, now: float) -> None:
        """A flush ended well: what waited for it happens now."""
        self._in_flight = False
        if self.is_closed:
            os.close(self.fd)
            return
        while self._waiting and self._waiting[0][0] <= upto:
            self._waiting.popleft()[1]()
        if self._waiting and self._since is None:
            self._since = now

    def close(self) -> None:
        """Lets go of the file, once no flush needs its descriptor."""
        self.is_closed = True
        if not self._in_flight:
            os.close(self.fd)
