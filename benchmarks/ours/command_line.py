"""Whole processes, in milliseconds: from before the fork until the exit has been waited for."""

import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from ..bench import Bench, Samples
from ..processes import timed_commands
from .world import World

WAITING_S = 0.1  # until a blocked `recv` certainly waits


def nothing(bench: Bench) -> Samples:
    """`python -c pass` of the interpreter that the commands have: no command in Python can be quicker."""
    return timed_commands([sys.executable, "-c", "pass"], None, bench.sizes.commands)


def send(bench: Bench) -> Samples:
    """`backchannel send`, from start to exit; the receipt is printed."""
    world = World(bench)
    world.up("alice", "sink")
    argv = [command(), "send", "sink", "hello", "--as", "alice"]
    return timed_commands(argv, world.environment, bench.sizes.commands)


def hook(bench: Bench) -> Samples:
    """`backchannel hook`, after a tool, with nothing to say: what a model's program runs before each of its steps."""
    world = World(bench)
    world.up("alice")
    moments = [command(), "hook", "claude"]
    window = b'{"session_id": "window", "source": "startup", "hook_event_name": "PostToolBatch"}'
    subprocess.run(
        [*moments, "session-start", "--as", "alice"], input=window, stdout=subprocess.DEVNULL, check=True,
        env=world.environment,
    )  # fmt: skip
    return timed_commands([*moments, "tool", "--as", "alice"], world.environment, bench.sizes.commands, window)


def send_to_exit_of_recv(bench: Bench) -> Samples:
    """From the start of `backchannel send` until a `backchannel recv` that waited has printed, acked and exited."""
    world = World(bench)
    world.up("alice", "sink")
    found = []
    for _ in range(bench.sizes.commands):
        recv = subprocess.Popen(
            [command(), "recv", "--as", "sink", "--wait", "30"], stdout=subprocess.PIPE, env=world.environment
        )
        time.sleep(WAITING_S)
        began = time.perf_counter()
        send = subprocess.Popen(
            [command(), "send", "sink", "hello", "--as", "alice"], stdout=subprocess.DEVNULL, env=world.environment
        )
        printed, _ = recv.communicate()
        found.append((time.perf_counter() - began) * 1000)
        assert b"hello" in printed
        assert (send.wait(), recv.returncode) == (0, 0)
    return Samples(found)


def command() -> str:
    """The command of the environment we run in."""
    path = Path(sysconfig.get_path("scripts"), "backchannel")
    assert path.exists(), f"backchannel is not installed in {sys.prefix}"
    return str(path)
