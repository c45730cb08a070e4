"""`send_many`: texts a second in batches, each batch one write and one commit. Nobody receives."""

import time

from ..bench import Bench, Samples
from ..sizes import BATCH, TEXT
from .world import with_waiting


def batches(bench: Bench, waiting: int) -> Samples:
    """With this many messages waiting already: none (-1), or one of the sizes."""
    count = 0 if waiting < 0 else bench.sizes.waiting[waiting]
    world = with_waiting(bench, count)
    texts = [TEXT] * BATCH
    with world.agent("alice") as alice:
        alice.send_many("sink", texts)
        began = time.perf_counter()
        for _ in range(bench.sizes.batches):
            alice.send_many("sink", texts)
        took_s = time.perf_counter() - began
    return Samples([BATCH * bench.sizes.batches / took_s], f"{count} waiting")
