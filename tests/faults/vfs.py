"""A guard at SQLite's own doors to the disk: it counts every read, write, flush, and may let one of them fail.

SQLite reaches files through a table of functions. Here the very library that production's `sqlite3` uses gets a second
such table, whose entries ask the guard first. Statements, settings and code stay production's.
"""

import _sqlite3
import atexit
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from enum import IntEnum
from typing import Any

SQLITE_FULL = 13
SQLITE_IOERR = 10


class Operation(IntEnum):
    """What SQLite asks of the disk; the value is the error that such a failure has in SQLite."""

    OPEN = 14  # SQLITE_CANTOPEN
    READ = SQLITE_IOERR | 1 << 8
    WRITE = SQLITE_IOERR | 3 << 8
    SYNC = SQLITE_IOERR | 4 << 8
    TRUNCATE = SQLITE_IOERR | 6 << 8
    DELETE = SQLITE_IOERR | 10 << 8


class Guard:
    """Lets the `fails_at`-th operation fail, and with `for_good` all that follow it.

    `is_full`: the disk has no room, so only what needs some fails.
    """

    def __init__(self, fails_at: int = 0, *, is_full: bool = False, for_good: bool = False) -> None:
        self.count = 0
        self.failed: list[Operation] = []
        self._fails_at = fails_at
        self._is_full = is_full
        self._for_good = for_good

    def error(self, operation: Operation) -> int:
        """SQLite's code for how this operation ends; 0: it may be done."""
        if self._is_full and operation is not Operation.WRITE:
            return 0
        self.count += 1
        if self.count != self._fails_at and not (self._for_good and 0 < self._fails_at < self.count):
            return 0
        self.failed.append(operation)
        return SQLITE_FULL if self._is_full else int(operation)


class _Methods(Structure):
    """`sqlite3_io_methods`."""


Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
Delete = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
Transfer = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
Sync = CFUNCTYPE(c_int, c_void_p, c_int)

_Methods._fields_ = [
    ("version", c_int),
    ("close", c_void_p),
    ("read", Transfer),
    ("write", Transfer),
    ("truncate", Truncate),
    ("sync", Sync),
    *((f"rest{number}", c_void_p) for number in range(13)),  # xFileSize to xUnfetch, version 3
]


class _Vfs(Structure):
    """`sqlite3_vfs`."""

    _fields_ = (
        ("version", c_int),
        ("file_bytes", c_int),
        ("path_max", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", Open),
        ("delete", Delete),
        *((f"rest{number}", c_void_p) for number in range(14)),  # xAccess to xNextSystemCall, version 3
    )


def is_possible() -> bool:
    """Whether this interpreter's SQLite shows its doors; one that is built into it may not."""
    return _library() is not None


@contextmanager
def guarded(guard: Guard) -> Iterator[None]:
    """Files that SQLite opens inside ask `guard`, for as long as they are open."""
    global _guard
    _install()
    _guard = guard
    try:
        yield
    finally:
        _guard = Guard()


_guard = Guard()
_guards: dict[int, Guard] = {}  # by open file: a connection may outlive its test until the collector finds it
_guards_of_names: dict[bytes, Guard] = {}  # by path
_kept: list[Any] = []  # what SQLite points to
_patched: dict[int, Any] = {}


def _library() -> Any:
    library = ctypes.CDLL(_sqlite3.__file__)
    try:
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        library.sqlite3_vfs_register.argtypes = (POINTER(_Vfs), c_int)
    except AttributeError:
        return None
    return library


def _install() -> None:
    """Our table becomes the default, for the rest of this process. With the empty guard it changes nothing."""
    if _kept:
        return
    library = _library()
    plain = library.sqlite3_vfs_find(None).contents
    ours = _Vfs.from_buffer_copy(plain)
    ours.name = b"guarded"
    plain_open, plain_delete = plain.open, plain.delete

    def open_file(vfs: int, name: int, file: int, flags: int, out: int) -> int:
        if code := _guard.error(Operation.OPEN):
            c_void_p.from_address(file).value = None  # SQLite asks for this of an open that failed
            return code
        code = plain_open(vfs, name, file, flags, out)
        if code == 0:
            _guards[file] = _guard
            if name:
                _guards_of_names[ctypes.string_at(name)] = _guard
            methods = c_void_p.from_address(file)
            methods.value = ctypes.addressof(_guarded_methods(methods.value or 0))
        return int(code)

    def delete(vfs: int, name: int, sync: int) -> int:
        guard = _guards_of_names.get(ctypes.string_at(name))
        return (guard.error(Operation.DELETE) if guard else 0) or int(plain_delete(vfs, name, sync))

    ours.open, ours.delete = Open(open_file), Delete(delete)
    _kept.extend((ours, plain_open, plain_delete, ours.open, ours.delete))
    library.sqlite3_vfs_register(ctypes.byref(ours), 1)


def _guarded_methods(address: int) -> Any:
    """The functions of an open file, asking first. SQLite has a handful of such tables; ours live as long."""
    if address not in _patched:
        plain = _Methods.from_address(address)
        ours = _Methods.from_buffer_copy(plain)
        asking: tuple[tuple[str, Any, Operation], ...] = (
            ("read", Transfer, Operation.READ),
            ("write", Transfer, Operation.WRITE),
            ("truncate", Truncate, Operation.TRUNCATE),
            ("sync", Sync, Operation.SYNC),
        )
        for name, kind, operation in asking:
            door = kind(_asking(getattr(plain, name), operation))
            setattr(ours, name, door)
            _kept.append(door)
        _patched[address] = ours
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(ours))
        # A connection that is still open when the interpreter ends must not call into it any more.
        atexit.register(ctypes.memmove, ctypes.byref(ours), address, ctypes.sizeof(ours))
    return _patched[address]


def _asking(plain: Callable[..., int], operation: Operation) -> Callable[..., int]:
    def ask(file: int, *arguments: Any) -> int:
        return _guards[file].error(operation) or plain(file, *arguments)

    return ask
