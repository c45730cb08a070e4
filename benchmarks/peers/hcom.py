"""hcom: messages between agents' terminals; a compiled command with SQLite. Whole processes, in milliseconds."""

import os
import subprocess
import time

from ..bench import Bench, Samples
from ..processes import timed_commands

WAITING_S = 0.1  # until a blocked `listen` certainly waits


def send(bench: Bench) -> Samples:
    """`hcom send`, from start to exit."""
    environment = _world(bench)
    name = _agent(bench, environment)
    return timed_commands(_send(bench, name), environment, bench.sizes.commands)


def send_to_exit_of_listen(bench: Bench) -> Samples:
    """From the start of `hcom send` until an `hcom listen` that waited has printed and exited."""
    environment = _world(bench)
    name = _agent(bench, environment)
    found = []
    for _ in range(bench.sizes.commands):
        listen = subprocess.Popen(
            [bench.tool("hcom"), "listen", "30", "--name", name, "--json"], stdout=subprocess.PIPE, env=environment
        )
        time.sleep(WAITING_S)
        began = time.perf_counter()
        send = subprocess.Popen(_send(bench, name), stdout=subprocess.DEVNULL, env=environment)
        printed, _ = listen.communicate()
        found.append((time.perf_counter() - began) * 1000)
        assert b"hello" in printed
        assert (send.wait(), listen.returncode) == (0, 0)
    return Samples(found)


def _send(bench: Bench, name: str) -> list[str]:
    return [bench.tool("hcom"), "send", f"@{name}", "--from", "bench", "--quiet", "--", "hello"]


def _world(bench: Bench) -> dict[str, str]:
    """An environment in which it finds nothing of ours, and leaves nothing behind."""
    os.makedirs(bench.path("home"))
    return {"PATH": os.defpath, "HOME": bench.path("home"), "HCOM_DIR": bench.path("hcom")}


def _agent(bench: Bench, environment: dict[str, str]) -> str:
    """Makes an agent. It chooses the name itself."""
    started = subprocess.run([bench.tool("hcom"), "start"], env=environment, check=True, capture_output=True, text=True)
    return started.stdout.partition("[hcom:")[2].partition("]")[0]
