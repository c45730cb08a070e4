"""Listening sockets: 0600 from their first instant, reached through a checked directory, never a moment absent.

The mode is set on the descriptor before bind (no chmod of a path, no umask game); bind goes to a temporary name inside
the directory's descriptor; once it listens it is renamed over the old one. Only who holds the name's lock may do this.
"""

import os
import socket
import stat
from struct import Struct

from ..errors import NotPermitted
from ..protocol.envelope import Peer
from .dial import Socket
from .paths import CONTROL, INBOX, open_private
from .policy import open_shared

BACKLOG = 512  # connections the kernel keeps for us; beyond it senders wait their turn
LISTEN_FDS_START = 3


class Listener:
    """A listening socket and what we need to know that it is still ours. `inode` is None for an inherited one; `gid` is
    the group that may enter its directory, in the system layout."""

    __slots__ = ("gid", "inode", "mode", "path", "sock")

    def __init__(
        self, sock: socket.socket, path: str, inode: int | None, mode: int = 0o600, gid: int | None = None
    ) -> None:
        self.sock = sock
        self.path = path
        self.inode = inode
        self.mode = mode
        self.gid = gid

    def is_in_place(self) -> bool:
        """Whether the path still leads to this socket."""
        if self.inode is None:
            return True
        try:
            return os.lstat(self.path).st_ino == self.inode
        except OSError:
            return False

    def close(self) -> None:
        """Stops listening; takes the path away only if it is still ours and we bound it."""
        if self.inode is not None and self.is_in_place():
            try:
                os.unlink(self.path)
            except OSError:
                pass
        self.sock.close()


def listen(folder: str, file: str, *, mode: int = 0o600, gid: int | None = None, make: bool = True) -> Listener:
    """A socket listening at `folder/file`. With `gid` the folder is root's gift, which that group may enter.

    Raises `NotPermitted` for an unsafe folder or a place that is not ours to take, `OSError` otherwise.
    """
    fd = open_private(folder, make=make) if gid is None else open_shared(folder, gid)
    if _is_listened_at(f"{folder}/{file}"):
        os.close(fd)
        raise NotPermitted(
            f"another program listens at {folder}/{file}",
            hint="a service manager hands its sockets only to the process it starts itself: use `backchannel up`",
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    temporary = f".{file}.{os.getpid()}"
    try:
        os.fchmod(sock.fileno(), mode)
        try:
            os.unlink(temporary, dir_fd=fd)
        except FileNotFoundError:
            pass
        # The kernel takes the umask off the mode that the descriptor has: let it take nothing of what is asked for.
        umask = os.umask(0o777 & ~mode)
        try:
            sock.bind(f"/proc/self/fd/{fd}/{temporary}")
        finally:
            os.umask(umask)
        sock.listen(BACKLOG)
        # The path's inode, not the socket's: fstat of a socket descriptor tells another number.
        status = os.stat(temporary, dir_fd=fd, follow_symlinks=False)
        if gid is not None and status.st_gid != gid:
            raise NotPermitted(
                f"a socket made in {folder} belongs to group {status.st_gid}, not to {gid}", hint=f"chmod g+s {folder}"
            )
        os.rename(temporary, file, src_dir_fd=fd, dst_dir_fd=fd)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(fd)
    return Listener(sock, f"{folder}/{file}", status.st_ino, mode, gid)


def _is_listened_at(path: str) -> bool:
    """Whether a socket bound to exactly this path listens. We hold the name's lock, so it is no daemon of ours: a
    service manager keeps it, even while nobody serves. (Ours are bound under another name, and renamed.)

    Looked up, not tried: a connection would be answered by starting a daemon.
    """
    if not os.path.lexists(path):
        return False
    ending = b" " + os.fsencode(path) + b"\n"
    try:
        with open("/proc/net/unix", "rb") as sockets:
            return any(line.endswith(ending) and int(line.split()[3], 16) & _SO_ACCEPTCON for line in sockets)
    except OSError:
        return False


_SO_ACCEPTCON = 0x10000  # in the flags of /proc/net/unix: it listens


def accept(listener: socket.socket) -> tuple[Socket, Peer]:
    """One waiting connection, non-blocking, and the kernel's word on who it is. Raises as `accept(2)`.

    Descriptors that a peer passes along are never received: nothing here reads ancillary data.
    """
    fd, _ = listener._accept()  # type: ignore[attr-defined]
    sock = Socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    sock.setblocking(False)
    return sock, peer_of(sock)


def peer_of(sock: Socket) -> Peer:
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Peer(uid, gid, pid)


_CREDENTIALS = Struct("iII")  # struct ucred


def inherited(folder: str) -> tuple[Listener, Listener] | None:
    """The inbox and the control socket that a service manager opened for us (sd_listen_fds), or None if there are none.

    Takes them over and clears the variables; they are never rebound, renamed or unlinked. Raises `ValueError` for
    descriptors that cannot be ours: both must lie in `folder`, where clients look for them.
    """
    pid, count, names = (os.environ.pop(v, "") for v in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdigit():
        return None
    labels = names.split(":") if names else []
    if len(labels) != int(count) or sorted(labels) != ["control", "inbox"]:
        raise ValueError(f"{count} sockets inherited as {names!r}: needed are inbox and control (FileDescriptorName=)")
    inbox, control = (LISTEN_FDS_START + labels.index(label) for label in ("inbox", "control"))
    return _inherited(inbox, f"{folder}/{INBOX}"), _inherited(control, f"{folder}/{CONTROL}")


def _inherited(fd: int, path: str) -> Listener:
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError as error:
        raise ValueError(f"the inherited descriptor {fd} is not open") from error
    if not is_socket:
        raise ValueError(f"the inherited descriptor {fd} is no socket")
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"the inherited descriptor {fd} is no unix stream socket (ListenStream= with a path)")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(f"the inherited descriptor {fd} does not listen (Accept=no is needed)")
    bound = sock.getsockname()
    if bound != path and not _is_same_file(bound, path):
        raise ValueError(f"the inherited descriptor {fd} is bound to {bound!r}, not to {path}")
    # Who connects is told by the kernel who listens: we, from now on, and not the manager that opened it.
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return Listener(sock, path, None)


def _is_same_file(bound: str | bytes, path: str) -> bool:
    try:
        return os.path.samefile(bound, path)
    except (OSError, ValueError):  # an abstract name has a NUL in it
        return False
