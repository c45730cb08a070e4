"""`python -m tests.mutation`: every mutant of the core, or a sample of them (`--sample 100`), or one (`--only M:N`).

Each is a forked process, in which the module is imported with its mistake and the tests beside it run until the first
that fails. Prints the survivors, and for each module how many were noticed. Status 1 below 85 %.
"""

import argparse
import importlib.abc
import importlib.machinery
import os
import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import hypothesis  # noqa: F401 - what every test needs is imported once, before the forks
import msgspec  # noqa: F401
import pytest

from .mutants import Mutant, mutants, tree_of

ROOT = Path(__file__).parents[2]
KILLED_MIN = 0.85
CPU_S = 120  # a mutant that runs longer hangs, which is noticed
SESSION_TESTS = [
    "tests/test_session_scripts.py", "tests/test_endpoint.py", "tests/test_session_wire.py",
    "tests/test_sessions_on_the_bench.py", "tests/simulation/test_found.py",
]  # fmt: skip
MAILBOX_TESTS = [
    "tests/test_mailbox_scripts.py", "tests/test_host.py", "tests/test_mailbox.py", "tests/test_batches.py",
    "tests/test_repetition.py", "tests/test_sessions_on_the_bench.py", "tests/simulation/test_found.py",
]  # fmt: skip
TARGETS: dict[str, list[str]] = {
    "protocol/codec.py": ["tests/test_codec.py"],
    "protocol/recvqueue.py": SESSION_TESTS,
    "protocol/sendqueue.py": SESSION_TESTS,
    "protocol/session.py": SESSION_TESTS,
    "protocol/endpoint.py": SESSION_TESTS,
    "mailbox/mailbox.py": MAILBOX_TESTS,
}


class Wrong(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module with a mistake in it."""

    def __init__(self, target: str, mutant: Mutant) -> None:
        self._module = "backchannel." + target.removesuffix(".py").replace("/", ".")
        self._tree = tree_of(source_of(target), mutant)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name == self._module else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._tree, self._module, "exec"), module.__dict__)


def start(target: str, mutant: Mutant | None) -> int:
    """The pid of a process that ends with 0 if no test fails with this mistake, or without any."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        if mutant is not None:
            sys.meta_path.insert(0, Wrong(target, mutant))
        options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not night and not proof"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of hypothesis, which is here already
        status = int(pytest.main([*options, "--timeout", "600", *TARGETS[target]]))
    finally:
        os._exit(status)


def survivors(target: str, chosen: list[Mutant], jobs: int) -> Iterator[Mutant]:
    """Those that no test notices, as they are found."""
    left = list(chosen)
    running: dict[int, Mutant] = {}
    while left or running:
        while left and len(running) < jobs:
            mutant = left.pop(0)
            running[start(target, mutant)] = mutant
        pid, status = os.wait()
        mutant = running.pop(pid)
        if status == 0:
            yield mutant


def main() -> None:
    assert "backchannel" not in sys.modules, "it has to be imported with its mistake"
    os.chdir(ROOT)
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(TARGETS), help="of: " + ", ".join(TARGETS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sample", type=int, default=0, help="of each module so many mutants, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="MODULE:NUMBER, one mutant")
    options = parser.parse_args()
    if options.only:
        target, _, number = options.only.rpartition(":")
        chosen = [list(mutants(source_of(target)))[int(number)]]
        print("survived" if list(survivors(target, chosen, 1)) else "noticed")
        return
    noticed = tried = 0
    for target in options.targets:
        found = list(mutants(source_of(target)))
        chosen = found
        if 0 < options.sample < len(found):
            chosen = sorted(random.Random(options.seed).sample(found, options.sample))
        if os.waitpid(start(target, None), 0)[1] != 0:
            sys.exit(f"the tests of {target} fail without any mistake: {' '.join(TARGETS[target])}")
        began, left = time.monotonic(), 0
        for mutant in survivors(target, chosen, options.jobs):
            left += 1
            print(f"survived: {target}:{mutant.number}, line {mutant.line}: {mutant.what}", flush=True)
        killed, seconds = len(chosen) - left, time.monotonic() - began
        print(f"{target}: {killed} of {len(chosen)} noticed (of {len(found)} in sum) in {seconds:.0f} s", flush=True)
        noticed, tried = noticed + killed, tried + len(chosen)
    print(f"{noticed} of {tried} noticed ({noticed / tried:.1%})")
    sys.exit(noticed < KILLED_MIN * tried)


def source_of(target: str) -> str:
    return (ROOT / "src/backchannel" / target).read_text()


if __name__ == "__main__":
    main()
