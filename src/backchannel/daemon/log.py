"""What the daemon says: one line an event to stderr, ids and sizes only, never a message's text.

Under systemd each line carries its journal priority; `--log-format json` is for collectors. Events that a stranger can
cause are said at most once a second.
"""

import json
import logging
import os
import sys
import time

logger = logging.getLogger("backchanneld")
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


def set_up(log_format: str, level: int = logging.INFO) -> None:
    """`log_format` is text, json, or journal (text with priorities; chosen by itself under systemd)."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(_JsonLines())
    elif "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(_Journal())
    else:
        handler.setFormatter(_Text())
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


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
