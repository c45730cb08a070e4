#!/usr/bin/env python3
"""`systemctl` for tests: as much of a service manager as our units need, and a record of what it was asked.

It reads the unit files that were really written, opens the sockets they name, and starts the command they name when
somebody connects, with the descriptors under the names they give. It has no jobs, no limits, no sandbox, no restarts.
SYSTEMCTL_FOLDER is where it keeps its record and what is active; SYSTEMCTL_STATE what it says of itself.
"""

import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("SYSTEMCTL_FOLDER", "/nowhere"))
UNITS = Path(os.environ.get("SYSTEMCTL_UNITS", Path.home() / ".config/systemd/user"))
WANTS = UNITS / "sockets.target.wants"


def main(argv: list[str]) -> int:
    words = [word for word in argv if not word.startswith("--")]
    with (FOLDER / "calls").open("a") as calls:
        calls.write(json.dumps(argv) + "\n")
    state = os.environ.get("SYSTEMCTL_STATE", "running")
    verb, units = words[0], words[1:]
    if verb == "is-system-running":
        print(state)
        return 0 if state == "running" else 1
    if state != "running":
        print("Failed to connect to bus: No medium found", file=sys.stderr)
        return 1
    if verb == "is-active":
        print(*("active" if is_active(unit) else "inactive" for unit in units), sep="\n")
    for unit in units:
        if verb == "enable":
            WANTS.mkdir(exist_ok=True)
            (WANTS / unit).symlink_to(template(unit))
        elif verb == "disable":
            (WANTS / unit).unlink(missing_ok=True)
        elif verb == "stop" and unit.endswith(".service"):
            stop(instance(unit))
    if verb == "start" and not is_active(units[0]) and not is_forbidden(units[0]):
        start(units)
    return 0


def instance(unit: str) -> str:
    return unit.partition("@")[2].rpartition(".")[0]


def template(unit: str) -> Path:
    return UNITS / re.sub("@.*[.]", "@.", unit)


def setting(unit: str, key: str) -> str:
    """A value of the unit, specifiers replaced."""
    found = re.search(rf"^{key}=(.*)$", template(unit).read_text(), re.MULTILINE)
    return found[1].replace("%i", instance(unit)) if found else ""


def is_forbidden(unit: str) -> bool:
    return os.path.exists(setting(unit, "ConditionPathExists").removeprefix("!"))


def pid_of(name: str, what: str) -> int:
    try:
        pid = int((FOLDER / f"{name}.{what}").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return 0
    return pid


def is_active(unit: str) -> bool:
    return bool(pid_of(instance(unit), "service" if unit.endswith(".service") else "sockets"))


def stop(name: str) -> None:
    for what in ("sockets", "service"):  # the holder first, or it would start the daemon again
        if pid := pid_of(name, what):
            os.kill(pid, signal.SIGTERM)
            while pid_of(name, what):
                select.select([], [], [], 0.01)


def start(units: list[str]) -> None:
    """Opens the sockets, and leaves a process that holds them."""
    socks = []
    for unit in units:
        path = setting(unit, "ListenStream")
        for folder in (os.path.dirname(os.path.dirname(path)), os.path.dirname(path)):
            if not os.path.isdir(folder):
                os.mkdir(folder, int(setting(unit, "DirectoryMode"), 8))
        if os.path.lexists(path):
            os.unlink(path)
        sock = socket.socket(socket.AF_UNIX)
        os.fchmod(sock.fileno(), int(setting(unit, "SocketMode"), 8))
        os.umask(0)  # a socket's mode is what the unit says, and nothing else
        sock.bind(path)
        if user := setting(unit, "SocketUser"):
            shutil.chown(path, user, setting(unit, "SocketGroup"))
        sock.listen()
        socks.append(sock)
    if pid := os.fork():
        (FOLDER / f"{instance(units[0])}.sockets").write_text(str(pid))
        return
    os.setsid()
    with open(FOLDER / "journal", "ab") as journal, open(os.devnull) as null:
        for fd, file in ((0, null), (1, journal), (2, journal)):
            os.dup2(file.fileno(), fd)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    hold(units, socks)


def hold(units: list[str], socks: list[socket.socket]) -> None:
    service = setting(units[0], "Service")
    names = ":".join(setting(unit, "FileDescriptorName") for unit in units)
    fds = [os.dup2(sock.fileno(), 100 + sock.fileno()) for sock in socks]
    activate = f'LISTEN_PID=$$ LISTEN_FDS={len(fds)} LISTEN_FDNAMES={names} exec "$@" '
    activate += " ".join(f"{3 + number}<&{fd} {fd}<&-" for number, fd in enumerate(fds))
    command = shlex.split(setting(service, "ExecStart"))
    if user := setting(service, "User"):
        group, home = setting(service, "Group"), f"/var/lib/{setting(service, 'StateDirectory')}"
        os.makedirs(os.path.dirname(home), exist_ok=True)
        if not os.path.isdir(home):
            os.mkdir(home, int(setting(service, "StateDirectoryMode"), 8))
            shutil.chown(home, user, group)
        command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *command]
    while True:
        select.select(socks, [], [])
        argv = ["/bin/bash", "-c", activate, "sh", *command]
        with subprocess.Popen(argv, pass_fds=fds, cwd="/") as daemon:
            (FOLDER / f"{instance(service)}.service").write_text(str(daemon.pid))
            daemon.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
