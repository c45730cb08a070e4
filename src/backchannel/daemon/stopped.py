"""What needs an agent's file while no daemon has it: each is a mode of `backchanneld`, which holds the name's lock.

One JSON object on stdout says what was done, or as `error` why it was not; stderr says that too, as everywhere.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from ..errors import BackchannelError, LocalProtocolError
from ..mailbox.audit import NOTHING
from ..mailbox.backup import Copying, default_path
from ..mailbox.backup import restore as put_back
from ..mailbox.database import check_header, unusable
from ..protocol import fastcodec
from .config import SETTINGS
from .log import logger


def audit(name: str, look: Callable[[], dict[str, Any] | None]) -> int:
    """What `look` finds to be accounted for; a name may never have had a mailbox."""
    return _told(lambda: {"agent": name, **(look() or NOTHING)})


def backup(mailbox: str, name: str, path: str | None) -> int:
    """Copies the mailbox as it lies there, of whatever version."""
    return _told(lambda: _copied(mailbox, name, path))


def restore(mailbox: str, source: str) -> int:
    """Puts a backup in the mailbox's place, or leaves everything as it was."""
    return _told(lambda: put_back(mailbox, source, random=os.urandom, wall=time.time())._asdict())


def _copied(mailbox: str, name: str, path: str | None) -> dict[str, Any]:
    if not os.path.exists(mailbox):
        raise LocalProtocolError(f"{name} has no mailbox yet", code="bad_params", hint="there is nothing to copy")
    began, wall = time.monotonic(), time.time()
    check_header(mailbox)
    db = sqlite3.connect(mailbox, isolation_level=None)
    try:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        (mailbox_id,) = db.execute("SELECT value FROM meta WHERE key = 'mailbox_id'").fetchone()
        reserve = SETTINGS["reserve_bytes"].default
        done = Copying(db, path or default_path(mailbox, name, wall), reserve_bytes=reserve).run()
    except sqlite3.Error as error:
        raise unusable(mailbox, error) from None
    finally:
        db.close()
    seconds = round(time.monotonic() - began, 3)
    return {"agent": name, "path": done.path, "bytes": done.bytes, "mailbox_id": mailbox_id, "seconds": seconds}


def _told(act: Callable[[], dict[str, Any]]) -> int:
    """Does it, and says on stdout what came of it. Returns the exit status."""
    try:
        done = act()
    except BackchannelError as error:
        logger.error("%s", error)
        done = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    print(fastcodec.encode(done).decode(), flush=True)
    return 1 if "error" in done else 0
