"""What is done about a daemon that does not answer where its name is usually served: look for it elsewhere, start it.

Beside the fast path: whoever finds it running never imports this. The attempt begins anew here, so that there is one
place that says what a failure means.
"""

import errno
import os
import time

from ..errors import PeerAbsent, TimedOut
from ..protocol.names import closest
from ..transport.lock import served_in
from ..transport.paths import check_socket_dir
from ..transport.start import complaint_since, start, where_to_look
from .wire import ABSENT, Caller, Connect, Sleep, check_server, give_up_if_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..transport.dial import Socket
    from .wire import Conversation

START_S = 5.0  # how long a daemon may take to start
START_AGAIN_S = 1.0  # then one that holds no lock yet may have died; who starts in vain leaves unseen


def reach(caller: Caller, name: str, socket: str, deadline: float, *, may_start: bool) -> "Conversation[Socket]":
    """A connection to NAME's socket, wherever it is served; its daemon is started if it may be and must be."""
    places = caller.places
    folder = places.socket_dir
    start_next, log_bytes = 0.0, None
    pause = 0.002
    start_deadline = time.monotonic() + START_S
    if not may_start and places.is_ours(name) and served_in(places.state(name, "lock")) is None:
        check_startable(caller, name, may_start=False)  # to connect is to start it, where a service manager listens
    while True:
        path = f"{folder}/{name}/{socket}"
        try:
            sock: Socket = yield Connect(path, max(0.0, deadline - time.monotonic()))
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT):
                from . import sandbox  # beside the fast path

                raise sandbox.refused(path, error.errno) from None
            if error.errno not in ABSENT:
                give_up_if_over(error, name, deadline, START_S)
                yield Sleep(pause)
                continue
        else:
            check_server(caller, name, sock, path)
            return sock
        served = served_in(places.state(name, "lock"))
        if served and served != folder:
            folder = served
            continue
        if served is None:
            if complaint := complaint_since(places, name, log_bytes):
                raise PeerAbsent(f"the daemon of {name} did not start: {complaint}", hint="mend that, then try again")
            if time.monotonic() >= start_next:
                check_startable(caller, name, may_start=may_start)
                log_bytes = start(places, name)
                start_next = time.monotonic() + START_AGAIN_S
        if time.monotonic() > start_deadline:
            words, hint = where_to_look(places, name)
            raise PeerAbsent(
                f"the daemon of {name} did not start within {START_S:g} s" + (f" ({words})" if words else ""), hint=hint
            )
        if time.monotonic() > deadline:
            raise TimedOut(f"the daemon of {name} did not start in time", hint="try again in a moment")
        yield Sleep(pause)
        pause = min(pause * 1.5, 0.05)


def check_startable(caller: Caller, name: str, *, may_start: bool) -> None:
    """Raises `PeerAbsent` if NAME's daemon must not be started: unknown ("did you mean"), down, or not asked for."""
    places = caller.places
    if not places.is_ours(name):
        known = places.registered()
        if name in known:
            raise PeerAbsent(f"nobody answers at {places.sockets(name)}", hint=f"its owner can start {name}")
        nearest = closest(name, known)
        hint = f"did you mean {nearest}?" if nearest else f"make it: backchannel up {name}"
        raise PeerAbsent(f"there is no agent {name}", code="unknown_agent", hint=hint)
    if os.path.exists(places.state(name, "down")):
        raise PeerAbsent(f"{name} is down", hint=f"start it: backchannel up {name}")
    if os.path.lexists(places.socket_dir):
        check_socket_dir(places)  # no daemon serves in an unsafe place: say so instead of waiting for it
    if not may_start:
        raise PeerAbsent(f"the daemon of {name} does not run", hint=f"start it: backchannel up {name}")
