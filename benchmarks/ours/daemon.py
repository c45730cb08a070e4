"""What a daemon costs while nothing happens: its memory, and how often it wakes."""

import time

from ..bench import Bench, Samples
from ..processes import memory_mb, wakeups
from ..sizes import TEXT
from .world import World


def memory(bench: Bench) -> Samples:
    """Resident memory of one daemon that has served messages and is idle again."""
    return Samples([memory_mb(_idle_daemon(bench))])


def wakeups_idle(bench: Bench) -> Samples:
    """How often any of its threads went to sleep anew, a second."""
    pid = _idle_daemon(bench)
    before = wakeups(pid)
    time.sleep(bench.sizes.idle_s)
    return Samples([(wakeups(pid) - before) / bench.sizes.idle_s])


def memory_of_many(bench: Bench, many: int) -> Samples:
    """Resident memory of one process that serves so many agents."""
    count = bench.sizes.agents[many]
    pid = World(bench).up_in_one_process(*(f"agent{i}" for i in range(count)))
    time.sleep(bench.sizes.settle_s)
    return Samples([memory_mb(pid)], f"{count} agents")


def _idle_daemon(bench: Bench) -> int:
    world = World(bench)
    _, pid = world.up("alice", "sink")
    with world.agent("alice") as alice:
        for _ in range(bench.sizes.slow_messages):
            alice.send("sink", TEXT)
    time.sleep(bench.sizes.settle_s)
    return pid
