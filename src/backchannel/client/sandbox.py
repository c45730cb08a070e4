"""A process that may not use Unix sockets: what it is told, and the line that allows them where it runs.

Coding agents run commands confined: a seccomp filter lets `socket` or `connect` fail with EPERM, on macOS a profile
does. That looks the same whoever did it, so the program around us is told by the variables it sets for its commands.
The lines are what each program documents; where it can allow single paths, they name only ours.
"""

import errno
import os
import sys

from ..errors import NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def refused(path: str, why: int) -> NotPermitted:
    """The error for a socket that could not be made or reached: EPERM, EACCES, EAFNOSUPPORT (which is how systemd's
    RestrictAddressFamilies says no)."""
    if why == errno.EACCES and not _is_ours(path):
        return NotPermitted(f"{path} is not ours to open", hint="it belongs to another user's agent")
    return NotPermitted(
        f"a sandbox keeps this process from Unix sockets ({errno.errorcode[why]} for {path})",
        code="sandbox",
        hint=allow_line(os.path.dirname(os.path.dirname(path)), os.environ),
    )


def allow_line(socket_dir: str, environ: "Mapping[str, str]", platform: str = sys.platform) -> str:
    """What to write where, so that the sandbox lets us through."""
    is_mac = platform == "darwin"
    if "CODEX_SANDBOX_NETWORK_DISABLED" in environ or "CODEX_SANDBOX" in environ:
        if is_mac:
            return f'in ~/.codex/config.toml: [permissions.NAME.network.unix_sockets] "{socket_dir}" = "allow"'
        return "in ~/.codex/config.toml: [sandbox_workspace_write] network_access = true"
    if "CLAUDECODE" in environ:
        allowed = f'"allowUnixSockets": ["{socket_dir}"]' if is_mac else '"allowAllUnixSockets": true'
        return f'in ~/.claude/settings.json: {{"sandbox": {{"network": {{{allowed}}}}}}}'
    if "GEMINI_CLI" in environ and is_mac:
        return "start gemini with SEATBELT_PROFILE=permissive-open"
    if "INVOCATION_ID" in environ:
        return "in the systemd unit: RestrictAddressFamilies=AF_UNIX"
    return f"allow Unix sockets below {socket_dir} in what confines it"


def _is_ours(path: str) -> bool:
    """Whether the file itself would let us in: then it is not its mode that keeps us out."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return status.st_uid == os.geteuid() and bool(status.st_mode & 0o200)
