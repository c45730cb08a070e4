"""Backups beside the loop: a thread for each, since a large mailbox takes seconds to read and check.

The thread uses the mailbox's own connection, between the loop's transactions and a few pages at a time, and nothing
else of the daemon. That it ended well or badly is told in the loop.
"""

import os
import threading
from collections import deque

from ..errors import BackchannelError
from ..mailbox.backup import Copied, Copying

Outcome = Copied | BackchannelError


class Copier:
    """Runs backups. `fd` becomes readable when one ended; `done()` returns which, and how."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._done: deque[tuple[Copying, Outcome]] = deque()
        self._threads: dict[Copying, threading.Thread] = {}

    def start(self, copying: Copying) -> None:
        thread = threading.Thread(target=self._run, args=(copying,), name="backup", daemon=True)
        self._threads[copying] = thread
        thread.start()

    def done(self) -> list[tuple[Copying, Outcome]]:
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass
        ended = []
        while self._done:
            copying, outcome = self._done.popleft()
            self._threads.pop(copying).join()
            ended.append((copying, outcome))
        return ended

    def stop(self, copying: Copying) -> None:
        """Breaks it off; when this returns nothing of it touches the mailbox any more."""
        copying.stop()
        if (thread := self._threads.get(copying)) is not None:
            thread.join()

    def close(self) -> None:
        for copying in list(self._threads):
            self.stop(copying)
        os.close(self.fd)
        os.close(self._write_fd)

    def _run(self, copying: Copying) -> None:
        outcome: Outcome
        try:
            outcome = copying.run()
        except BackchannelError as error:
            outcome = error
        except Exception as error:
            outcome = BackchannelError(f"the backup failed ({type(error).__name__}: {error})", code="internal")
        self._done.append((copying, outcome))
        try:
            os.write(self._write_fd, b"\0")
        except BlockingIOError:
            pass  # the pipe is full of news already
