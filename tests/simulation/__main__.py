"""See one seed again, run many, or see who notices which mistake.

Without options: the seeds 0 to 99. A seed's trace tells every input and answer of every daemon, in order.
"""

import argparse
import re
import sys
import time
from pathlib import Path

from .mutants import MUTANTS, noticed
from .runner import Tally, run_many, run_one
from .script import Recorder, write

ENOUGH = 150  # seeds in which every kind of fault happens


def main() -> int:
    options = parse()
    if options.mutants:
        for mutant in MUTANTS:
            print(f"{mutant.name:50} {noticed(mutant) or 'NOBODY'}", flush=True)
        return 0
    return one(options) if options.seed is not None else many(options)


def one(options: argparse.Namespace) -> int:
    recorder = Recorder()
    with recorder.listening():
        outcome = run_one(options.seed, options.steps, tells=print, recorder=recorder)
    if options.script is not None:
        print(dump(recorder, outcome.violation, options))
    print(outcome.violation or f"holds; trace {outcome.trace}, {outcome.steps} steps")
    return 1 if outcome.violation else 0


def many(options: argparse.Namespace) -> int:
    began = time.perf_counter()
    tally = Tally()
    for outcome in run_many(range(options.first, options.first + options.seeds), options.steps, options.jobs):
        tally.add(outcome)
        if outcome.violation:
            print(outcome, flush=True)
    seconds = time.perf_counter() - began
    print(tally)
    print(f"{seconds:.1f} s: {tally.steps / seconds:,.0f} steps/s")
    return 1 if tally.failed or (options.seeds >= ENOUGH and tally.unfired) else 0


def dump(recorder: Recorder, violation: str, options: argparse.Namespace) -> str:
    """Writes the script; by default of the session and the end that the violation names first."""
    world = recorder.world
    assert world is not None
    named = re.findall(r"s-[0-9a-f]{32}", violation)
    session = options.session or next((s for s in [*named, *world.truth.sessions] if s in world.truth.sessions), None)
    if session is None:
        return "there was no session"
    ends = [name for name in world.truth.sessions[session].ends if name in world.daemons]
    end = options.end or min(ends, key=lambda name: violation.find(name) % (len(violation) + 1))
    write(options.script, recorder.script(end, session))
    return f"what {end} saw of {session} is in {options.script}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="this one, with its trace")
    parser.add_argument("--steps", type=int, default=200, help="with faults, before the way to rest")
    parser.add_argument("--script", type=Path, help="with --seed: where to write what one end of a session saw")
    parser.add_argument("--session", help="which; otherwise the first that the violation names")
    parser.add_argument("--end", help="the agent whose end it is")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=0, help="where they begin")
    parser.add_argument("--jobs", type=int, default=1, help="side by side")
    parser.add_argument("--mutants", action="store_true", help="who notices which mistake")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
