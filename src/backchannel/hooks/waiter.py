"""The process that waits for mail while a window is idle, and wakes it: `backchannel hook claude wait`.

The program starts it when a turn ends, runs it in the background, and begins a turn with what it wrote if it exits
with 2. It costs nothing while it waits: one process, asleep in one system call. It ends with its window, and when the
next turn begins: other hooks bring the mail then.
"""

import os
import select
import sys
import time

from ..client import calls, wire
from ..client.adapters import Adapter
from ..client.drive import run
from ..errors import BackchannelError, NotPermitted
from . import windows, words
from .engine import hand, log, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..transport.paths import Places
    from .dialects import Dialect

WAKES = 2  # the exit code
SETTLE_S = 5.0  # for the hook of the turn's end, which runs beside us, to say that the window is idle
LOOK_S = 0.05
AGAIN_S_MAX = 60.0  # between attempts to reach a daemon that is down


def wait(dialect: "Dialect", places: "Places", base: str, said: "dict[str, Any]") -> int:
    """Returns 2 after it wrote mail to stderr, 0 if there is nothing to wait for any more."""
    if not dialect.can_wake:
        raise NotPermitted(f"{dialect.title} cannot be woken by a hook", hint="its mail comes with its next turn")
    if os.environ.get("CLAUDE_CODE_ENTRYPOINT", "").startswith("sdk"):
        return 0  # `claude -p` does not end before us: who asks once must not wait for mail that may never come
    session = said["session_id"]
    path = f"{windows.folder(places, base)}/{session}"
    window = _once_idle(places, base, session)
    if window is None:
        return 0
    lock = windows.begin_waiting(path)
    if lock is None:
        return 0
    messages = _first(dialect, places, base, window)
    if not messages:
        return 0
    messages += take(places, window.agent, dialect.chars_max - len(messages[0]["text"]))
    now = windows.find(places, base, session)
    if now is None or not now.is_live:
        for message in messages:
            run(calls.settle(wire.Caller(window.agent, places), "release", message["id"], sender=message["from"]))
        return 0
    try:
        sys.stderr.write(words.mail(messages, now.agent) + "\n")
        sys.stderr.flush()
        # A turn that had begun when the mail came may prove a request that was made before it.
        hand(now, messages, proofs=1 if now.is_idle else 2)
        now.is_idle = False
        now.save()
    finally:
        now.close()
    return WAKES


def adapter(dialect: "Dialect", version: str = "") -> Adapter:
    """What this adapter can do for a message in a window of this program."""
    return Adapter(dialect.name, wakes=dialect.can_wake, mid_turn=True, evidence="turn", version=version)


def _once_idle(places: "Places", base: str, session: str) -> windows.Window | None:
    """The window, its file closed, once it is idle; None if its turn goes on."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        window = windows.find(places, base, session)
        if window is not None:
            window.close()
            if window.is_idle:
                return window
        if time.monotonic() > deadline:
            return None
        time.sleep(LOOK_S)


def _first(dialect: "Dialect", places: "Places", base: str, window: windows.Window) -> "list[dict[str, Any]]":
    """The first message that comes while the program lives, leased; nothing if the program ended."""
    program = _pidfd(window)
    if program is None:
        return []
    pause, complaint = 1.0, ""
    try:
        while True:
            stream = wire.Stream()
            try:
                asked = {
                    "take_id": wire.new_id("t"), "max": 1, "detached": True, "wait": calls.WAIT_SLICE_S,
                    "adapter": adapter(dialect)._asdict(),
                }  # fmt: skip
                sock = run(calls.open_control(wire.Caller(window.agent, places), stream, window.agent, "take", asked))
                if program in _readable([program, sock.fileno()], None):
                    return []
                messages: list[dict[str, Any]] = run(calls.hear(stream))["messages"]
                if messages:
                    return messages
                pause = 1.0
                continue
            except (BackchannelError, OSError) as error:
                if str(error) != complaint:
                    complaint = str(error)
                    log(places, base, dialect, "wait", error)
            finally:
                stream.close()
            if _readable([program], pause):
                return []
            pause = min(pause * 2, AGAIN_S_MAX)
    finally:
        os.close(program)


def _pidfd(window: windows.Window) -> int | None:
    try:
        fd = os.pidfd_open(window.pid)
    except ProcessLookupError:
        return None
    if window.is_live:  # asked after it was opened: so it is this process, and no other with its pid
        return fd
    os.close(fd)
    return None


def _readable(fds: list[int], timeout: float | None) -> list[int]:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)]
