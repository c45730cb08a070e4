"""Opening the one file, and knowing whether it may be opened at all.

Exactly one connection, `locking_mode=EXCLUSIVE`: nobody else can open the file while the daemon lives, there is no
shared-memory file, and SQLite's WAL-reset bug (3.7.0 to 3.51.2, two connections) cannot be met. What looks at the file
from outside SQLite does so before it is opened: closing a second descriptor would drop SQLite's POSIX locks.

A file that is newer, damaged or somebody else's is left exactly as it is, with an error that names it.
"""

import os
import sqlite3

from ..errors import BackchannelError

APPLICATION_ID = 0x42434D42  # "BCMB": `file` and we recognise a mailbox by it
SQLITE_MIN = (3, 35, 0)
# Step n brings a file of version n-1 to version n.
STEPS = ("schema.sql", "sessions.sql", "standing.sql", "purges.sql", "says.sql")
VERSION = len(STEPS)
PAGE_BYTES = 2048  # a commit of one message writes four pages; halved they cost a fifth less, up to texts of 10 KB
CACHE_KB = 256  # what a commit needs again and again is ten pages; behind them is the kernel's cache
SPILL_PAGES = 1024  # what one transaction changes stays in memory up to here: to write a page twice costs a tenth more
UNFINISHED = ".new"  # how the name of a backup ends until it is whole

OLDER, NEWER = "mailbox_older", "mailbox_newer"


class MailboxUnusable(BackchannelError):
    """The file cannot be this daemon's mailbox: damaged, newer, or not a mailbox. It was not changed."""

    code = "mailbox_unusable"


def open_database(path: str, *, migrate: bool = True) -> sqlite3.Connection:
    """The one connection to the mailbox at `path`, made if it does not exist, at this version's schema.

    Raises `MailboxUnusable`; with `migrate=False` also for an older file, which only its owner's start may change.
    Raises `BackchannelError` (`storage`) when it is not the file's fault: a full or failing disk, a permission.
    """
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        raise MailboxUnusable(f"SQLite {sqlite3.sqlite_version} is too old", hint="3.35 or newer is needed")
    check_header(path)
    is_new = not os.path.exists(path) or os.path.getsize(path) == 0
    if is_new:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    except sqlite3.OperationalError as error:
        raise unusable(path, error) from None
    try:
        # Of a new file the page size; an old one keeps its own.
        db.executescript(f"PRAGMA page_size={PAGE_BYTES}; PRAGMA locking_mode=EXCLUSIVE")
        if db.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
            raise MailboxUnusable(f"{path} cannot use a write-ahead log", hint="move STATE to a local file system")
        db.executescript(
            f"PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0; PRAGMA trusted_schema=OFF;"
            f" PRAGMA cache_size={-CACHE_KB}; PRAGMA cache_spill={SPILL_PAGES}"
        )
        _migrate(db, path, allowed=migrate or is_new)
    except sqlite3.DatabaseError as error:
        db.close()
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise MailboxUnusable(f"{path} is open in another program", hint="close it, then start again") from None
        raise unusable(path, error) from None
    except BaseException:
        db.close()
        raise
    return db


def release_memory(db: sqlite3.Connection) -> None:
    """Gives back the pages that SQLite keeps for speed: 66 KB at least, 2 MB at most. Whoever comes next reads some."""
    db.execute("PRAGMA shrink_memory")


def quick_check(db: sqlite3.Connection, path: str) -> None:
    """After an unclean stop. Raises `MailboxUnusable` with what SQLite found."""
    try:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise unusable(path, error) from None
    if found != "ok":
        raise damaged(path, found)


def damaged(path: str, what: str) -> MailboxUnusable:
    backup = newest_backup(path)
    name = os.path.basename(os.path.dirname(path))
    advice = (
        f"backchannel restore {name} {backup} takes the newest backup" if backup else "there is no backup beside it"
    )
    return MailboxUnusable(
        f"the mailbox {path} is damaged ({found_first(what)}); it was left as it is",
        hint=f"{advice}; to begin with an empty one, move the file away yourself",
    )


def found_first(said: str) -> str:
    """The first thing that SQLite found, without the headings it puts above."""
    lines = said.splitlines()
    return next((line for line in lines if not line.startswith("***")), lines[0])


def unusable(path: str, error: sqlite3.Error) -> BackchannelError:
    """What to raise for an error at opening: damage, or something that is not the file's fault."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if not isinstance(error, sqlite3.OperationalError) or code == sqlite3.SQLITE_ERROR:
        return damaged(path, str(error))
    return BackchannelError(
        f"the mailbox {path} cannot be opened now ({error})",
        code="storage",
        hint="nothing was lost; look at the disk and at the permissions, then start again",
    )


def is_full(error: Exception) -> bool:
    """Whether the disk had no room for it."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def newest_backup(path: str) -> str | None:
    folder = os.path.join(os.path.dirname(path), "backups")
    try:
        found = [entry for entry in os.scandir(folder) if entry.is_file() and not entry.name.endswith(UNFINISHED)]
    except OSError:
        return None
    return max(found, key=lambda entry: entry.stat().st_mtime).path if found else None


def check_header(path: str) -> None:
    """Whether the file may be opened at all, by its first bytes. Raises `MailboxUnusable`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        header = os.read(fd, 100)
    finally:
        os.close(fd)
    if not header:
        return
    if header == bytes(100) and os.path.exists(path + "-journal"):
        return  # the power was cut while the first page was made: SQLite undoes that, and makes it
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise damaged(path, "it does not begin as an SQLite file")
    application_id, pages = int.from_bytes(header[68:72], "big"), int.from_bytes(header[28:32], "big")
    # Ours has no mark as long as its first page alone is in the file, and the schema still in the log.
    if application_id != APPLICATION_ID and (application_id != 0 or pages > 1):
        raise MailboxUnusable(
            f"{path} is another program's database; it was left as it is", hint="move it away, then start again"
        )
    _refuse_newer(path, int.from_bytes(header[60:64], "big"))


def _migrate(db: sqlite3.Connection, path: str, *, allowed: bool) -> None:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    _refuse_newer(path, version)
    if version < VERSION and not allowed:
        raise MailboxUnusable(
            f"{path} has the older schema {version}",
            code=OLDER,
            hint="its owner's start brings it up: backchannel up NAME",
        )
    for step in range(version, VERSION):
        with open(os.path.join(os.path.dirname(__file__), STEPS[step])) as script:  # importlib.resources takes 2 MB
            # A script, for `execute` keeps every statement for its next time: of these 120 KB in each mailbox's memory.
            db.executescript(
                f"BEGIN IMMEDIATE; {script.read()}; PRAGMA application_id={APPLICATION_ID};"
                f" PRAGMA user_version={step + 1}; COMMIT"
            )


def _refuse_newer(path: str, version: int) -> None:
    if version > VERSION:
        raise MailboxUnusable(
            f"{path} was written by a newer Backchannel (schema {version}, this one knows {VERSION})",
            code=NEWER,
            hint="upgrade backchannel; the file was left as it is",
        )
