"""Every script of `conformance/mailbox.json`, against the daemon's middle. `conformance/README.md` tells the format."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backchannel.daemon.callers import Caller

from .inside import Bench, after_a_kill, close_all, read

FILE = json.loads((Path(__file__).parent.parent / "conformance" / "mailbox.json").read_text())
SCRIPTS: list[dict[str, Any]] = FILE["scripts"]


@pytest.fixture(autouse=True)
def everything_is_closed() -> Iterator[None]:
    yield
    close_all()


class Player:
    """A daemon on the bench, its connections by the names a script gives them, and the answers not yet read."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.bench = Bench(folder / "mailbox.db", **config)
        self.bench.keys |= FILE["keys"]
        self.callers: dict[str, Caller] = {}
        self.unread: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.restarts = 0

    def play(self, step: dict[str, Any]) -> None:
        match step:
            case {"advance": seconds}:
                self.advance(seconds)
            case {"close": name}:
                self.bench.host.closed(self.callers.pop(name), self.bench.now, self.bench.wall)
                self.finish()
            case {"restart": how}:
                self.restart(how)
            case {"on": name, "answer": answer}:
                if "request" in step or "line" in step:
                    line = step["line"] if "line" in step else json.dumps(step["request"])
                    self.bench.receive_line(self.caller(name), line.encode())
                    self.finish()
                self.expect(name, answer)
            case _:
                raise AssertionError(f"a step of no kind: {step}")

    def caller(self, name: str) -> Caller:
        if name not in self.callers:
            self.callers[name] = self.bench.connect(is_control=name.split()[0] == "control")
        return self.callers[name]

    def finish(self) -> None:
        names = {caller: name for name, caller in self.callers.items()}
        for answer in self.bench.host.finish(self.bench.now, self.bench.wall):
            self.unread[names[answer.caller]].append(read(answer))

    def expect(self, name: str, answer: dict[str, Any] | None) -> None:
        if answer is None:
            assert not self.unread[name]
            return
        assert self.unread[name], "no answer came"
        said = self.unread[name].pop(0)
        assert said["jsonrpc"] == "2.0"
        assert covers(said, answer), f"{json.dumps(said)} is not {json.dumps(answer)}"

    def advance(self, seconds: float) -> None:
        bench, then = self.bench, self.bench.now + seconds
        while (deadline := bench.host.deadline) is not None and deadline <= then:
            bench.now = max(bench.now, deadline)
            bench.host.handle_timer(bench.now, bench.wall)
            self.finish()
        bench.now = then

    def restart(self, how: str) -> None:
        self.restarts += 1
        if how == "kill":
            self.bench.path = after_a_kill(self.bench.path, self.folder / f"{self.restarts}")
            self.bench.mailbox.db.close()
        else:
            assert how == "orderly"
            self.bench.close()
        self.callers.clear()
        self.bench.open()


def covers(said: Any, expected: Any) -> bool:
    """Whether an answer says what is expected: of an object, the members named; of an array, every element."""
    if isinstance(expected, dict):
        return isinstance(said, dict) and all(k in said and covers(said[k], v) for k, v in expected.items())
    if isinstance(expected, list):
        return isinstance(said, list) and len(said) == len(expected) and all(map(covers, said, expected))
    return bool(said == expected) and isinstance(said, bool) == isinstance(expected, bool)


@pytest.mark.parametrize("script", SCRIPTS, ids=[s["name"] for s in SCRIPTS])
def test_a_script_plays_as_written(script: dict[str, Any], tmp_path: Path) -> None:
    player = Player(tmp_path, script.get("config", {}))
    for step in script["steps"]:
        player.play(step)
    assert not any(player.unread.values()), "more was answered than the script says"
    player.bench.close()


def test_every_script_has_a_name_of_its_own_and_does_something() -> None:
    names = [s["name"] for s in SCRIPTS]
    assert len(names) == len(set(names))
    assert all(s["steps"] for s in SCRIPTS)
