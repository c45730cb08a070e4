"""What an agent of a storm writes down: an append-only file, one event a line. Nothing is flushed to a disk: a SIGKILL
takes nothing back that was written."""

import json
import os
from collections.abc import Iterable
from typing import Any

TAIL_BYTES = 1 << 18  # where the last word on what is under way mostly stands

Kinds = dict[str, Any]  # the NamedTuples of one history, by name


def kinds_of(kinds: Iterable[type[Any]]) -> Kinds:
    return {kind.__name__: kind for kind in kinds}


def line(event: Any) -> bytes:
    return json.dumps([type(event).__name__, *event]).encode() + b"\n"


def parse(journal: bytes, kinds: Kinds) -> list[Any]:
    """The events of a journal. What a SIGKILL cut off in the middle was never told to anybody."""
    return [kinds[kind](*fields) for kind, *fields in map(json.loads, journal.split(b"\n")[:-1])]


class Journal:
    """Open for writing: one write a line, so that two threads never mix theirs."""

    def __init__(self, path: str, kinds: Kinds) -> None:
        self._kinds = kinds
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._first = max(0, self._size - TAIL_BYTES)
        tail = os.pread(self._fd, TAIL_BYTES, self._first)
        # A SIGKILL may cut a write in two where a page ends. Nothing was done yet on the strength of that line.
        os.ftruncate(self._fd, self._first + tail.rfind(b"\n") + 1)
        self.tail = parse(tail[tail.find(b"\n") + 1 :] if self._first else tail, kinds)

    def look_further_back(self) -> None:
        """The tail becomes the whole."""
        if self._first:
            self.tail = parse(os.pread(self._fd, self._size, 0), self._kinds)

    def write(self, event: Any) -> None:
        data = line(event)
        assert os.write(self._fd, data) == len(data)
