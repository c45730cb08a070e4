"""What the daemon says: one line an event to stderr, ids and sizes only, never a message's text.

Under systemd each line carries its journal priority; `--log-format json` is for collectors. Where stderr is the agent's
own `log` (a daemon that was started on demand) the file is turned over before it grows too long. Events that a stranger
can cause are said at most once a second.
"""

import json
import logging
import os
import sys
import time
from typing import Any

logger = logging.getLogger("backchanneld")
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


def set_up(log_format: str, level: int = logging.INFO) -> None:
    """`log_format` is text, json, or journal (text with priorities; chosen by itself under systemd)."""
    handler = _Stderr(sys.stderr)
    if log_format == "json":
        handler.setFormatter(_JsonLines())
    elif "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(_Journal())
    else:
        handler.setFormatter(_Text())
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


def turn_over(path: str, bytes_max: int, files_kept: int) -> None:
    """From now on the log is bounded, if it is what we write to: over `bytes_max` it becomes PATH.1, that PATH.2."""
    for handler in logger.handlers:
        if isinstance(handler, _Stderr) and _is_stderr(path):
            handler.file = _File(path, bytes_max, files_kept)


class Sparingly:
    """Says one kind of event at most once a second, and then how many were left out."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, kind: str, message: str, now: float) -> None:
        if now < self._next.get(kind, 0.0):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._next[kind] = now + 1.0
        left_out = self._left_out.pop(kind, 0)
        logger.warning("%s%s", message, f" (and {left_out} like it)" if left_out else "")


class _File:
    """The log as a file behind descriptor 2. Every step is one rename, so a kill between two leaves all files whole."""

    def __init__(self, path: str, bytes_max: int, files_kept: int) -> None:
        self.path = path
        self.bytes_max = bytes_max
        self.files_kept = files_kept

    def look(self) -> None:
        """Turns the file over if it is long enough. Whoever else writes to it then goes on in the new one."""
        if not _is_stderr(self.path):
            self._open()
        elif os.fstat(2).st_size >= self.bytes_max:
            self._shift()
            self._open()

    def _shift(self) -> None:
        surplus = self.files_kept + 1
        while os.path.lexists(f"{self.path}.{surplus}"):  # the setting was lowered
            os.unlink(f"{self.path}.{surplus}")
            surplus += 1
        last = 1  # the first number that is free, or the oldest file, which is then replaced
        while last < self.files_kept and os.path.lexists(f"{self.path}.{last}"):
            last += 1
        for number in range(last, 1, -1):
            os.rename(f"{self.path}.{number - 1}", f"{self.path}.{number}")
        os.rename(self.path, f"{self.path}.1")

    def _open(self) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.dup2(fd, 1)
            os.dup2(fd, 2)
        finally:
            os.close(fd)


class _Stderr(logging.StreamHandler[Any]):
    file: _File | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.file is not None:
            try:
                self.file.look()
            except OSError:
                pass  # a full disk, a name that was removed: the line goes where the others went
        super().emit(record)


def _is_stderr(path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(2), os.stat(path))
    except OSError:
        return False


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
        return f"{when} {record.levelname.lower()} {_one_line(super().format(record))}"


class _Journal(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = next(p for level, p in _PRIORITIES if record.levelno >= level)
        return f"<{priority}>{_one_line(super().format(record))}"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = _one_line(super().format(record))
        return json.dumps({"time": record.created, "level": record.levelname.lower(), "message": text})
