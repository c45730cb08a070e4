"""`python -m tests.fuzz --lines 50000000 --host-lines 50000000 `: the long run. Status 1 if a line breaks us."""

import argparse
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ..simulation.disk import folder
from .noise import Noise
from .oracles import Broken, Hosts, read

LINES_A_SEED = 500_000


def read_many(seed: int, lines: int = LINES_A_SEED) -> Counter[str]:
    """How many lines of a seed were refused with which code ("" is good)."""
    noise = Noise(seed)
    return Counter(read(noise.line()) for _ in range(lines))


def tell_many(seed: int, lines: int = LINES_A_SEED) -> Counter[str]:
    """How often hosts answered with which code to the lines of a seed."""
    where = Path(folder())
    try:
        hosts = Hosts(where, seed)
        hosts.tell(lines)
        return hosts.codes
    finally:
        shutil.rmtree(where)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000, help="for the codecs and the frames")
    parser.add_argument("--host-lines", type=int, default=1_000_000, help="for whole hosts")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    options = parser.parse_args()
    is_broken = False
    with ProcessPoolExecutor(options.jobs) as pool:
        for what, work, wanted in (("read", read_many, options.lines), ("told", tell_many, options.host_lines)):
            began = time.monotonic()
            codes: Counter[str] = Counter()
            seeds = range(options.seed, options.seed + -(-wanted // LINES_A_SEED))
            for seed, future in [(seed, pool.submit(work, seed)) for seed in seeds]:
                try:
                    codes += future.result()
                except Broken as broken:
                    is_broken = True
                    print(f"seed {seed}: {broken}", flush=True)
            lines, seconds = len(seeds) * LINES_A_SEED, time.monotonic() - began
            print(f"{lines} lines {what} in {seconds:.0f} s ({lines / seconds:.0f}/s): {dict(codes)}", flush=True)
    sys.exit(is_broken)


if __name__ == "__main__":
    main()
