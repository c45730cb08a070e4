"""`python -m tests.simulation`: see one seed again, or run many.

--seed N [--steps M]               one seed, with its trace
--seeds N [--steps M] [--jobs J]   seeds 0 to N-1; `--first F` begins elsewhere
"""

import argparse
import sys
import time

from .runner import Tally, run_many, run_one


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    if options.seed is not None:
        outcome = run_one(options.seed, options.steps, tells=print)
        print(outcome.violation or f"holds; trace {outcome.trace}, {outcome.steps} steps")
        return 1 if outcome.violation else 0
    began = time.perf_counter()
    tally = Tally()
    for outcome in run_many(range(options.first, options.first + options.seeds), options.steps, options.jobs):
        tally.add(outcome)
        if outcome.violation:
            print(outcome, flush=True)
    seconds = time.perf_counter() - began
    print(tally)
    print(f"{seconds:.1f} s: {tally.steps / seconds:,.0f} steps/s")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
