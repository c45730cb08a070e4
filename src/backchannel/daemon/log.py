"""What the daemon says: one line an event to stderr, ids and sizes only, never a message's text.

Under systemd each line carries its journal priority; `--log-format json` is for collectors. Where stderr is the agent's
own `log` (a daemon that was started on demand) the file is turned over before it grows too long. Events that a stranger
can cause are said at most once a second.
"""

import os
import sys
import time

from ..protocol import fastcodec

PRIORITIES = {"error": 3, "warning": 4, "info": 6}  # syslog's


class Logger:
    """Of the standard library's `logging` what we use of it: the whole of it would be 0.7 MB in every daemon."""

    def __init__(self) -> None:
        self._format = _text
        self._file: _File | None = None
        self._priority_max = PRIORITIES["warning"]  # where no daemon runs, as in a test, only what is wrong is said

    def set_up(self, log_format: str) -> None:
        """`log_format` is text or json. Under systemd text has priorities."""
        if log_format == "json":
            self._format = _json
        elif "JOURNAL_STREAM" in os.environ:
            self._format = _journal
        self._priority_max = PRIORITIES["info"]

    def turn_over(self, path: str, bytes_max: int, files_kept: int) -> None:
        """From now on the log is bounded, if it is what we write to: over `bytes_max` it becomes PATH.1, and so on."""
        if _is_stderr(path):
            self._file = _File(path, bytes_max, files_kept)

    def info(self, message: str, *args: object) -> None:
        self._say("info", message, args)

    def warning(self, message: str, *args: object) -> None:
        self._say("warning", message, args)

    def error(self, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        if exc_info is not None:
            import traceback  # for our own mistakes alone

            message, args = "%s\n%s", (message % args, "".join(traceback.format_exception(exc_info)).rstrip("\n"))
        self._say("error", message, args)

    def _say(self, level: str, message: str, args: tuple[object, ...]) -> None:
        if PRIORITIES[level] > self._priority_max or sys.stderr is None:
            return
        if self._file is not None:
            try:
                self._file.look()
            except OSError:
                pass  # a full disk, a name that was removed: the line goes where the others went
        try:
            sys.stderr.write(self._format(time.time(), level, _one_line(message % args)) + "\n")
        except (OSError, ValueError):
            pass  # nobody reads it any more


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


def _is_stderr(path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(2), os.stat(path))
    except OSError:
        return False


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _text(at: float, level: str, text: str) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(at))} {level} {text}"


def _journal(at: float, level: str, text: str) -> str:
    return f"<{PRIORITIES[level]}>{text}"


def _json(at: float, level: str, text: str) -> str:
    return fastcodec.encode({"time": at, "level": level, "message": text}).decode()


logger = Logger()
