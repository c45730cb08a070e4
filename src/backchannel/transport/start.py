"""Starting somebody's daemon: by its service manager, or by the command recorded with the name, detached, and nothing
of ours inherited.

The starter never uses its own interpreter for another's agent: STATE/NAME/run says how, written by `up` or by the
agent itself. Who loses the race to start leaves unseen. Of an agent that is a service the manager is asked to open the
sockets; it starts the daemon when somebody connects.
"""

import os
import sys

from ..errors import PeerAbsent
from ..protocol.codec import Malformed, decode, encode
from .paths import Places, write_private

# In the environment of a daemon that was started for a push: one that comes late, since another was started beside it,
# must not undo a `down` of meanwhile. (No option: the command may be that of an older version.)
ON_DEMAND = "BACKCHANNEL_ON_DEMAND"

# This installation's backchanneld, wherever the PATH leads.
DAEMON = [sys.executable, "-P", "-m", "backchannel.daemon"]

# The shell puts it in the background and ends: the daemon is nobody's child, and nobody's zombie. `exec`, or the
# background shell would stay and wait for it.
_RUN = 'cd / && exec "$@" &'
# What the manager answers to a start it refuses goes where a daemon's own complaints go.
_ASK = """cd / && { said=$("$@" 2>&1) || printf '%s error %s\\n' "$(date +%Y-%m-%dT%H:%M:%S)" "$(echo $said)"; } &"""


def record(places: Places, name: str) -> None:
    """Writes how NAME's daemon is started: with this interpreter. Only for one's own agents, and `up`."""
    path = places.state(name, "run")
    line = encode([*DAEMON, name, "--state", places.state_dir]) + "\n"
    try:
        with open(path) as file:
            if file.read() == line:
                return
    except OSError:
        pass
    write_private(path, line)


def can_serve() -> bool:
    """Whether this interpreter could run a daemon: it needs msgspec, which a client does not."""
    from importlib.util import find_spec

    return find_spec("msgspec") is not None


def start(places: Places, name: str) -> int:
    """Starts NAME's daemon in the background and returns at once, with the size of its log until then, in bytes.

    Raises `PeerAbsent` if nobody said how.
    """
    from .units import environment, unit_of  # only who has to start somebody pays for it

    if (unit := unit_of(places, name)) is not None:
        script, argv, env = _ASK, unit.systemctl("start", *unit.sockets), environment()
    else:
        script, argv = _RUN, [*command(places, name), "--dir", places.socket_dir]
        env = {"PATH": os.defpath, "HOME": os.path.expanduser("~"), "LANG": "C.UTF-8"}
        env["BACKCHANNEL_POLICY"] = places.policy_path
        env[ON_DEMAND] = "1"
    log = places.state(name, "log")
    log_bytes = _size(log)
    pid = os.posix_spawn(
        "/bin/sh",
        ["/bin/sh", "-c", script, "sh", *argv],
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable_descriptors() if fd > 2),
        ],
        setsid=True,
    )
    os.waitpid(pid, 0)
    return log_bytes


def complaint_since(places: Places, name: str, log_bytes: int | None) -> str:
    """The error a daemon that was started then has logged since, or "": why there is no use in waiting for it."""
    log = places.state(name, "log")
    if log_bytes is None or (size := _size(log)) == log_bytes:
        return ""
    try:
        with open(log, "rb") as file:
            file.seek(log_bytes if size > log_bytes else 0)  # it may have been turned over meanwhile
            lines = file.read(65536).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(" error ")[2] for line in lines if " error " in line), "")


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def where_to_look(places: Places, name: str) -> tuple[str, str]:
    """For an error text: the last line of the daemon's log, and where the others are."""
    from .units import unit_of

    if (unit := unit_of(places, name)) is not None:
        return "", unit.journal
    return _last_words(places, name), f"look at {places.state(name, 'log')}"


def _last_words(places: Places, name: str) -> str:
    try:
        with open(places.state(name, "log"), "rb") as file:
            file.seek(max(0, os.path.getsize(file.name) - 2000))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def command(places: Places, name: str) -> list[str]:
    """The recorded command. Raises `PeerAbsent` if there is none that could run."""
    path = places.state(name, "run")
    try:
        with open(path) as file:
            argv = decode(file.read())
    except FileNotFoundError:
        raise PeerAbsent(
            f"{name} has no daemon running, and nobody recorded how to start it", hint=f"backchannel up {name}"
        ) from None
    except (Malformed, UnicodeDecodeError) as error:
        raise PeerAbsent(f"{path} is damaged ({error})", hint=f"backchannel up {name} writes it anew") from None
    if not isinstance(argv, list) or not argv or not all(isinstance(a, str) for a in argv):
        raise PeerAbsent(f"{path} is no command", hint=f"backchannel up {name} writes it anew")
    if not os.access(argv[0], os.X_OK):
        raise PeerAbsent(
            f"{name}'s daemon was started with {argv[0]}, which is gone", hint=f"backchannel up {name} records another"
        )
    return argv


def _inheritable_descriptors() -> list[int]:
    try:
        listed = [int(fd) for fd in os.listdir("/proc/self/fd")]
    except OSError:
        listed = list(range(256))
    return [fd for fd in listed if _is_inheritable(fd)]


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False  # another thread has closed it meanwhile
