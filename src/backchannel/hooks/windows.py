"""Which window of a program is which agent: NAME for the first that is open, NAME-2 for one beside it.

`STATE/NAME/windows/SESSION` is one window: its agent, its process, how its turn stands, and what was put before its
model but is not proved to be seen. It is locked by whoever changes it, since two hooks of one window may run at once.
A window lives as long as its process, which is told by its pid and the time it was started: a pid alone may be
another's by now.
"""

import os
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock

from ..protocol.codec import Malformed, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..transport.paths import Places

BASE_CHARS_MAX = 59  # so that -2 to -999 still make a name
MARK = "window-of"  # in the state of an agent that was made for a second window
SESSION_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
SESSION_CHARS_MAX = 128
WAITER = ".waiter"
SHELLS = ("sh", "bash", "dash", "zsh", "fish")


class Window:
    """One open window, its file held locked until `close`.

    `pending` are deliveries put before the model, each `[id, sender, delivery, proofs]`: how many more moments that
    prove a request it takes until they were seen. `blocks` counts the times this turn was kept from ending.
    """

    __slots__ = ("_fd", "agent", "base", "blocks", "born", "is_idle", "is_new", "path", "pending", "pid")

    def __init__(self, fd: int, path: str, base: str, about: "dict[str, Any]", *, is_new: bool = False) -> None:
        self._fd = fd
        self.path = path
        self.base = base
        self.is_new = is_new
        self.agent: str = about["agent"]
        self.pid: int = about["pid"]
        self.born: int = about["born"]
        self.is_idle: bool = about["is_idle"]
        self.blocks: int = about["blocks"]
        self.pending: list[list[Any]] = about["pending"]

    def save(self) -> None:
        keys = ("agent", "pid", "born", "is_idle", "blocks", "pending")
        data = encode({key: getattr(self, key) for key in keys}).encode()
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    def close(self) -> None:
        """Unlocks the file; doing it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def is_live(self) -> bool:
        return started(self.pid) == self.born


def folder(places: "Places", base: str) -> str:
    return places.state(base, "windows")


def is_session(session: object) -> bool:
    """Whether it can be a file name; what a program calls its session is not ours to choose."""
    return isinstance(session, str) and 0 < len(session) <= SESSION_CHARS_MAX and SESSION_CHARS.issuperset(session)


def find(places: "Places", base: str, session: str) -> Window | None:
    """The window, locked; None if it is not known, or what is known of it is damaged."""
    return _opened(f"{folder(places, base)}/{session}", base)


def enrol(places: "Places", base: str, session: str, *, beside: bool) -> "tuple[Window, list[Window]]":
    """Gives a window its agent. Returns it, and those that ended unseen: the caller makes good what they left.

    With `beside` another session of the same process goes on; otherwise this one has taken its place.
    """
    here = folder(places, base)
    os.makedirs(here, 0o700, exist_ok=True)
    pid, born = program()
    lock = os.open(here, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flock(lock, LOCK_EX)  # two windows that open at once get two names
        taken, gone = set(), []
        for other in _others(here, base, session):
            if other.is_live and (beside or other.pid != pid):
                taken.add(other.agent)
                other.close()
            else:
                gone.append(other)
        path = f"{here}/{session}"
        before = _opened(path, base)
        agent = before.agent if before is not None and before.agent not in taken else _free(places, base, taken)
        about = {"agent": agent, "pid": pid, "born": born, "is_idle": True, "blocks": 0, "pending": []}
        if before is not None:
            about["pending"] = before.pending
            before.close()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        flock(fd, LOCK_EX)
        window = Window(fd, path, base, about, is_new=True)
        window.save()
        return window, gone
    finally:
        os.close(lock)


def forget(window: Window) -> None:
    for path in (window.path, window.path + WAITER):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
    window.close()


def live(places: "Places", base: str) -> "list[str]":
    """The agents of the windows that are open."""
    found = []
    for window in _others(folder(places, base), base, ""):
        if window.is_live:
            found.append(window.agent)
        window.close()
    return found


def is_made_for(places: "Places", base: str, name: str) -> bool:
    """Whether the agent `name` was made for a second window of `base`."""
    try:
        with open(places.state(name, MARK)) as file:
            return file.read().strip() == base
    except OSError:
        return False


# --- the process that waits for an idle window ------------------------------------------------------------------------


def begin_waiting(window_path: str) -> int | None:
    """The lock of the one waiter of a window, or None if there is one. It holds our pid."""
    fd = os.open(window_path + WAITER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d" % os.getpid(), 0)
    return fd


def end_waiting(window_path: str) -> None:
    """Ends the waiter of a window: its turn began, and other hooks bring the mail now."""
    try:
        fd = os.open(window_path + WAITER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        flock(fd, LOCK_SH | LOCK_NB)
    except BlockingIOError:  # held: so it lives, and the pid is its own
        pid = os.read(fd, 32)
        if pid.isdigit():
            os.kill(int(pid), 15)
    finally:
        os.close(fd)


# --- processes --------------------------------------------------------------------------------------------------------


def program() -> "tuple[int, int]":
    """The process whose hook we are, and when it was started: the nearest ancestor that is no shell."""
    pid = os.getppid()
    while pid > 1:
        name, parent, born = _stat(pid)
        if name not in SHELLS:
            return pid, born
        pid = parent
    return pid, started(pid)


def started(pid: int) -> int:
    """When a process was started, in ticks since boot; 0 if there is none, or only what is left of one."""
    try:
        return _stat(pid)[2]
    except OSError:
        return 0


def _stat(pid: int) -> "tuple[str, int, int]":
    with open(f"/proc/{pid}/stat", "rb") as file:
        head, _, rest = file.read().rpartition(b")")
    fields = rest.split()
    is_zombie = fields[0] in (b"Z", b"X")
    return head.partition(b"(")[2].decode("ascii", "replace"), int(fields[1]), 0 if is_zombie else int(fields[19])


# --- helpers ----------------------------------------------------------------------------------------------------------


def _opened(path: str, base: str) -> Window | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        flock(fd, LOCK_EX)
        return Window(fd, path, base, decode(os.read(fd, 1 << 20)))
    except (Malformed, KeyError, TypeError):
        os.close(fd)
        return None


def _others(here: str, base: str, session: str) -> "Iterator[Window]":
    try:
        entries = os.listdir(here)
    except OSError:
        return
    for entry in sorted(entries):
        if entry != session and is_session(entry):
            window = _opened(f"{here}/{entry}", base)
            if window is not None:
                yield window


def _free(places: "Places", base: str, taken: "set[str]") -> str:
    """The first name of ours that no open window has; a new agent is made for it if need be."""
    number = 1
    while True:
        name = base if number == 1 else f"{base[:BASE_CHARS_MAX]}-{number}"
        number += 1
        if name in taken:
            continue
        if name == base or is_made_for(places, base, name):
            return name
        if not os.path.lexists(places.state(name)):  # another's agent may have this name by chance
            _make(places, base, name)
            return name


def _make(places: "Places", base: str, name: str) -> None:
    from ..transport import start
    from ..transport.paths import register, write_private

    register(places, name)
    write_private(places.state(name, MARK), base + "\n")
    declared = places.state(base, "adapters")
    os.makedirs(places.state(name, "adapters"), 0o700, exist_ok=True)
    entries = os.listdir(declared) if os.path.isdir(declared) else []
    for file in ("config.toml", *(f"adapters/{entry}" for entry in entries)):
        try:
            with open(places.state(base, file)) as told:
                write_private(places.state(name, file), told.read())
        except FileNotFoundError:
            pass
    start.record(places, name)
