"""Which chat asked: kept on disk, so that an answer finds its way back after a restart too.

A chat is Hermes' word for where a history lives (a Discord thread with a person, a session with another agent). What
was asked is known by its id: a session's, or a message's.
"""

import json
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

KEPT_S = 30 * 86400.0  # an answer that comes later goes to the peer's own chat


class Chat(NamedTuple):
    """What is needed to say something into a chat again. `key` is Hermes' session key."""

    key: str
    platform: str
    chat_id: str
    chat_name: str = ""
    thread_id: str = ""
    user_id: str = ""
    user_name: str = ""
    message_id: str = ""  # of the peer's message that this chat was working on

    @property
    def chat_type(self) -> str:
        """The fourth part of the key: agent:main:PLATFORM:TYPE:CHAT..."""
        parts = self.key.split(":")
        return parts[3] if len(parts) > 3 else "dm"


class Askers:
    """id -> chat. One small file a profile; several processes of it may write."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._open() as db:
            db.execute("CREATE TABLE IF NOT EXISTS askers (id TEXT PRIMARY KEY, chat TEXT NOT NULL, at REAL NOT NULL)")
            db.execute("DELETE FROM askers WHERE at < ?", (time.time() - KEPT_S,))

    def remember(self, asked_id: str, chat: Chat) -> None:
        with self._open() as db:
            row = (asked_id, json.dumps(chat), time.time())
            db.execute("INSERT OR REPLACE INTO askers (id, chat, at) VALUES (?, ?, ?)", row)

    def of(self, asked_id: str) -> Chat | None:
        with self._open() as db:
            row = db.execute("SELECT chat FROM askers WHERE id = ?", (asked_id,)).fetchone()
        return Chat(*json.loads(row[0])) if row else None

    def _open(self) -> "_Once":
        return _Once(self._path)


class _Once:
    """A connection for one statement: calls come from any thread, seldom."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=10)

    def __enter__(self) -> sqlite3.Connection:
        return self._db

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._db.commit()
        self._db.close()
