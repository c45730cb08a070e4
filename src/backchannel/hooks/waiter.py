"""The process that waits for mail while a window is idle, and wakes it: `backchannel hook DIALECT wait`.

It begins when a turn ended, and ends with its window, or when the next turn begins: other hooks bring the mail then. It
costs nothing while it waits: one process, asleep in one system call. Claude Code runs it in the background, and begins
a turn with what it wrote if it exits with 2. For Codex the hook of the turn's end starts it; it gives the mail to
`codex queue`, which begins a turn with it.
"""

import os
import select
import signal
import subprocess
import sys
import time

from ..client import calls, wire
from ..client.adapters import Adapter
from ..client.drive import run
from ..errors import BackchannelError, NotPermitted
from . import windows, words
from .engine import hand, log, return_unseen, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..transport.paths import Places
    from .dialects import Dialect

WAKES = 2  # the exit code
SETTLE_S = 5.0  # for the hook of the turn's end, which runs beside us, to say that the window is idle
LOOK_S = 0.05
QUEUE_S = 30.0
AGAIN_S_MAX = 60.0  # between attempts to reach a daemon that is down


def wait(dialect: "Dialect", places: "Places", base: str, said: "dict[str, Any]") -> int:
    """Returns 2 after it wrote mail to stderr, else 0: there is nothing to wait for any more."""
    if not dialect.waking:
        raise NotPermitted(f"{dialect.title} cannot be woken by a hook", hint="its mail comes with its next turn")
    if os.environ.get("CLAUDE_CODE_ENTRYPOINT", "").startswith("sdk"):
        return 0  # `claude -p` does not end before us: who asks once must not wait for mail that may never come
    session = said["session_id"]
    window = _once_idle(places, base, session)
    if window is None:
        return 0
    lock = windows.begin_waiting(window.path)
    if lock is None:
        return 0
    messages = _first(dialect, places, base, window)
    if not messages:
        return 0
    messages = take(places, window.agent, dialect.chars_max, messages)
    now = windows.find(places, base, session)
    try:
        if now is None or not now.is_live:
            return_unseen(places, window.agent, messages)
            return 0
        text = words.mail(messages, now.agent)
        if dialect.waking == "queue":
            return _queue(places, now, session, messages, text)
        try:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        except OSError:  # the program died meanwhile
            return_unseen(places, window.agent, messages)
            raise
        # A turn that had begun when the mail came may prove a request that was made before it.
        hand(now, messages, proofs=1 if now.is_idle else 2)
        now.is_idle = False
        now.save()
    finally:
        if now is not None:
            now.close()
    return WAKES


def _queue(places: "Places", window: windows.Window, session: str, messages: "list[dict[str, Any]]", text: str) -> int:
    """Begins a turn by the program's own command: the very binary that runs the window."""
    command = [f"/proc/{window.pid}/exe", "queue", "--thread", session, "--message", f"{words.QUEUED}\n\n{text}"]
    null = subprocess.DEVNULL
    try:
        done = subprocess.run(command, stdin=null, capture_output=True, text=True, timeout=QUEUE_S, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:  # too long for an argument, or with a NUL in it
        complaint = str(error)
    else:
        complaint = done.stderr.strip()[-500:] if done.returncode else ""
    if complaint:
        return_unseen(places, window.agent, messages)
        raise BackchannelError(f"codex queue failed: {complaint}", hint="its mail comes with its next turn")
    hand(window, messages, proofs=2)  # the prompt that it becomes is the first (`engine`)
    window.save()
    return 0


def adapter(dialect: "Dialect", version: str = "") -> Adapter:
    """What this adapter can do for a message in a window of this program."""
    return Adapter(dialect.name, wakes=bool(dialect.waking), mid_turn=True, evidence="turn", version=version)


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
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # with mail in its hands it does not end unheard
                messages: list[dict[str, Any]] = run(calls.hear(stream))["messages"]
                if messages:
                    return messages
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                pause = 1.0
                continue
            except (BackchannelError, OSError) as error:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
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
