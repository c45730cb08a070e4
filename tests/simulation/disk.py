"""One daemon's files: what a kill leaves of them, what a power cut takes, and a disk that refuses.

The connection is SQLite's own, made by production code; ours only counts the statements on their way to it, and may
end one of them badly. Files lie in a tmpfs where there is one: no fault here depends on what a real disk does.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backchannel.mailbox import database

NAME = "mailbox.db"
SUFFIXES = ("", "-wal")
OWN_PID = b'"pid":%d' % os.getpid()  # differs from run to run, so it is no part of a trace


class Killed(BaseException):
    """The process is dead, here. Not an Exception: nobody in the daemon may catch a SIGKILL."""


class Fuse:
    """Burns with every statement that writes, or with those that begin with `only`, and fires at the `left`-th;
    `sticky`: and at all that follow it."""

    def __init__(
        self, left: int, fire: Callable[[sqlite3.Connection, str], None], *, only: str = "", sticky: bool = False
    ) -> None:
        self.left = left
        self.only = only
        self.on_fire: Callable[[], None] = lambda: None
        self.fired = ""
        self._fire = fire
        self._sticky = sticky

    def burn(self, db: sqlite3.Connection, statement: str) -> None:
        if statement.startswith(("ROLLBACK", "SELECT", "PRAGMA")) or not statement.startswith(self.only):
            return
        self.left -= 1
        if self.left == 0 or (self._sticky and self.left < 0):
            if not self.fired:
                self.fired = statement.split(" ", 1)[0]
                self.on_fire()
            self._fire(db, statement)


class Counting(sqlite3.Connection):
    """A connection whose statements pass a fuse, if one is lit."""

    fuse: Fuse | None = None

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if self.fuse is not None:
            self.fuse.burn(self, statement)
        return sqlite3.Cursor(self).execute(statement, *parameters)

    def cursor(self, *_: Any) -> sqlite3.Cursor:  # type: ignore[override]
        return _Counting(self)


class _Counting(sqlite3.Cursor):
    def execute(self, statement: str, *parameters: Any) -> "_Counting":
        fuse = self.connection.fuse  # type: ignore[attr-defined]
        if fuse is not None:
            fuse.burn(self.connection, statement)
        super().execute(statement, *parameters)
        return self


@contextmanager
def counting() -> Iterator[None]:
    """Mailboxes opened inside have connections that count."""
    plain = sqlite3.connect

    def connect(path: str, **options: Any) -> sqlite3.Connection:
        return plain(path, factory=Counting, **options)

    sqlite3.connect = connect  # type: ignore[assignment]
    try:
        yield
    finally:
        sqlite3.connect = plain


def failure(code: int, words: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(words)
    error.sqlite_errorcode = code
    return error


def kill(_db: sqlite3.Connection, _statement: str) -> None:
    raise Killed


def is_full(_db: sqlite3.Connection, _statement: str) -> None:
    raise failure(sqlite3.SQLITE_FULL, "database or disk is full")


def is_full_and_rolls_back(db: sqlite3.Connection, _statement: str) -> None:
    """As SQLite does by itself when it finds the disk full in the middle of a change."""
    if db.in_transaction:
        sqlite3.Cursor(db).execute("ROLLBACK")
    raise failure(sqlite3.SQLITE_FULL, "database or disk is full")


def fails(_db: sqlite3.Connection, _statement: str) -> None:
    raise failure(sqlite3.SQLITE_IOERR, "disk I/O error")


class Files:
    """Where one daemon keeps its mailbox. `snapshot`: what the disk surely holds; a power cut may go back there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = str(folder / NAME)
        self.snapshot: dict[str, bytes] | None = None
        self.lose()

    def lose(self) -> None:
        """A file that nobody has used yet: it has a schema, for speed, and no mailbox_id."""
        self._clear()
        shutil.copyfile(template(), self.path)

    def wal_bytes(self) -> int:
        try:
            return os.stat(self.path + "-wal").st_size
        except FileNotFoundError:
            return 0

    def take_snapshot(self) -> None:
        self.snapshot = {suffix: Path(self.path + suffix).read_bytes() for suffix in SUFFIXES if self._has(suffix)}

    def go_back(self) -> None:
        """The power was cut: what was written since the snapshot never reached the disk."""
        assert self.snapshot is not None
        self._clear()
        for suffix, content in self.snapshot.items():
            Path(self.path + suffix).write_bytes(content)
        self.snapshot = None

    def abandon(self, db: sqlite3.Connection | None = None, *, torn_at: int | None = None) -> None:
        """The process that had them open is dead. They become other files with the same content, for SQLite in this
        process still holds locks on the old ones. `torn_at`: so much of the log was written."""
        dead = self.path + "-dead"
        for suffix in SUFFIXES:
            if self._has(suffix):
                os.rename(self.path + suffix, dead + suffix)
                shutil.copyfile(dead + suffix, self.path + suffix)
                os.unlink(dead + suffix)
        if db is not None:
            db.close()
        if torn_at is not None:
            os.truncate(self.path + "-wal", torn_at)

    def _has(self, suffix: str) -> bool:
        return os.path.exists(self.path + suffix)

    def _clear(self) -> None:
        for suffix in SUFFIXES:
            Path(self.path + suffix).unlink(missing_ok=True)


def folder() -> str:
    tmpfs = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.mkdtemp(prefix="backchannel-simulation-", dir=tmpfs)


_template = ""


def template() -> str:
    """An empty mailbox with today's schema: making it anew for every daemon would cost more than all else."""
    global _template
    if not _template or not os.path.exists(_template):
        home = tempfile.TemporaryDirectory(prefix="backchannel-template-")
        _homes.append(home)
        _template = os.path.join(home.name, NAME)
        database.open_database(_template).close()
    return _template


_homes: list[tempfile.TemporaryDirectory[str]] = []  # removed when the interpreter ends
