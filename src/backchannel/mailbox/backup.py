"""A second copy of a mailbox, and putting one back.

`Copying` goes through SQLite's backup API on the one connection there is: what is committed meanwhile is in the copy
too, and nothing else may open the file. The copy is checked before it gets its name, so a file with that name is whole;
it is 0600 from its first instant, and one file without a log beside it.

`restore` puts a checked copy in the place of the mailbox, which is kept. The copy gets a new mailbox_id: what happened
after it was made is unknown to it, and nobody may take it for the file that knew (docs/protocol.md 1).
"""

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from typing import NamedTuple

from ..errors import BackchannelError, LocalProtocolError, NotPermitted, OverLimit
from .database import NEWER, UNFINISHED, MailboxUnusable, check_header, damaged, found_first

PAGES_A_STEP = 64  # the mailbox's own work waits for a step at most: some tenths of a millisecond
PAUSE_S = 0.001  # between two steps, for that work; a hundred megabytes a second are left
LOCKED_S = 0.002  # until it is tried again, while a transaction is open
FOLDER = "backups"
HOW_TO_MAKE_ONE = "backchannel backup NAME makes one"


class Copied(NamedTuple):
    """A finished backup."""

    path: str
    bytes: int


class Stopped(Exception):
    """The daemon ends; the backup that was under way is no more."""


class Copying:
    """One backup under way, in a thread of its own. `stop` may be called by another."""

    def __init__(self, db: sqlite3.Connection, path: str, *, reserve_bytes: int) -> None:
        self._db = db
        self._path = path
        self._reserve_bytes = reserve_bytes
        self._is_stopped = False
        self._target: sqlite3.Connection | None = None

    def stop(self) -> None:
        """Ends it soon, with nothing left of it."""
        self._is_stopped = True
        target = self._target
        try:
            if target is not None:
                target.interrupt()
        except sqlite3.ProgrammingError:
            pass  # closed in this moment: it is over

    def run(self) -> Copied:
        """Copies, checks, and gives the file its name. Raises `BackchannelError` with why there is none."""
        temporary = f"{self._path}.{os.getpid()}{UNFINISHED}"
        try:
            self._require_room()
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            try:
                self._fill(temporary)
                size = _sync(temporary)
                _give_name(temporary, self._path)
            finally:
                if os.path.lexists(temporary):
                    os.unlink(temporary)
            _sync(os.path.dirname(self._path))
        except (OSError, sqlite3.Error, Stopped) as error:
            if self._is_stopped:
                raise BackchannelError(
                    f"the backup {self._path} was broken off: the daemon ends", code="storage", hint="try again"
                ) from None
            raise _failure(self._path, error) from error
        return Copied(self._path, size)

    def _require_room(self) -> None:
        folder = os.path.dirname(self._path)
        if os.path.lexists(self._path):
            raise FileExistsError(errno.EEXIST, "exists", self._path)
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = self._db.execute("PRAGMA page_size").fetchone()
        status = os.statvfs(folder)
        is_same_disk = os.stat(folder).st_dev == os.stat(self._mailbox_path()).st_dev
        wanted = pages * page_bytes + (self._reserve_bytes if is_same_disk else 0)
        if status.f_bavail * status.f_frsize < wanted:
            raise OSError(errno.ENOSPC, "no room", self._path)

    def _mailbox_path(self) -> str:
        path: str = self._db.execute("PRAGMA database_list").fetchone()[2]
        return path

    def _fill(self, path: str) -> None:
        self._target = target = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            target.execute("PRAGMA journal_mode=OFF")  # until it has its name, it need not survive anything
            target.execute("PRAGMA synchronous=OFF")
            self._db.backup(target, pages=PAGES_A_STEP, progress=self._progressed, sleep=LOCKED_S)
            target.execute("PRAGMA journal_mode=DELETE")
            target.execute(
                "UPDATE meta SET value = 0 WHERE key = 'clean'"
            )  # nobody has closed it: its start looks again
            if (found := _integrity(target)) != "ok":
                raise damaged(self._mailbox_path(), found)
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # of a disk, or an interruption
                raise
            raise damaged(self._mailbox_path(), str(error)) from error
        finally:
            self._target = None
            target.close()

    def _progressed(self, _status: int, _remaining: int, _total: int) -> None:
        if self._is_stopped:
            raise Stopped
        time.sleep(PAUSE_S)


def _give_name(temporary: str, path: str) -> None:
    """Unlike a rename a link fails if there is a file already. Where a disk has no links (FAT, of a stick) it is one
    all the same: who makes a file of that name in this very instant loses it."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "exists", path) from None
        os.rename(temporary, path)


def default_path(mailbox: str, name: str, wall: float) -> str:
    """Where a backup goes that nobody named a place for; its directory is made, and rid of what a kill left half.

    Nothing else is being backed up: the caller has seen to that. Raises `BackchannelError`.
    """
    folder = os.path.join(os.path.dirname(mailbox), FOLDER)
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        for file in os.listdir(folder):
            if file.endswith(UNFINISHED):
                os.unlink(os.path.join(folder, file))
    except (FileExistsError, NotADirectoryError):
        raise BackchannelError(
            f"{folder} is no directory", code="storage", hint=f"move it away, or name a file: ls -ld {folder}"
        ) from None
    except OSError as error:
        raise _failure(folder, error) from error
    return _unused(os.path.join(folder, f"{name}-{_stamp(wall)}"), ".db")


class Restored(NamedTuple):
    """What now lies in the mailbox's place. `kept` is where the one before is; None if there was none."""

    mailbox_id: str
    kept: str | None
    messages: int
    waiting: int
    outbox: int
    open_sessions: int


def restore(mailbox: str, source: str, *, random: Callable[[int], bytes], wall: float) -> Restored:
    """Puts a copy of the backup `source` in the place of `mailbox`; the caller holds the name's lock.

    Raises `MailboxUnusable` for a file that is none or is damaged, `BackchannelError` for one that cannot be read and
    for a disk that does not take it; everything is then as it was.
    """
    source = os.path.realpath(source)  # a person's file may well be a link
    _require_backup(source)
    temporary = f"{mailbox}.restoring"
    try:
        try:
            _copy_bytes(source, temporary)
            restored = _made_new(temporary, source, random(16).hex(), wall)
            kept = _set_aside(mailbox, wall)
            os.rename(temporary, mailbox)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        _sync(os.path.dirname(mailbox))
    except sqlite3.DatabaseError as error:
        raise _failure(source, error) from error  # of the mailbox in place nobody asks whether it is good
    except OSError as error:
        raise _failure(mailbox, error) from error
    return restored._replace(kept=kept)


def _require_backup(path: str) -> None:
    """Raises what keeps this file from being one, as far as its first bytes tell."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise LocalProtocolError(f"{path} is no file", code="bad_params", hint="name a backup")
        check_header(path)
        size = os.path.getsize(path)
    except MailboxUnusable as error:
        if error.code == NEWER:
            raise
        raise _no_backup(path) from error  # what it advises is for a mailbox in its place
    except FileNotFoundError:
        raise LocalProtocolError(f"{path} does not exist", code="bad_params", hint="name one that does") from None
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise NotPermitted(f"{path} cannot be read ({why})", hint=f"look at it: ls -l {path}") from None
    if not size:
        raise _no_backup(path)
    if os.path.exists(path + "-wal") and os.path.getsize(path + "-wal"):
        raise MailboxUnusable(
            f"{path} has a write-ahead log beside it: it is a mailbox in use, or was one, and no backup",
            hint=HOW_TO_MAKE_ONE,
        )


def _no_backup(path: str) -> MailboxUnusable:
    return MailboxUnusable(f"{path} is no backup of a mailbox; nothing was changed", hint=HOW_TO_MAKE_ONE)


def _copy_bytes(source: str, target: str) -> None:
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(source, "rb") as old, open(os.open(target, flags, 0o600), "wb") as new:
        while chunk := old.read(1 << 20):
            new.write(chunk)


def _made_new(path: str, source: str, mailbox_id: str, wall: float) -> Restored:
    """Checks the copy and makes it a mailbox of its own."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=DELETE")
        if (found := _integrity(db)) != "ok":
            raise MailboxUnusable(f"{source} is damaged ({found_first(found)})", hint="use another backup")
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            raise _no_backup(source)
        db.execute("BEGIN IMMEDIATE")
        db.execute(
            "INSERT OR REPLACE INTO meta (key, value) SELECT 'restored_from', value FROM meta WHERE key = 'mailbox_id'"
        )
        db.execute("UPDATE meta SET value = ? WHERE key = 'mailbox_id'", (mailbox_id,))
        db.execute("REPLACE INTO meta (key, value) VALUES ('restored_at', ?)", (wall,))
        db.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")
        db.execute("COMMIT")
        messages, waiting = db.execute(
            "SELECT count(*), count(*) FILTER (WHERE stage IN ('stored', 'taken')) FROM messages"
        ).fetchone()
        (outbox,) = db.execute("SELECT count(*) FROM outbox").fetchone()
        (sessions,) = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sessions'").fetchone()
        if sessions:
            (sessions,) = db.execute("SELECT count(*) FROM sessions WHERE state <> 'CLOSED'").fetchone()
    finally:
        db.close()
    _sync(path)
    return Restored(mailbox_id, None, messages, waiting, outbox, sessions)


def _set_aside(mailbox: str, wall: float) -> str | None:
    """Gives the mailbox in place another name beside it, with all that is in its log; it stays until it is replaced."""
    if not os.path.exists(mailbox):
        return None
    kept = _unused(f"{mailbox}.before-{_stamp(wall)}")
    try:
        db = sqlite3.connect(mailbox, isolation_level=None)
        try:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            db.close()
    except sqlite3.Error:
        pass  # it is damaged: its log goes with it as it is
    os.link(mailbox, kept)
    for log in ("-wal", "-shm"):
        if os.path.exists(mailbox + log):
            os.rename(mailbox + log, kept + log)  # beside another file it would be played into that one
    return kept


def _integrity(db: sqlite3.Connection) -> str:
    found: str = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    return found


def _sync(path: str) -> int:
    """Flushes a file or a directory to the disk; its size in bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _stamp(wall: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))


def _unused(stem: str, ending: str = "") -> str:
    """A path that leads nowhere yet: two of one second are told apart by a number."""
    path, number = stem + ending, 1
    while os.path.lexists(path):
        number += 1
        path = f"{stem}-{number}{ending}"
    return path


def _failure(path: str, error: Exception) -> BackchannelError:
    """What to tell of it; nothing half is left."""
    code = getattr(error, "errno", None)
    if isinstance(error, FileExistsError):
        return LocalProtocolError(f"{path} exists already", code="bad_params", hint="name another file")
    if isinstance(error, FileNotFoundError):
        return LocalProtocolError(
            f"{error.filename or path} does not exist", code="bad_params", hint="name one that does"
        )
    if code == errno.EROFS:
        return NotPermitted(
            f"{path} cannot be written ({error})", hint="a service writes in its own directory only: name no file"
        )
    if isinstance(error, PermissionError):
        return NotPermitted(f"{path} cannot be written ({error})", hint=f"look at it: ls -ld {os.path.dirname(path)}")
    if code in (errno.ENOSPC, errno.EDQUOT) or getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return OverLimit(
            f"the disk has no room for {path}; nothing of it was left",
            code="full",
            hint="free some space, or name a file on another disk",
            retry=True,
        )
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return MailboxUnusable(f"{path} is damaged ({error})", hint="use another backup")
    return BackchannelError(f"{path} could not be written ({error}); nothing of it was left", code="storage")
