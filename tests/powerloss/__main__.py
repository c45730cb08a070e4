"""`python -m tests.powerloss --states 2000000 --jobs 2`: the long run. Ends with status 1 if a promise is broken."""

import argparse
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ..simulation.disk import folder
from ..world import World
from .promises import Outcome, cut_everywhere
from .recording import record

STATES_A_RECORDING = 20_000
STEPS = 80


def one(seed: int) -> Outcome:
    """A recording of its own, cut everywhere."""
    world, scratch = World(), Path(folder())
    try:
        return cut_everywhere(record(world, seed, STEPS), seed, STATES_A_RECORDING, scratch)
    finally:
        world.close()
        shutil.rmtree(scratch)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.powerloss", description=__doc__)
    parser.add_argument("--states", type=int, default=2_000_000, help="disks to look at")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="the first of the recordings'")
    options = parser.parse_args()
    began = time.monotonic()
    whole = Outcome()
    count = -(-options.states // STATES_A_RECORDING)
    with ProcessPoolExecutor(options.jobs) as pool:
        for number, outcome in enumerate(pool.map(one, range(options.seed, options.seed + count)), 1):
            whole.add(outcome)
            print(f"{number} of {count} recordings, {time.monotonic() - began:.0f} s: {whole.figures()}", flush=True)
            for sentence in outcome.broken[:5]:
                print(f"  seed {options.seed + number - 1}: {sentence}", flush=True)
    sys.exit(bool(whole.broken))


if __name__ == "__main__":
    main()
