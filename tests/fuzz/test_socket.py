"""Noise over the daemon's sockets: whole, halved, split at every byte, and a hundred thousand connections."""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from ..world import Daemon, Failed, Link, World, eventually
from .noise import REQUESTS, Noise, encode
from .oracles import read

GROWTH_BYTES_MAX = 16 << 20
ANSWERED_S = 2.0  # a loaded machine's "at once"; how long it was is printed

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]


@pytest.fixture
def daemon(world: World) -> Iterator[Daemon]:
    daemon = world.start("executor")
    for number in range(50):  # what it needs anyway is not growth
        world.push("executor", str(number))
    descriptors, memory = daemon.descriptors(), daemon.memory_bytes()
    yield daemon
    assert daemon.is_running, daemon.said()
    assert "Traceback" not in daemon.said(), daemon.said()
    world.call("executor", "resume", which="control")
    began = time.monotonic()
    assert world.push("executor", "afterwards")["stage"] == "stored"
    took = time.monotonic() - began
    eventually(lambda: daemon.descriptors() <= descriptors, "its descriptors come back")
    growth = daemon.memory_bytes() - memory
    print(f"the next good push took {took * 1000:.1f} ms; memory grew by {growth / (1 << 20):.1f} MiB")
    assert took < ANSWERED_S
    assert growth < GROWTH_BYTES_MAX


def path(world: World, number: int) -> str:
    return world.path("executor", "control" if number % 2 else "inbox")


def test_noise_in_a_hundred_thousand_lines(world: World, daemon: Daemon) -> None:
    noise, told, codes = Noise(3), 0, Counter[str]()
    while told < 100_000:
        lines: list[bytes] = []
        while len(lines) < 40 and (not lines or read(lines[-1]) != "malformed"):  # behind that nothing is read
            lines.append(noise.line())
        told += len(lines)
        with Link(path(world, told)) as link:
            link.send(b"".join(line + b"\n" for line in lines))
            link.half_close()
            for answer in map(json.loads, iter(link.line, b"")):
                codes[answer["error"]["data"]["code"] if "error" in answer else "ok"] += 1
    print(f"{told} lines: {dict(codes)}")
    assert "internal" not in codes
    assert codes["ok"] > 1000


def test_a_request_split_at_any_byte_is_one_request(world: World, daemon: Daemon) -> None:
    for method, params in REQUESTS:
        if method == "pause":
            continue
        line = encode("whole", method, params) + b"\n"
        with world.control("executor") as link:
            for begin in range(1, len(line), 20):  # nobody reads meanwhile: more would fill the socket
                places = range(begin, min(begin + 20, len(line)))
                for place in places:
                    link.send(line[:place])
                    link.send(line[place:])
                for answer in [link.answer() for _ in places]:
                    assert answer["id"] == "whole"
                    assert "result" in answer or answer["error"]["data"]["code"] != "malformed"


def test_half_a_request_stores_nothing_and_garbage_behind_one_takes_nothing_back(world: World, daemon: Daemon) -> None:
    dice = random.Random(4)
    for number in range(2000):
        line = encode(1, "push", {"to": "executor", "id": f"half-{number}", "text": "half"}) + b"\n"
        with Link(world.path("executor")) as link:
            link.send(line[: dice.randrange(len(line))])
        line = line.replace(b"half", b"good")
        with Link(world.path("executor")) as link:
            link.send(line + dice.randbytes(20).replace(b"\n", b"") + b"\n")
            assert link.answer()["result"]["id"] == f"good-{number}"
    for number in range(2000):
        assert world.receipt("executor", f"good-{number}")["stage"] == "stored"
        with pytest.raises(Failed, match="no message"):
            world.receipt("executor", f"half-{number}")


def test_a_hundred_thousand_connections(world: World, daemon: Daemon) -> None:
    for number in range(100_000):
        with Link(path(world, number)) as link:
            if number % 3 == 0:
                link.send(b"{")
            elif number % 100 == 1:
                assert link.call("ping")["agent"] == "executor"
