"""Runs seeds, one or many side by side, and adds up what happened in them."""

import gc
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from typing import NamedTuple

from .faults import POINTS
from .script import Recorder
from .truth import Violation
from .world import World

CHUNK = 20  # seeds a worker takes at once


class Outcome(NamedTuple):
    seed: int
    steps_max: int
    steps: int
    trace: str
    faults: Counter[str]
    stages: Counter[str]
    liveness_s: float
    violation: str

    def __str__(self) -> str:
        again = f"python -m tests.simulation --seed {self.seed} --steps {self.steps_max}"
        return f"seed {self.seed}: {self.violation or 'holds'}\n    again: {again}"


def run_one(
    seed: int, steps: int, *, tells: Callable[[str], None] | None = None, recorder: Recorder | None = None
) -> Outcome:
    world = World(seed, steps=steps, tells=tells)
    if recorder is not None:
        recorder.world = world
    violation = ""
    try:
        world.run()
    except Violation as found:
        violation = str(found)
    except Exception:  # a mistake of the daemon, or of this simulation
        violation = traceback.format_exc()
    return Outcome(
        seed, steps, world.steps, world.digest.hexdigest(), world.faults.counts, world.truth.stages, world.liveness_s,
        violation,
    )  # fmt: skip


def run_many(seeds: Iterable[int], steps: int, jobs: int = 1) -> Iterator[Outcome]:
    if jobs == 1:
        for seed in seeds:
            yield run_one(seed, steps)
        return
    with get_context("spawn").Pool(jobs, initializer=gc.freeze) as pool:
        yield from pool.imap(_Run(steps), seeds, chunksize=CHUNK)


class _Run:
    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __call__(self, seed: int) -> Outcome:
        return run_one(seed, self._steps)


class Tally:
    """What many seeds came to."""

    def __init__(self) -> None:
        self.seeds = 0
        self.steps = 0
        self.faults: Counter[str] = Counter()
        self.stages: Counter[str] = Counter()
        self.failed: list[Outcome] = []
        self.longest_s = 0.0

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.steps += outcome.steps
        self.faults += outcome.faults
        self.stages += outcome.stages
        self.longest_s = max(self.longest_s, outcome.liveness_s)
        if outcome.violation:
            self.failed.append(outcome)

    @property
    def unfired(self) -> list[str]:
        return [point for point in POINTS if not self.faults[point]]

    def __str__(self) -> str:
        lines = [f"{point:36} {self.faults[point]:>9,}  {what}" for point, (_, what) in POINTS.items()]
        ends = ", ".join(f"{n:,} {name[5:]}" for name, n in sorted(self.stages.items()) if name.startswith("end: "))
        lines.append(f"sessions' ends: {ends}")
        lines.append(f"longest way to rest: {self.longest_s:.0f} virtual seconds")
        lines.append(f"{self.seeds:,} seeds, {self.steps:,} steps, {len(self.failed)} seeds failed")
        return "\n".join(lines)
