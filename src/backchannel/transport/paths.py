"""Where things lie, and whether those places are safe to use.

Sockets in DIR, mailboxes in STATE (`docs/architecture.md` has the picture). Never /tmp; directories are opened without
following a link and checked to be ours and closed to others before anything in them is trusted.
"""

import errno
import os
import stat
from _thread import get_ident

from ..errors import BackchannelError, LocalProtocolError, NotPermitted, OverLimit
from ..protocol.names import is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .policy import Policy

POLICY = "/etc/backchannel/policy.toml"
INBOX = "inbox.sock"
CONTROL = "control.sock"
SOCKET_PATH_BYTES_MAX = 107  # sun_path less its NUL


class Places:
    """The two roots. `socket_dir` is DIR, `state_dir` is STATE; both absolute."""

    __slots__ = ("_policy", "policy_path", "socket_dir", "state_dir")

    def __init__(self, socket_dir: str, state_dir: str) -> None:
        self.socket_dir = socket_dir
        self.state_dir = state_dir
        self.policy_path = os.environ.get("BACKCHANNEL_POLICY") or POLICY
        self._policy: tuple[tuple[int, int, int], Policy | None] | None = None

    def state(self, name: str, file: str = "") -> str:
        return f"{self.state_dir}/{name}/{file}" if file else f"{self.state_dir}/{name}"

    def sockets(self, name: str) -> str:
        return f"{self.socket_dir}/{name}"

    def own(self) -> list[str]:
        """The names of this user's agents, sorted."""
        return sorted(n for n in _entries(self.state_dir) if self.is_ours(n))

    def registered(self) -> list[str]:
        """All names with a mailbox, sorted; in the system layout also those that its policy gives to somebody."""
        found = set(self.own())
        found.update(n for n in _entries(self.socket_dir) if os.path.exists(f"{self.socket_dir}/{n}/{INBOX}"))
        if (policy := self.policy()) is not None:
            found.update(policy.owners)
        return sorted(found)

    def is_ours(self, name: str) -> bool:
        """Whether this user has an agent NAME. Only its daemon gets to see a key."""
        return os.path.exists(self.state(name, "key"))

    def policy(self) -> "Policy | None":
        """Who owns which name, if DIR is the system's; else None: everything belongs to one user.

        Read again when the file changed. Raises `NotPermitted`, `LocalProtocolError` for a policy not to be trusted.
        """
        try:
            status = os.stat(self.policy_path)
        except OSError:
            return None
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if self._policy is None or self._policy[0] != seen:
            from .policy import read_policy

            found = read_policy(self.policy_path)
            self._policy = seen, found if found is not None and found.socket_dir == self.socket_dir else None
        return self._policy[1]

    def may_serve(self, name: str, uid: int) -> bool:
        """Whether a process of this uid at NAME's sockets can be NAME's daemon: our own, one whose sockets root opened
        for it, or its owner's in the system layout."""
        if uid in (os.geteuid(), 0):
            return True
        policy = self.policy()
        return policy is not None and policy.owners.get(name) == uid and not self.is_ours(name)


def find_places(socket_dir: str | None = None, state_dir: str | None = None) -> Places:
    """DIR and STATE as `docs/architecture.md` orders them. Nothing is made or checked yet.

    Raises `LocalProtocolError` for a relative path in the environment: two processes would mean two places.
    """
    env = os.environ
    state = state_dir or env.get("BACKCHANNEL_STATE")
    if not state:
        base = env.get("XDG_STATE_HOME")
        state = (base if base and base.startswith("/") else os.path.expanduser("~/.local/state")) + "/backchannel"
    sockets = socket_dir or env.get("BACKCHANNEL_DIR")
    if not sockets:
        base = env.get("XDG_RUNTIME_DIR")
        if not base or not base.startswith("/"):
            base = f"/run/user/{os.geteuid()}"
            if not _is_ours(base):
                base = ""
        sockets = base + "/backchannel" if base else state + "/run"
    for variable, path in (("BACKCHANNEL_STATE", state), ("BACKCHANNEL_DIR", sockets)):
        if not path.startswith("/") or "\0" in path:
            raise LocalProtocolError(f"{variable}={path} is not an absolute path", hint=f"set {variable} to one")
    return Places(sockets.rstrip("/"), state.rstrip("/"))


def open_private(path: str, *, make: bool = False) -> int:
    """A descriptor of a directory that is ours, closed to others, and no link. The caller closes it.

    With `make` it is made, 0700, with its parents. Raises `NotPermitted` with what is wrong and the command that mends
    it, or `FileNotFoundError`.
    """
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_RDONLY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        if not make:
            raise
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                pass  # another process made it just now
            fd = os.open(path, flags)
        except OSError as error:
            raise _unusable(path, f"cannot be made ({os.strerror(error.errno or 0)})") from None
    except NotADirectoryError:
        what = "a symbolic link" if os.path.islink(path) else "no directory"
        raise _unusable(path, f"is {what}", f"remove it, or name another place: ls -ld {path}") from None
    except OSError as error:
        raise _unusable(path, f"cannot be opened ({os.strerror(error.errno or 0)})") from None
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        os.close(fd)
        raise _unusable(path, f"belongs to uid {status.st_uid}, not to us ({os.geteuid()})", "name another place")
    if status.st_mode & 0o077:
        os.close(fd)
        mode = stat.S_IMODE(status.st_mode)
        raise _unusable(path, f"is open to others (mode {mode:04o})", f"chmod 700 {path}")
    return fd


def check_private(path: str, *, make: bool = False) -> None:
    """As `open_private`, for those who only want to know."""
    os.close(open_private(path, make=make))


def check_socket_dir(places: Places, *, make: bool = False) -> None:
    """Raises `NotPermitted` if DIR is not safe to serve in: ours alone, or root's in the system layout."""
    if places.policy() is None:
        check_private(places.socket_dir, make=make)
        return
    from .policy import check_system_dir

    check_system_dir(places.socket_dir)


def read_key(places: Places, name: str) -> str | None:
    """The agent's secret, in hex, or None if there is none that we may read. Raises `OverLimit` without descriptors."""
    path = places.state(name, "key")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        check_descriptors(error, path)
        return None
    try:
        return os.read(fd, 256).decode("ascii", "replace").strip() or None
    finally:
        os.close(fd)


def write_private(path: str, content: str) -> None:
    """Puts a small file there, 0600, whole or not at all. Raises `NotPermitted`, `BackchannelError` (`storage`)."""
    temporary = f"{path}.{os.getpid()}.{get_ident()}.new"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, os.fsencode(content))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise _unwritable(os.path.dirname(path), error) from None


def register(places: Places, name: str) -> bool:
    """Makes the name's directory and key. True if it was new. Raises `NotPermitted` where that is not possible."""
    if (policy := places.policy()) is not None:
        policy.check_owner(name, os.geteuid())
    check_private(places.state_dir, make=True)
    check_private(places.state(name), make=True)
    path = places.state(name, "key")
    if os.path.exists(path):
        return False
    temporary = f"{path}.{os.getpid()}.{get_ident()}.new"
    try:
        write_private(temporary, os.urandom(32).hex() + "\n")
        os.link(temporary, path)  # unlike a rename it fails if another process was first: a key is never replaced
    except FileExistsError:
        return False
    except OSError as error:
        raise _unwritable(places.state(name), error) from None
    finally:
        try:
            os.unlink(temporary)
        except OSError:
            pass
    return True


def _entries(path: str) -> list[str]:
    try:
        return [entry for entry in os.listdir(path) if is_name(entry)]
    except OSError as error:
        check_descriptors(error, path)
        return []


def check_descriptors(error: OSError, path: str) -> None:
    """Raises `OverLimit` (`busy`) if something could not be read for want of descriptors: that says nothing of it."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise OverLimit(
            f"{path} cannot be read now ({error.strerror})", code="busy", hint="try again in a moment", retry=True
        ) from None


def _is_ours(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _unwritable(path: str, error: OSError) -> BackchannelError:
    what = f"{path} cannot be written ({os.strerror(error.errno or 0)})"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotPermitted(what, hint=f"look at it: ls -ld {path}")
    return BackchannelError(what, code="storage", hint=f"look at the disk: df {path}")


def _unusable(path: str, why: str, hint: str = "") -> NotPermitted:
    return NotPermitted(f"{path} {why}", code="not_permitted", hint=hint or f"look at it: ls -ld {path}")
