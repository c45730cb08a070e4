"""Backups beside the loop: a thread for each, since a large mailbox takes seconds to read and check.

The thread uses the mailbox's own connection, between the loop's transactions and a few pages at a time, and nothing
else of the daemon. That it ended well or badly is told in the loop.
"""

import threading

from ..errors import BackchannelError
from ..mailbox.backup import Copied, Copying
from .news import News

Outcome = Copied | BackchannelError


class Copier:
    """Runs backups. `fd` becomes readable when one ended; `done()` returns which, and how."""

    def __init__(self) -> None:
        self._news: News[tuple[Copying, Outcome]] = News()
        self.fd = self._news.fd
        self._threads: dict[Copying, threading.Thread] = {}

    def start(self, copying: Copying) -> None:
        thread = threading.Thread(target=self._run, args=(copying,), name="backup", daemon=True)
        self._threads[copying] = thread
        thread.start()

    def done(self) -> list[tuple[Copying, Outcome]]:
        ended = self._news.take()
        for copying, _ in ended:
            self._threads.pop(copying).join()
        return ended

    def stop(self, copying: Copying) -> None:
        """Breaks it off; when this returns nothing of it touches the mailbox any more."""
        copying.stop()
        if (thread := self._threads.get(copying)) is not None:
            thread.join()

    def close(self) -> None:
        for copying in list(self._threads):
            self.stop(copying)
        self._news.close()

    def _run(self, copying: Copying) -> None:
        outcome: Outcome
        try:
            outcome = copying.run()
        except BackchannelError as error:
            outcome = error
        except Exception as error:
            outcome = BackchannelError(f"the backup failed ({type(error).__name__}: {error})", code="internal")
        self._news.tell((copying, outcome))
