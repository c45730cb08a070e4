"""A private world of agents for one test: its own STATE and DIR, real daemons as processes, raw sockets to them.

Nothing here imports the daemon: what a test knows of it comes over its sockets, its exit status, its files and its log.
Nothing sleeps for a fixed time: `eventually` waits for a condition, with an end.
"""

import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from backchannel import Agent
from backchannel.transport.paths import Places

START_S = 15.0  # a loaded machine starts an interpreter slowly
ANSWER_S = 10.0
STRANGER = 4001  # a uid that owns nothing here

T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str = "", within: float = ANSWER_S) -> T:
    """The first true value of `condition`. Fails the test if there is none within so many seconds."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within:g} s: {what or condition}"
        time.sleep(0.005)


def stays(condition: Callable[[], object], during: float) -> bool:
    """Whether `condition` holds at every look for so many seconds."""
    deadline = time.monotonic() + during
    while time.monotonic() < deadline:
        if not condition():
            return False
        time.sleep(0.02)
    return True


class Failed(Exception):
    """A JSON-RPC error answer."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error
        self.code: str = error["data"]["code"]
        self.retry: bool = error["data"]["retry"]
        self.hint: str = error["data"]["hint"]


class Link:
    """One raw connection: bytes out, lines in. What any language's socket and JSON library can do."""

    def __init__(self, path: str, timeout: float = ANSWER_S) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The kernel's own timeout, because Python's does not wait for a place in a full backlog.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(timeout), 0))
        self._rest = b""
        self._last_id = 0
        try:
            self._connect(path)
            self.sock.settimeout(timeout)
        except BaseException:
            self.sock.close()
            raise

    def _connect(self, path: str) -> None:
        folder, _, file = path.rpartition("/")
        fd = os.open(folder, os.O_DIRECTORY | os.O_RDONLY)  # beats the kernel's 107 bytes of path
        try:
            self.sock.connect(f"/proc/self/fd/{fd}/{file}")
        finally:
            os.close(fd)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def line(self) -> bytes:
        """The next line; b"" when the other end closed."""
        while b"\n" not in self._rest:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:  # it closed without reading all we sent
                data = b""
            if not data:
                rest, self._rest = self._rest, b""
                return rest
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def answer(self) -> dict[str, Any]:
        line = self.line()
        assert line, "the daemon closed the connection without an answer"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Sends one request and returns its id; the answer is read later."""
        self._last_id += 1
        self.send(request(method, params or {}, self._last_id))
        return self._last_id

    def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """The result of one request. Raises `Failed`."""
        asked = self.ask(method, params)
        answer = self.answer()
        assert answer["id"] == asked
        return result(answer)

    def is_closed_by_peer(self) -> bool:
        """Whether the daemon has let go of us, without waiting."""
        self.sock.setblocking(False)
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        finally:
            self.sock.settimeout(ANSWER_S)

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self.close()


def request(method: str, params: object, request_id: object = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode() + b"\n"


def result(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise Failed(answer["error"])
    found: dict[str, Any] = answer["result"]
    return found


class Daemon:
    """One `backchanneld` process."""

    def __init__(self, world: "World", names: tuple[str, ...], process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.world = world
        self.names = names
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self.process.kill()
        self.process.wait(ANSWER_S)

    def stop(self, within: float = ANSWER_S) -> int:
        """SIGTERM. Returns the exit status."""
        self.process.terminate()
        return self.process.wait(within)

    def ended(self, within: float = START_S) -> int:
        """Its exit status, once it ended by itself."""
        return self.process.wait(within)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        eventually(lambda: " T" in Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2][:3])

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wakeups(self) -> int:
        """How often its threads went to sleep by themselves."""
        return sum(
            int(line.split()[1])
            for status in Path(f"/proc/{self.pid}/task").glob("*/status")
            for line in status.read_text().splitlines()
            if line.startswith("voluntary_ctxt_switches")
        )


class Closing(Protocol):
    def close(self) -> None: ...


class World:
    """STATE and DIR in a short private directory, and everything that runs on them."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or Path(tempfile.mkdtemp(prefix="bc-", dir="/tmp"))
        self.state = self.root / "state"
        self.dir = self.root / "run"
        self._daemons: list[Daemon] = []
        self._links: list[Link] = []
        self._agents: list[Agent] = []
        self._mounts: list[Path] = []
        self._others: list[Closing] = []

    # --- daemons ------------------------------------------------------------------------------------------------------

    def spawn(
        self,
        *names: str,
        wrap: Sequence[str] = (),
        env: dict[str, str] | None = None,
        pass_fds: Iterable[int] = (),
        options: Sequence[str] = (),
    ) -> Daemon:
        """A daemon process, not waited for. `wrap` is a command that runs it (`prlimit ...`)."""
        log = self.root / f"daemon-{len(self._daemons)}.log"
        argv = [*wrap, *self.command(*names), *options]
        with log.open("wb") as out:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment() | (env or {}),
                pass_fds=tuple(pass_fds),
            )
        daemon = Daemon(self, names, process, log)
        self._daemons.append(daemon)
        return daemon

    def start(self, *names: str, wrap: Sequence[str] = (), env: dict[str, str] | None = None) -> Daemon:
        """A daemon that answers."""
        daemon = self.spawn(*names, wrap=wrap, env=env)
        self.await_answer(daemon)
        return daemon

    def restart(self, daemon: Daemon) -> Daemon:
        """Another daemon for the same names, after the first ended."""
        assert not daemon.is_running
        return self.start(*daemon.names)

    def await_answer(self, daemon: Daemon) -> None:
        for name in daemon.names:
            eventually(lambda name=name: self._answers(daemon, name), f"{name} answers", START_S)  # type: ignore[misc]

    def _answers(self, daemon: Daemon, name: str) -> bool:
        assert daemon.is_running, f"the daemon ended with {daemon.process.returncode}: {daemon.said()}"
        try:
            with Link(self.path(name)) as link:
                link.call("ping")
        except (OSError, AssertionError):
            return False
        return True

    def command(self, *names: str) -> list[str]:
        python = [sys.executable, "-P", "-m", "backchannel.daemon"]
        return [*python, *names, "--state", str(self.state), "--dir", str(self.dir)]

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "LANG")}
        return kept | {"HOME": str(self.root), "BACKCHANNEL_STATE": str(self.state), "BACKCHANNEL_DIR": str(self.dir)}

    def python(self, script: str, *args: str, wrap: Sequence[str] = ()) -> "subprocess.Popen[str]":
        """A program of somebody's, as a process; the caller reads its output and waits for it."""
        return subprocess.Popen(
            [*wrap, sys.executable, "-W", "error", "-c", script, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )

    def run(self, script: str, *args: str, wrap: Sequence[str] = ()) -> str:
        """What a program said, once it ended well."""
        with self.python(script, *args, wrap=wrap) as program:
            said, _ = program.communicate(timeout=30)
        assert program.returncode == 0
        return said

    # --- talking ------------------------------------------------------------------------------------------------------

    def path(self, name: str, which: str = "inbox") -> str:
        return f"{self.dir}/{name}/{which}.sock"

    def link(self, name: str, which: str = "inbox") -> Link:
        """A raw connection, closed with the world."""
        link = Link(self.path(name, which))
        self._links.append(link)
        return link

    def control(self, name: str) -> Link:
        return self.link(name, "control")

    def call(self, name: str, method: str, params: dict[str, Any] | None = None, which: str = "inbox") -> Any:
        """One request over a connection of its own. Raises `Failed`."""
        with Link(self.path(name, which)) as link:
            return link.call(method, params)

    def push(self, to: str, text: str = "hello", **params: Any) -> dict[str, Any]:
        """A receipt. `sender=` makes it that agent's, with its key."""
        receipt: dict[str, Any] = self.call(to, "push", self.push_params(to, text, **params))
        return receipt

    def push_params(self, to: str, text: str, *, sender: str | None = None, **params: Any) -> dict[str, Any]:
        found = {"to": to, "text": text} | params
        return found if sender is None else found | {"from": sender, "auth": self.key(sender)}

    def take(self, name: str, count: int = 1, **params: Any) -> list[dict[str, Any]]:
        """What is there, leased detached, so that the lease outlives this call."""
        params = {"max": count, "detached": True} | params
        messages: list[dict[str, Any]] = self.call(name, "take", params, "control")["messages"]
        return messages

    def texts(self, name: str) -> list[str]:
        """Takes and acks all that waits; the texts, in order."""
        found = []
        with Link(self.path(name, "control")) as link:
            while messages := link.call("take", {"max": 1000})["messages"]:
                for message in messages:
                    link.call("ack", {"id": message["id"], "from": message["from"], "delivery": message["delivery"]})
                    found.append(message["text"])
        return found

    def receipt(self, name: str, message_id: str, **params: Any) -> dict[str, Any]:
        receipt: dict[str, Any] = self.call(name, "receipt", {"id": message_id} | params)
        return receipt

    def agent(self, name: str) -> Agent:
        """The public client, closed with the world."""
        agent = Agent(name, places=self.places)
        self._agents.append(agent)
        return agent

    @property
    def places(self) -> Places:
        return Places(str(self.dir), str(self.state))

    # --- files --------------------------------------------------------------------------------------------------------

    def key(self, name: str) -> str:
        return (self.state / name / "key").read_text().strip()

    def configure(self, name: str, text: str) -> None:
        """Writes `config.toml` of a name that may not exist yet."""
        for folder in (self.state, self.state / name):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.state / name / "config.toml").write_text(text)

    def mount(self, path: Path, size: str) -> None:
        """A small disk, unmounted with the world."""
        path.mkdir(mode=0o700, parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)], check=True)
        self._mounts.append(path)

    def closes(self, thing: Closing) -> None:
        """It is closed with the world."""
        self._others.append(thing)

    def only_process(self, name: str) -> int:
        """The pid of NAME's daemon, once those that lost the race to start are gone."""

        def alone() -> list[int]:
            found = self.processes(name)
            return found if len(found) == 1 else []

        return eventually(alone, "one daemon alone")[0]

    def processes(self, *words: str) -> list[int]:
        """Pids of everything that names our state directory, daemons started on demand included."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(self.state).encode() in argv and all(word.encode() in argv for word in words):
                found.append(int(entry.name))
        return found

    def close(self) -> None:
        for agent in self._agents:
            agent.close()
        for thing in (*self._links, *self._others):
            thing.close()
        for daemon in self._daemons:
            if daemon.is_running:
                daemon.kill()
        eventually(self._kill_the_rest, "everything that runs here is gone")
        for path in reversed(self._mounts):
            subprocess.run(["umount", "--lazy", str(path)], check=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def _kill_the_rest(self) -> bool:
        left = self.processes()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return not left


def wait_for_closing(links: Iterable[Link], within: float) -> dict[Link, float]:
    """When the daemon closed each of these, seconds from now. Those that stay open are left out."""
    begin = time.monotonic()
    closed: dict[Link, float] = {}
    with selectors.DefaultSelector() as selector:
        for link in links:
            selector.register(link.sock, selectors.EVENT_READ, link)
        while selector.get_map() and (left := begin + within - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                closed[key.data] = time.monotonic() - begin
                selector.unregister(key.fileobj)
    return closed


def as_stranger(uid: int = STRANGER) -> list[str]:
    """The words before a command that make it run under another uid."""
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
