"""Removes the agent of a second window that ended, if its mailbox is empty and no new window took it over.

A process of its own, because a window that closes has a second for all its hooks. It holds the lock under which windows
get their agents, so that none gets this one meanwhile.
"""

import os
import subprocess
import sys
from fcntl import LOCK_EX, flock

from ..client import calls, wire
from ..client.drive import run
from ..errors import BackchannelError
from . import windows

MODULE = __name__


def start(base: str, agent: str) -> None:
    """Lets it happen in the background."""
    command = [sys.executable, "-P", "-m", MODULE, base, agent]
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    os.posix_spawn(command[0], command, os.environ, file_actions=null, setsid=True)


def remove(base: str, agent: str) -> None:
    caller = wire.Caller(None)
    places = caller.places
    lock = os.open(windows.folder(places, base), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flock(lock, LOCK_EX)
        if agent in windows.live(places, base) or not windows.is_made_for(places, base, agent):
            return
        if run(calls.status(caller, agent))["backlog"]:
            return  # `remove` would refuse too, but the agent would be down for a moment
        command = [sys.executable, "-P", "-c", "from backchannel.cli.main import main; main()", "remove", agent]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    except BackchannelError:
        pass  # somebody was faster
    finally:
        os.close(lock)


if __name__ == "__main__":
    remove(*sys.argv[1:])
