"""Runs a command under the seccomp filters that systemd would make from a unit: `confined.py UNIT COMMAND...`.

Read from the unit itself, with systemd's own lists of system calls. Left out is what needs more than a filter: the
mounts and namespaces, which bubblewrap makes around this, and the control group.
"""

import ctypes
import errno
import os
import re
import subprocess
import sys

ALLOW = 0x7FFF0000
NOT_EQUAL, EQUAL, MASKED_EQUAL = 1, 4, 7
AF_UNIX = 1
PROT_WRITE, PROT_EXEC = 2, 4
NAMESPACES = 0x7E020080  # CLONE_NEW* together


class Argument(ctypes.Structure):
    """scmp_arg_cmp"""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class Filter:
    """One seccomp filter; several may be loaded, and the strictest answer counts."""

    def __init__(self, default: int) -> None:
        self._lib = ctypes.CDLL("libseccomp.so.2")
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._lib.seccomp_init.argtypes = [ctypes.c_uint32]
        self._context = ctypes.c_void_p(self._lib.seccomp_init(default))

    def rule(self, action: int, name: str, *arguments: tuple[int, int, int, int]) -> None:
        """Calls that this machine does not have are left out, as systemd does."""
        number = self._lib.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return
        array = (Argument * len(arguments))(*(Argument(*a) for a in arguments))
        failed = self._lib.seccomp_rule_add_array(self._context, ctypes.c_uint32(action), number, len(arguments), array)
        assert not failed, (name, failed)

    def load(self) -> None:
        failed = self._lib.seccomp_load(self._context)
        assert not failed, os.strerror(-failed)


def refuse(error: int) -> int:
    return 0x00050000 | error


def calls_of(word: str) -> set[str]:
    """The system calls of a group (`@name`), groups in it included."""
    if not word.startswith("@"):
        return {word}
    text = subprocess.run(
        ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
    ).stdout
    inner = (line.split()[0] for line in text.splitlines()[1:] if line.strip() and not line.strip().startswith("#"))
    return {call for name in inner for call in calls_of(name)}


def confine(unit: dict[str, list[str]]) -> None:
    allowed = calls_of("@default") | {"execve"}  # systemd allows these always: or it could not start anything
    for value in unit["SystemCallFilter"]:
        calls = {call for word in value.removeprefix("~").split() for call in calls_of(word)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    (number,) = unit["SystemCallErrorNumber"]
    calls_filter = Filter(refuse(getattr(errno, number)))
    for call in allowed:
        calls_filter.rule(ALLOW, call)
    more = Filter(ALLOW)
    assert unit["RestrictAddressFamilies"] == ["AF_UNIX"]
    more.rule(refuse(errno.EAFNOSUPPORT), "socket", (0, NOT_EQUAL, AF_UNIX, 0))
    assert unit["MemoryDenyWriteExecute"] == ["yes"]
    both = PROT_WRITE | PROT_EXEC
    more.rule(refuse(errno.EPERM), "mmap", (2, MASKED_EQUAL, both, both))
    more.rule(refuse(errno.EPERM), "mprotect", (2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
    more.rule(refuse(errno.EPERM), "pkey_mprotect", (2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
    assert unit["RestrictNamespaces"] == ["yes"]
    more.rule(refuse(errno.ENOSYS), "clone3")  # its flags cannot be looked at; libraries go on with clone
    for bit in (bit for bit in range(32) if NAMESPACES & 1 << bit):
        for call in ("clone", "unshare"):
            more.rule(refuse(errno.EPERM), call, (0, MASKED_EQUAL, 1 << bit, 1 << bit))
    more.rule(refuse(errno.EPERM), "setns")
    more.load()
    calls_filter.load()


def settings(path: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with open(path) as file:
        for key, value in re.findall(r"^(\w+)=(.*)$", file.read(), re.MULTILINE):
            found.setdefault(key, []).append(value)
    return found


if __name__ == "__main__":
    confine(settings(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
