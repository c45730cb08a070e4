"""What the tests of the middle share: mailboxes and hosts in this process, with time and chance as arguments."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from backchannel.daemon.callers import Answer, Caller
from backchannel.daemon.config import Config
from backchannel.daemon.host import Host
from backchannel.mailbox.mailbox import Lease, Mailbox
from backchannel.protocol.envelope import Envelope, Peer
from backchannel.protocol.frame import Log
from backchannel.protocol.names import AgentName

NOW = 1000.0  # seconds since boot
WALL = 1_700_000_000.0  # Unix time
UID = 1000

_opened: list[Mailbox] = []


def dice() -> Callable[[int], bytes]:
    """Random bytes that are the same in every run, and never the same twice."""
    thrown = 0

    def throw(n: int) -> bytes:
        nonlocal thrown
        thrown += 1
        return thrown.to_bytes(n, "big")

    return throw


def open_mailbox(
    path: Path, *, now: float = NOW, wall: float = WALL, boot_id: str = "boot-1", **limits: Any
) -> Mailbox:
    mailbox = Mailbox.open(str(path), now=now, wall=wall, boot_id=boot_id, random=dice(), **limits)
    _opened.append(mailbox)
    return mailbox


def close_all() -> None:
    """After a test: what it left open is closed as it stands."""
    while _opened:
        _opened.pop().db.close()


def after_a_kill(path: Path, folder: Path) -> Path:
    """The mailbox as the next daemon finds it if this one is killed now."""
    folder.mkdir(parents=True)
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            shutil.copy(source, folder / source.name)
    return folder / path.name


def envelope(message_id: str, text: str = "hello", sender: str = "analyst", **fields: Any) -> Envelope:
    return Envelope(message_id, sender, "message", json.dumps(text).encode(), UID, UID, 4711, WALL, **fields)


class Kept(NamedTuple):
    """One row of a mailbox."""

    msg_no: int
    stage: str
    envelope: Envelope


def rows_of(mailbox: Mailbox) -> list[Kept]:
    """All of a mailbox, oldest first."""
    fields = len(Envelope.__struct_fields__)
    rows = mailbox.history(Log(max=1 << 30), 1, 1 << 62, newest_first=False)
    return [Kept(row[0], row[1], Envelope(*row[-fields:])) for row in rows]


def a_lease(take_id: str = "t-1", *, deadline: float | None = None) -> Lease:
    """A held lease, or with a deadline a detached one."""
    lease = Lease(take_id, detached=deadline is not None, deadline=deadline)
    lease.holder = None if deadline is not None else object()
    return lease


class Bench:
    """A host on the bench: requests as dicts in, answers as dicts out, time at our word."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.config = Config(settings)
        self.now = NOW
        self.keys = {"analyst": "a" * 64, "writer": "b" * 64, "executor": "c" * 64}
        self.free_bytes = 1 << 40
        self.boot_id = "boot-1"
        self.wall_at_boot = WALL - NOW
        self._next_id = 0
        self.model_driven: set[str] = set()
        self.open()

    def open(self) -> None:
        """The daemon starts."""
        c = self.config
        self.mailbox = open_mailbox(
            self.path,
            now=self.now,
            wall=self.wall,
            boot_id=self.boot_id,
            messages_max=c.messages_max,
            bytes_max=c.bytes_max,
            deliveries_max=c.deliveries_max,
            detached_s=c.lease_s,
        )
        self.host = Host(
            AgentName("executor"),
            self.mailbox,
            c,
            now=self.now,
            uid=UID,
            key_of=self.keys.get,
            is_model_driven=lambda name: name in self.model_driven,
            registered=lambda: sorted(self.keys),
            random=dice(),
            free_bytes=lambda: self.free_bytes,
        )

    def close(self) -> None:
        """The daemon stops, orderly."""
        self.mailbox.close(self.wall, self.now)

    @property
    def wall(self) -> float:
        return self.wall_at_boot + self.now

    def connect(self, *, is_control: bool = False, uid: int = UID) -> Caller:
        return Caller(Peer(uid, uid, 4711), is_control=is_control)

    def control(self) -> Caller:
        return self.connect(is_control=True)

    def receive(self, caller: Caller, method: str, **params: Any) -> int:
        """A request arrives; its answer comes with `finish`. Returns the request's id."""
        self._next_id += 1
        request = {"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params}
        self.receive_line(caller, json.dumps(request).encode())
        return self._next_id

    def receive_line(self, caller: Caller, line: bytes) -> None:
        self.host.receive(caller, line, self.now, self.wall)

    def finish(self) -> dict[Any, dict[str, Any]]:
        """The pass ends: what is answered now, by request id, and counted as sent."""
        sent = self.host.finish(self.now, self.wall)
        for answer in sent:
            answer.caller.pending -= 1
        return {answer["id"]: answer for answer in map(read, sent)}

    def ask(self, caller: Caller, method: str, **params: Any) -> dict[str, Any]:
        """A request alone in its pass, and its answer."""
        number = self.receive(caller, method, **params)
        return self.finish()[number]

    def call(self, caller: Caller, method: str, **params: Any) -> Any:
        """The result of a request that must be answered at once, and well."""
        answer = self.ask(caller, method, **params)
        assert "result" in answer, answer
        return answer["result"]

    def refusal(self, caller: Caller, method: str, **params: Any) -> str:
        """The code with which a request is refused."""
        return str(self.ask(caller, method, **params)["error"]["data"]["code"])

    def push(self, message_id: str, text: str = "hello", **params: Any) -> Any:
        return self.call(self.connect(), "push", to="executor", id=message_id, text=text, **params)

    def hang_up(self, caller: Caller) -> dict[Any, dict[str, Any]]:
        self.host.closed(caller, self.now, self.wall)
        return self.finish()

    def wait_until(self, then: float) -> dict[Any, dict[str, Any]]:
        """Time passes as the loop lets it: every deadline on the way is kept. What was answered, by request id."""
        answers: dict[Any, dict[str, Any]] = {}
        while (deadline := self.host.deadline) is not None and deadline <= then:
            self.now = max(self.now, deadline)
            self.host.handle_timer(self.now, self.wall)
            answers |= self.finish()
        self.now = then
        return answers

    def advance(self, seconds: float) -> dict[Any, dict[str, Any]]:
        return self.wait_until(self.now + seconds)


def read(answer: Answer) -> dict[str, Any]:
    assert answer.line.endswith(b"\n")
    read_back: dict[str, Any] = json.loads(answer.line)
    return read_back
