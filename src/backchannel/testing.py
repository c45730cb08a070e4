"""A private world of agents for tests: its own directories, real daemons, and nothing left behind.

`World` needs nothing but this package. Where pytest is installed, `pytest_plugins = ["backchannel.testing"]` gives the
fixture `backchannel_world`, which also points the environment there: code under test that says `Agent("analyst")`
finds the private world, not yours.
"""

import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from .client import calls, wire
from .client.aio import AsyncAgent
from .client.blocking import Agent
from .client.drive import run
from .client.reach import START_S
from .errors import BackchannelError, PeerAbsent, TimedOut
from .protocol.names import AgentName
from .transport import start
from .transport.dial import connect, peer_pid
from .transport.lock import served_in
from .transport.paths import CONTROL, Places, register, write_private

STOP_S = 5.0
COMMAND_S = 30.0


class World:
    """Agents of their own, in a directory that only we may enter. Use it with `with`, or call `close`.

    `paths` says where its mailboxes and sockets lie, `env` is the environment of a process that lives in it.
    """

    def __init__(self) -> None:
        # Short, because a socket's path has to fit in 107 bytes; made 0700.
        self.directory = tempfile.mkdtemp(prefix="bc-")
        self.paths = Places(self.directory + "/run", self.directory + "/state")
        self.env = {key: value for key, value in os.environ.items() if key != "BACKCHANNEL_AGENT"}
        self.env |= {"BACKCHANNEL_STATE": self.paths.state_dir, "BACKCHANNEL_DIR": self.paths.socket_dir}
        self._agents: list[Agent] = []

    def agent(self, name: str) -> Agent:
        """An agent of this world, its daemon running. Closed with the world, if not before."""
        agent = Agent(name, places=self.paths)
        self._agents.append(agent)
        return agent

    def async_agent(self, name: str) -> AsyncAgent:
        """The same for asyncio. Close it in the loop that used it: `async with world.async_agent(name) as agent`."""
        return AsyncAgent(name, places=self.paths)

    def up(self, *names: str) -> None:
        """Makes agents and starts their daemons, all at once, also those that are down; returns when they answer."""
        for name in names:
            register(self.paths, AgentName(name))
            start.record(self.paths, name)
            down = self.paths.state(name, "down")
            if os.path.exists(down):
                os.unlink(down)
            if served_in(self.paths.state(name, "lock")) is None:
                start.start(self.paths, name)
        caller = wire.Caller(None, self.paths)
        deadline = time.monotonic() + START_S
        try:
            for name in names:
                # It is on its way; a ping that found nobody would start another.
                while served_in(self.paths.state(name, "lock")) is None and time.monotonic() < deadline:
                    time.sleep(0.002)
                run(calls.ping(caller, name))
        finally:
            caller.close()

    def stop(self, name: str) -> bool:
        """Ends NAME's daemon in order; the next call to it starts another. False if none ran."""
        caller = wire.Caller(None, self.paths)
        try:
            return run(calls.stop(caller, name, STOP_S))
        finally:
            caller.close()

    def kill(self, name: str) -> int:
        """Ends NAME's daemon by SIGKILL, as a crash would. Returns the pid it had, once it is gone."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + STOP_S
        while _is_alive(pid):  # its lock may be another's at once: somebody may have asked for a new daemon
            if time.monotonic() > deadline:
                raise TimedOut(f"the daemon of {name} (pid {pid}) did not die within {STOP_S:g} s", waited=STOP_S)
            time.sleep(0.001)
        return pid

    def pid(self, name: str) -> int:
        """The pid of NAME's daemon. Raises `PeerAbsent` if none runs."""
        try:
            sock = connect(f"{self.paths.sockets(name)}/{CONTROL}", 1.0)
        except OSError as error:
            raise PeerAbsent(
                f"{name} has no daemon running ({error.strerror})", hint="start it: world.up(name)"
            ) from None
        try:
            return peer_pid(sock)
        finally:
            sock.close()

    def cli(
        self, *args: str, agent: str | None = None, input: str | None = None, timeout: float = COMMAND_S
    ) -> "subprocess.CompletedProcess[str]":
        """Runs `backchannel ARGS` in this world, as `agent` if one is named. The exit code is in `returncode`."""
        return subprocess.run(
            [command(), *args],
            input=input if input is not None else "",
            capture_output=True,
            text=True,
            env=self.env_of(agent),
            timeout=timeout,
            check=False,
        )

    def env_of(self, agent: str | None) -> dict[str, str]:
        """The environment of a process that is `agent`, or nobody in particular."""
        return self.env if agent is None else self.env | {"BACKCHANNEL_AGENT": agent}

    def close(self) -> None:
        """Closes the agents, ends every daemon, also those that were started on demand, and removes the directory."""
        for agent in self._agents:
            agent.close()
        self._agents.clear()
        self._end_daemons()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end_daemons(self) -> None:
        names = self.paths.registered()
        for name in names:  # so that no daemon's outbox starts another one meanwhile
            write_private(self.paths.state(name, "down"), "the test is over\n")
        deadline = time.monotonic() + STOP_S
        while pids := self._daemons(names):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if time.monotonic() > deadline:
                raise TimedOut(f"daemons of {self.directory} did not die: {pids}", waited=STOP_S)
            time.sleep(0.002)

    def _daemons(self, names: list[str]) -> list[int]:
        """The daemons of this world; where /proc tells, also those that are only about to bind their sockets."""
        if not os.path.isdir("/proc/self"):
            return [pid for name in names if (pid := self._pid_or_none(name))]
        mine = b"\0--state\0" + os.fsencode(self.paths.state_dir) + b"\0"
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and mine in _command_line(entry)]

    def _pid_or_none(self, name: str) -> int | None:
        try:
            return self.pid(name)
        except BackchannelError:
            return None


def command() -> str:
    """The `backchannel` command that was installed with this package."""
    installed = os.path.join(sysconfig.get_path("scripts"), "backchannel")
    found = installed if os.access(installed, os.X_OK) else shutil.which("backchannel")
    if found is None:
        raise BackchannelError("the command backchannel is not installed", hint="pip install backchannel")
    return found


def _command_line(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def backchannel_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
        """A private world of agents; the environment of the test points there."""
        with World() as world:
            for variable in ("BACKCHANNEL_STATE", "BACKCHANNEL_DIR"):
                monkeypatch.setenv(variable, world.env[variable])
            monkeypatch.delenv("BACKCHANNEL_AGENT", raising=False)
            yield world


def _is_alive(pid: int) -> bool:
    """Whether any thread of the process runs: the last one to go is the one that lets go of sockets and locks.

    The first thread shows as a zombie as soon as it is dead, whatever the others still hold. A process that has no
    thread left and is not reaped yet holds nothing any more.
    """
    try:
        with open(f"/proc/{pid}/stat") as file:
            is_zombie = file.read().rpartition(")")[2].split()[0] == "Z"
        return not is_zombie or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False
