"""The system layout: every agent has a uid of its own, and a file of root's says which uid owns which name.

Without that file there is one user, and DIR is his. With it DIR is root's; in it each name has a directory of its
owner's that a shared group may enter, and an inbox that the group may connect to. A name's owner may speak as it, and
only its owner's process is believed to be its daemon: by the kernel's word, without a key.
`docs/a-uid-per-agent.md` shows one.
"""

import grp
import os
import pwd
import stat
from typing import Any

from ..errors import BackchannelError, LocalProtocolError, NotPermitted
from ..protocol.names import AgentName
from .paths import check_descriptors

DIR = "/run/backchannel"
GROUP = "backchannel"


class Policy:
    """What the file says. `owners` has the uid of each name; `users` are uids that may push as themselves."""

    __slots__ = ("gid", "group", "model_driven", "owners", "path", "socket_dir", "users")

    def __init__(
        self,
        path: str,
        socket_dir: str,
        group: str,
        gid: int,
        owners: dict[str, int],
        users: frozenset[int],
        model_driven: frozenset[str],
    ) -> None:
        self.path = path
        self.socket_dir = socket_dir
        self.group = group
        self.gid = gid
        self.owners = owners
        self.users = users
        self.model_driven = model_driven

    def permits(self, uid: int) -> bool:
        """Whether a process of this uid may ask anything of an inbox."""
        return uid in self.users or uid in self.owners.values()

    def check_owner(self, name: str, uid: int) -> None:
        """Raises `NotPermitted` unless NAME belongs to this uid."""
        owner = self.owners.get(name)
        if owner is None:
            raise NotPermitted(
                f"{self.path} gives the name {name} to nobody", hint=f"root adds it under [agents]: {name} = {uid}"
            )
        if owner != uid:
            raise NotPermitted(
                f"{name} belongs to uid {owner}, not to us ({uid})", hint=f"{self.path} says so; its owner may do that"
            )


def read_policy(path: str) -> Policy | None:
    """The policy, or None if there is none. Raises `NotPermitted` for a file that another than root could have written,
    `LocalProtocolError` (`bad_config`) for one that says what it cannot."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        check_descriptors(error, path)
        raise NotPermitted(f"{path} cannot be read ({error.strerror})", hint=f"look at it: ls -l {path}") from None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
            mode = stat.S_IMODE(status.st_mode)
            raise NotPermitted(
                f"{path} decides who is who, and could be written by others (uid {status.st_uid}, mode {mode:04o})",
                hint=f"chown root {path} && chmod 644 {path}",
            )
        import tomllib  # only where there is a policy: every daemon would pay for it

        try:
            return _parsed(path, tomllib.load(file))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise _wrong(path, f"is not TOML: {error}") from None


def check_system_dir(path: str) -> None:
    """Raises `NotPermitted` unless DIR is root's and nobody else can put anything in it, `FileNotFoundError`."""
    status = os.stat(path, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        raise NotPermitted(f"{path} is no directory", hint=f"look at it: ls -ld {path}")
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise NotPermitted(
            f"{path} could be changed by others (uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"chown root {path} && chmod 755 {path}",
        )


def open_shared(path: str, gid: int) -> int:
    """A descriptor of a name's directory in the system layout: its owner's, for a group to enter, and no link."""
    try:
        fd = os.open(path, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotPermitted(
            f"{path} does not exist, and only root may make it",
            hint=f"install -d -o {os.geteuid()} -g {gid} -m 2750 {path}",
        ) from None
    except OSError as error:
        raise NotPermitted(f"{path} cannot be opened ({error.strerror})", hint=f"look at it: ls -ld {path}") from None
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_gid != gid or status.st_mode & 0o027:
        os.close(fd)
        owner = f"uid {status.st_uid}, gid {status.st_gid}, mode {stat.S_IMODE(status.st_mode):04o}"
        raise NotPermitted(
            f"{path} is not a directory of ours that group {gid} may enter ({owner})",
            hint=f"chown {os.geteuid()}:{gid} {path} && chmod 2750 {path}",
        )
    return fd


def _parsed(path: str, found: dict[str, Any]) -> Policy:
    if unknown := sorted(found.keys() - {"dir", "group", "users", "agents"}):
        raise _wrong(path, f"has an unknown key {unknown[0]!r}", "known are dir, group, users and the table agents")
    socket_dir, group = found.get("dir", DIR), found.get("group", GROUP)
    users, agents = found.get("users", []), found.get("agents", {})
    if not isinstance(socket_dir, str) or not socket_dir.startswith("/"):
        raise _wrong(path, f"dir = {socket_dir!r}", "use an absolute path")
    if not isinstance(users, list) or not isinstance(agents, dict):
        raise _wrong(path, "needs a list `users` and a table `agents`")
    owners: dict[str, int] = {}
    model_driven = set()
    for key, value in agents.items():
        try:
            name = str(AgentName(key))
        except BackchannelError as error:
            raise _wrong(path, f"has an agent {error.message}", error.hint) from None
        about = value if isinstance(value, dict) else {"user": value}
        if not about.keys() <= {"user", "driven_by"} or about.get("driven_by", "program") not in ("program", "model"):
            raise _wrong(path, f"{name} = {value!r}", 'use { user = "bc-NAME", driven_by = "model" }')
        owners[name] = _uid(path, about.get("user"))
        if about.get("driven_by") == "model":
            model_driven.add(name)
    return Policy(
        path,
        socket_dir.rstrip("/"),
        str(group),
        _gid(path, group),
        owners,
        frozenset(_uid(path, user) for user in users),
        frozenset(model_driven),
    )


def _uid(path: str, user: object) -> int:
    if type(user) is int and 0 <= user < 2**32 - 1:
        return user
    try:
        return pwd.getpwnam(user).pw_uid if isinstance(user, str) else _no_id(user)
    except KeyError:
        raise _wrong(
            path, f"names a user {user!r} that does not exist", "use a user of this machine, or a uid"
        ) from None


def _gid(path: str, group: object) -> int:
    if type(group) is int and 0 <= group < 2**32 - 1:
        return group
    try:
        return grp.getgrnam(group).gr_gid if isinstance(group, str) else _no_id(group)
    except KeyError:
        raise _wrong(
            path, f"names a group {group!r} that does not exist", f"make it: groupadd --system {group}"
        ) from None


def _no_id(value: object) -> int:
    raise KeyError(value)


def _wrong(path: str, what: str, hint: str = "") -> LocalProtocolError:
    return LocalProtocolError(f"{path} {what}", code="bad_config", hint=hint or "mend the file, then start again")
