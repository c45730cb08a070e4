"""A real daemon at work, and every system call by which its files changed or a receipt left it.

strace sees what the kernel is told, whoever tells it: SQLite, the thread that flushes, the daemon itself. So it is the
production program, statement for statement, whose power is cut afterwards.
"""

import json
import random
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..world import Daemon, Link, World, eventually, request, result

NAME = "bob"
FILES = ("mailbox.db", "mailbox.db-wal", "mailbox.db-journal")  # SQLite needs the last to make the file
CALLS = "openat,pwrite64,write,ftruncate,fallocate,fsync,fdatasync,unlink,unlinkat,rename,renameat2,sendto,sendmsg"

# A daemon whose settings are wrong, for the control runs: they have to lose something.
# The command they replace follows as arguments: python -P -m backchannel.daemon NAME...
LYING_FLUSH = """
import os, sys
os.fdatasync = lambda fd: None
from backchannel.daemon.run import main
main(sys.argv[5:])
"""
NO_SYNC = """
import os, re, sqlite3, sys
os.fdatasync = lambda fd: None
plain = sqlite3.connect
class Careless(sqlite3.Connection):
    def execute(self, statement, *parameters):
        return super().execute(re.sub("synchronous=(NORMAL|FULL)", "synchronous=OFF", statement), *parameters)
sqlite3.connect = lambda *args, **options: plain(*args, factory=Careless, **options)
from backchannel.daemon.run import main
main(sys.argv[5:])
"""


class Call(NamedTuple):
    """One system call that succeeded: when it began and ended, as places in the recording."""

    name: str
    begun: int
    ended: int
    path: str
    data: bytes  # what was written or sent
    number: int  # the offset of a write, the length of a truncated file
    at: float  # Unix time, seconds


class Recording(NamedTuple):
    """`calls` in the order they began; `texts` of all messages by id; `folder` is where the files lay."""

    calls: list[Call]
    texts: dict[str, str]
    folder: str


def record(world: World, seed: int, steps: int, *, script: str = "") -> Recording:
    """Lets a daemon work twice, with an orderly end between, and kills it. `script` takes the place of its own."""
    if not shutil.which("strace"):
        pytest.skip("strace is not here: nobody can say what the daemon wrote")
    work = Work(world, seed)
    lines: list[str] = []
    for part in range(2):
        trace = world.root / f"trace-{part}"
        daemon = start(world, trace, script)
        work.go(steps)
        if part == 0:
            assert daemon.stop() == 0
        else:
            daemon.kill()
        eventually(lambda trace=trace: finished(trace), "strace has written its file")  # type: ignore[misc]
        lines += trace.read_text().splitlines()
    folder = str(world.state / NAME)
    return Recording(list(parse(lines, folder)), work.texts, folder)


def start(world: World, trace: Path, script: str) -> Daemon:
    wrap = ["strace", "-D", "-f", "-qq", "-y", "-xx", "-ttt", "-s", "2000000", "-e", f"trace={CALLS}", "-o", str(trace)]
    if script:
        wrap += [sys.executable, "-P", "-c", script]
    daemon = world.spawn(NAME, wrap=wrap)
    world.await_answer(daemon)
    return daemon


def finished(trace: Path) -> bool:
    size = trace.stat().st_size
    time.sleep(0.2)
    return trace.stat().st_size == size


class Work:
    """What the daemon is asked to do: chosen by a seed, one thing after the other, and remembered by id.

    The id of each request names what was asked, so that its answer is a promise that can be understood.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._dice = random.Random(seed)
        self.texts: dict[str, str] = {}
        self._held: list[dict[str, Any]] = []
        world.start("away").stop()  # registered, and never there: what is sent to it stays in the outbox
        world.configure(NAME, "deliveries_max = 1000\n")

    def go(self, steps: int) -> None:
        self._held.clear()  # a lease of the last daemon's time has lost its connection
        with self._world.control(NAME) as control, self._world.link(NAME) as inbox:
            for step in range(steps):
                choice = self._dice.random()
                if choice < 0.55:
                    self._push(inbox)
                elif choice < 0.75:
                    self._take(control)
                elif self._held:
                    self._settle(control)
                if step in (steps // 3, 2 * steps // 3):
                    time.sleep(1.2)  # idle: the log goes into the file

    def _push(self, inbox: Link) -> None:
        count = self._dice.choice((1, 1, 1, 5))
        lines = []
        for _ in range(count):
            key = f"k{len(self.texts)}"
            self.texts[key] = f"{key} {'x' * int(2 ** self._dice.uniform(3, 12))}"
            params = {"to": NAME, "id": key, "text": self.texts[key]}
            params["durability"] = self._dice.choice(("process", "process", "power"))
            lines.append(request("push", params, f"push {key}"))
        inbox.send(b"".join(lines))
        for _ in range(count):
            result(inbox.answer())

    def _take(self, control: Link) -> None:
        control.send(request("take", {"max": self._dice.randrange(1, 4)}, "take"))
        self._held += control.answer()["result"]["messages"]

    def _settle(self, control: Link) -> None:
        message = self._held.pop(self._dice.randrange(len(self._held)))
        token = {"id": message["id"], "delivery": message["delivery"]}
        match self._dice.choice(("ack", "ack", "reject", "release", "commit")):
            case "commit":
                sends = [{"to": "away", "id": f"out-{message['id']}", "text": "handled"}]
                control.send(request("commit", {"acks": [token], "sends": sends}, f"acked {message['id']}"))
            case "reject":
                control.send(request("reject", token | {"reason": "no"}, f"rejected {message['id']}"))
            case "release":
                control.send(request("release", token, "release"))
            case _:
                control.send(request("ack", token, f"acked {message['id']}"))
        result(control.answer())


LINE = re.compile(r"^(\d+) +(\d+\.\d+) (.*)$")
CALL = re.compile(r"^(\w+)\((.*?)(?:\) += (-?\d+)(.*)| <unfinished \.\.\.>)$")
RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)(.*)$")
DESCRIPTOR = re.compile(r"^-?\w+<([^>]*)>")
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def parse(lines: list[str], folder: str) -> Iterator[Call]:
    """The calls that changed a file in `folder`, flushed it, or sent something."""
    calls: list[Call] = []
    begun: dict[str, tuple[int, str, str, float]] = {}
    for place, line in enumerate(lines):
        found = LINE.match(line)
        if not found:
            continue
        pid, at, text = found[1], float(found[2]), found[3]
        if resumed := RESUMED.match(text):
            if pid in begun:
                began, name, arguments, at = begun.pop(pid)
                calls += understood(name, arguments + resumed[2], int(resumed[3]), resumed[4], began, place, at)
        elif whole := CALL.match(text):
            if whole[3] is None:
                begun[pid] = (place, whole[1], whole[2], at)
            else:
                calls += understood(whole[1], whole[2], int(whole[3]), whole[4], place, place, at)
    # A call that a kill cut short was perhaps done: as one that never ended it is never surely on the disk.
    for began, name, arguments, at in begun.values():
        calls += understood(name, arguments, 0, "", began, len(lines), at)
    paths = {folder, *(f"{folder}/{file}" for file in FILES)}
    for call in sorted(calls, key=lambda call: call.begun):
        if call.name == "send" or call.path in paths:
            yield call


def understood(name: str, arguments: str, value: int, rest: str, begun: int, ended: int, at: float) -> list[Call]:
    if value < 0:
        return []
    descriptor = DESCRIPTOR.match(arguments)
    path = unquote(descriptor[1]) if descriptor else ""
    strings = [bytes.fromhex(found.replace("\\x", "")) for found in STRING.findall(arguments)]
    numbers = [part.strip() for part in arguments.rsplit(", ", 2)]

    def call(kind: str, path: str, data: bytes = b"", number: int = 0) -> list[Call]:
        return [Call(kind, begun, ended, path, data, number, at)]

    match name:
        case "pwrite64":
            return call("write", path, strings[0], int(numbers[-1]))
        case "ftruncate":
            return call("truncate", path, number=int(numbers[-1]))
        case "fsync" | "fdatasync":
            return call("sync", path)
        case "sendto":
            return call("send", "", strings[0])
        case "sendmsg":
            return call("send", "", b"".join(strings))
        case "openat" if "O_CREAT" in arguments:
            opened = DESCRIPTOR.match(f"{value}{rest.strip()}")
            return call("create", unquote(opened[1]) if opened else "")
        case "unlink":
            return call("unlink", strings[-1].decode())
        case "write" | "fallocate" | "unlinkat" | "rename" | "renameat2":
            # Of a mailbox's files we know no such call; one that appears has to be understood first.
            assert "mailbox" not in path + "".join(s.decode(errors="replace") for s in strings[:2])[:200], arguments[
                :200
            ]
            return []
        case _:
            return []


def unquote(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode()


def answers(call: Call) -> Iterator[dict[str, Any]]:
    """The good answers that left in a `send`."""
    for line in call.data.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and isinstance(answer.get("id"), str) and "result" in answer:
            yield answer
