"""A service manager's part of socket activation, for tests: it holds the sockets and starts the daemon when somebody
connects, each time anew; and it hears what the daemon says (sd_notify).

What is true of systemd here and what is not: the sockets, the environment and the order are those of sd_listen_fds(3)
and sd_notify(3). It has no jobs, no limits and no restarts.
"""

import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from ..world import START_S, World, eventually

FIRST_FD = 100  # far from where they are handed over

# Is the daemon, only sooner: the setting's floor is lowered, and the log is moved into the file at once.
SHORT_IDLE = """
import sys
from backchannel.daemon import config, server
config.SETTINGS["idle_exit_s"] = config.SETTINGS["idle_exit_s"]._replace(low=0.01)
server.CHECKPOINT_IDLE_S = 0.02
from backchannel.daemon.run import main
main(sys.argv[1:])
"""

ACTIVATE = """
import os, sys
names, fds = sys.argv[1], [int(fd) for fd in sys.argv[2].split(",")]
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Sockets:
    """Listening sockets as a service manager makes them. Closed with the world, if not before."""

    def __init__(
        self,
        world: World,
        name: str = "bob",
        *,
        listening: bool = True,
        make: Callable[[], socket.socket] | None = None,
    ) -> None:
        folder = world.dir / name
        for path in (world.dir, folder):
            path.mkdir(mode=0o700, exist_ok=True)
        self.socks = []
        for which in ("inbox", "control"):
            sock = make() if make else socket.socket(socket.AF_UNIX)
            if sock.family == socket.AF_UNIX:
                sock.bind(str(folder / f"{which}.sock"))
            if listening:
                sock.listen()
            self.socks.append(sock)
        self.fds = [os.dup2(sock.fileno(), FIRST_FD + sock.fileno()) for sock in self.socks]
        world.closes(self)

    def wrap(self, names: str = "inbox:control") -> list[str]:
        """The words before the daemon's command that hand them over."""
        return [sys.executable, "-c", ACTIVATE, names, ",".join(map(str, self.fds))]

    def close(self) -> None:
        for sock in self.socks:
            sock.close()
        while self.fds:
            os.close(self.fds.pop())


class SocketUnit:
    """Starts the daemon when a connection waits, and again when it ended and the next one comes; until closed."""

    def __init__(self, world: World, name: str = "bob", environment: dict[str, str] | None = None) -> None:
        self.sockets = Sockets(world, name)
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.log = world.root / f"unit-{name}.log"
        self._command = [*self.sockets.wrap(), sys.executable, "-P", "-c", SHORT_IDLE, name]
        self._command += ["--state", str(world.state), "--dir", str(world.dir)]
        self._environment = world.environment() | (environment or {})
        self._wake, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, self.log.open("wb") as log:
            for sock in (*self.sockets.socks, self._end):
                selector.register(sock, selectors.EVENT_READ)
            while not any(key.fileobj is self._end for key, _ in selector.select()):
                self.process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env=self._environment, pass_fds=self.sockets.fds,
                )  # fmt: skip
                self.starts += 1
                self.process.wait()

    @property
    def is_idle(self) -> bool:
        """No process serves; the sockets wait."""
        return self.process is not None and self.process.poll() is not None

    def said(self) -> str:
        return self.log.read_text()

    def await_idle(self, starts: int) -> None:
        eventually(lambda: self.starts >= starts and self.is_idle, f"start {starts} ended by itself", START_S)

    def close(self) -> None:
        self._wake.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
        self._thread.join(START_S)
        assert not self._thread.is_alive()
        self._end.close()
        self.sockets.close()


class Manager:
    """The service manager's end of sd_notify. Closed with the world."""

    def __init__(self, world: World) -> None:
        self.path = str(world.root / "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        world.closes(self)
        self.sock.settimeout(START_S)

    def told(self) -> list[str]:
        return self.sock.recv(4096).decode().splitlines()

    def is_silent(self) -> bool:
        self.sock.setblocking(False)
        try:
            self.sock.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.sock.settimeout(START_S)
        return False

    def close(self) -> None:
        self.sock.close()
