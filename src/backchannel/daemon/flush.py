"""Getting the log onto the disk itself, beside the loop: one thread for all names of a process.

A commit survives the death of every process as soon as it returned; a power cut it survives once the log was flushed.
A flush begins at most 10 ms after the oldest unflushed commit; receipts that promised more wait for theirs, and all
that wait share one. fdatasync releases the interpreter, so the loop goes on meanwhile.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

FLUSH_AFTER_S = 0.010
HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24  # of a log, https://www.sqlite.org/fileformat2.html#walformat


class FlushThread:
    """Runs fdatasync when asked. `fd` becomes readable when a flush ended; `done()` returns which."""

    def __init__(self, sync: Callable[[int], None] = os.fdatasync) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._sync = sync
        self._asked: SimpleQueue[tuple[Log, int] | None] = SimpleQueue()
        self._done: deque[tuple[Log, int, OSError | None]] = deque()
        self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
        self._thread.start()

    def ask(self, log: "Log", upto: int) -> None:
        self._asked.put((log, upto))

    def done(self) -> "list[tuple[Log, int, OSError | None]]":
        """The flushes that ended since the last call: which log, up to which commit, and what went wrong."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass
        ended = []
        while self._done:
            ended.append(self._done.popleft())
        return ended

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()
        os.close(self.fd)
        os.close(self._write_fd)

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            log, upto = asked
            error = None
            try:
                self._sync(log.fd)
            except OSError as failed:
                error = failed
            self._done.append((log, upto, error))
            try:
                os.write(self._write_fd, b"\0")
            except BlockingIOError:
                pass  # the pipe is full of news already


class Log:
    """One mailbox's write-ahead log: how far it was committed, how far flushed, and what waits for that.

    Opened once and kept: it is a file of its own, so closing it could not drop SQLite's locks on the mailbox.
    """

    def __init__(self, path: str, thread: FlushThread) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._thread = thread
        self._committed = 0
        self._asked = 0
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

    def handle_timer(self, now: float) -> None:
        deadline = self.deadline
        if deadline is None or deadline > now:
            return
        self._in_flight = True
        self._asked = self._committed
        self._since = None
        self._thread.ask(self, self._asked)

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
