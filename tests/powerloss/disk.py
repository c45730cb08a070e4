"""What a power cut at one moment may leave of the files: everything that was flushed, and of the rest any part.

The model is the strictest that POSIX allows and SQLite is made for: a write that no later, completed flush covers may
be there, may be missing, and may be torn at sectors of 512 bytes; each on its own, in any combination. A file's name
is on the disk once its directory was flushed; before that, it may or may not be.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from .recording import Call, Recording

SECTOR = 512
CHANCES = (0.0, 1.0, 0.5, 0.9, 0.1)  # that an unflushed write is there


@dataclass(eq=False)
class File:
    """`flushed` is on the disk; `pending` changed it since, oldest first."""

    flushed: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)

    def flush(self, begun: int) -> None:
        """A flush that began then has ended: what had been done before it is on the disk."""
        for call in self.pending:
            if call.ended < begun:
                change(self.flushed, call.number, call.data, is_truncated=call.name == "truncate")
        self.pending = [call for call in self.pending if call.ended >= begun]


class Disk:
    """The files of one recording at one place of it. Go forward with `happen`, then ask for `images`."""

    def __init__(self, recording: Recording) -> None:
        self._folder = recording.folder
        self._names: dict[str, File] = {}  # as a process sees them
        self._flushed_names: dict[str, File] = {}

    def happen(self, call: Call, *, ended: bool) -> bool:
        """A call begins, or ends. Whether the disk may look different now."""
        match call.name:
            case "create" if ended and call.path not in self._names:
                self._names[call.path] = File()
            case "unlink" if not ended:  # it may be gone as soon as the kernel was told
                self._names.pop(call.path, None)
            case "write" | "truncate" if not ended:
                self._names[call.path].pending.append(call)
            case "sync" if ended and call.path == self._folder:
                self._flushed_names = dict(self._names)
            case "sync" if ended and call.path in self._names:
                self._names[call.path].flush(call.begun)
            case _:
                return False
        return True

    def images(self, dice: random.Random, count: int) -> Iterator[dict[str, bytes]]:
        """Up to `count` different states of the disk after a cut here, by file name; chosen by `dice`."""
        seen: set[tuple[object, ...]] = set()
        for _ in range(2 * count):
            if len(seen) == count:
                return
            image, choice = self._image(dice, dice.choice(CHANCES))
            if choice not in seen:
                seen.add(choice)
                yield image

    def _image(self, dice: random.Random, chance: float) -> tuple[dict[str, bytes], tuple[object, ...]]:
        image: dict[str, bytes] = {}
        choices: list[object] = []
        for path in sorted(self._names.keys() | self._flushed_names.keys()):
            candidates = self._names.get(path), self._flushed_names.get(path)
            file = candidates[0] if dice.random() < chance else candidates[1]
            choices.append(file is candidates[0])
            if file is None:
                continue
            content = bytearray(file.flushed)
            for call in file.pending:
                there = survives(call, dice, chance)
                choices.append(there)
                if call.name == "truncate":
                    if there:
                        change(content, call.number, b"", is_truncated=True)
                    continue
                for begin, end in there:
                    change(content, call.number + begin, call.data[begin:end])
            image[path.rpartition("/")[2]] = bytes(content)
        return image, tuple(choices)


def survives(call: Call, dice: random.Random, chance: float) -> tuple[tuple[int, int], ...]:
    """Which parts of an unflushed change are on the disk, as ranges of its data."""
    whole = ((0, max(1, len(call.data))),)
    if 0 < chance < 1 and len(call.data) > SECTOR and dice.random() < 0.3:
        first = -call.number % SECTOR  # sectors are the disk's, not the write's
        edges = [0, *range(first or SECTOR, len(call.data), SECTOR), len(call.data)]
        return tuple(part for part in pairwise(edges) if dice.random() < 0.5)
    return whole if dice.random() < chance else ()


def change(content: bytearray, place: int, data: bytes, *, is_truncated: bool = False) -> None:
    if is_truncated:
        del content[place:]
        content.extend(bytes(place - len(content)))
        return
    if len(content) < place:
        content.extend(bytes(place - len(content)))
    content[place : place + len(data)] = data
