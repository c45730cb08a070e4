"""Runs the cases: every round runs each of them once in each of its modes, in an order drawn anew.

Each run is a process of its own in a directory of its own, with fresh servers; both are gone afterwards. Pinned, the
whole tree of processes shares one CPU.
"""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .bench import ROOT
from .cases import WORKS, Case
from .figures import PINNED, UNPINNED, Found
from .sizes import Sizes
from .tools import Tools

CASE_S = 300.0  # a case that takes longer hangs; filling a mailbox with a million texts takes a minute


@dataclasses.dataclass
class Result:
    """What was found; why what failed did; what was said beside a row."""

    found: Found
    failures: dict[str, str]
    notes: dict[str, str]


def measure(
    cases: list[Case],
    modes: list[str],
    rounds: int,
    sizes: Sizes,
    tools: Tools,
    run: Path,
    seed: int,
    *,
    at_once: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """All rounds. More than one case at once is for those who only want to see that they run."""
    result = Result({}, {}, {})
    chance = random.Random(seed)
    pairs = [(case, mode) for case in cases for mode in modes_of(case, modes)]
    for case, mode in pairs:
        result.found[case.name, mode] = []
    for number in range(rounds):
        order = chance.sample(pairs, len(pairs))
        with ThreadPoolExecutor(at_once) as pool:
            done = pool.map(lambda pair: _run(pair[0], pair[1], sizes, tools, run, result), order)
            for place, _ in enumerate(done, 1):
                say(f"round {number + 1} of {rounds}: {place} of {len(order)}")
    return result


def modes_of(case: Case, modes: list[str]) -> list[str]:
    """A throughput needs all CPUs, and a size does not care."""
    return modes if WORKS[case.work].is_latency else [UNPINNED]


def _run(case: Case, mode: str, sizes: Sizes, tools: Tools, run: Path, result: Result) -> None:
    """One case, once."""
    values: list[float] | None = None
    try:
        answer = json.loads(_output(case, mode, sizes, tools, run))
        values = sorted(answer["values"])
        if answer["note"]:
            result.notes[case.name] = answer["note"]
    except RuntimeError as error:
        result.failures[f"{case.name} ({mode})"] = str(error)
    result.found[case.name, mode].append(values)


def _output(case: Case, mode: str, sizes: Sizes, tools: Tools, run: Path) -> bytes:
    """What the case's process prints. Raises `RuntimeError` with its last words if it fails."""
    folder = Path(tempfile.mkdtemp(dir=run, prefix=""))  # a short name: a socket's path has to fit in 107 bytes
    settings = {
        "measure": case.measure,
        "options": case.options,
        "sizes": dataclasses.asdict(sizes),
        "tools": tools.programs,
        "folder": str(folder),
        "shared": str(run),
        "cpu": max(os.sched_getaffinity(0)) if mode == PINNED else None,
    }
    python = tools.peers_python if case.is_peer else tools.python
    process = subprocess.Popen(
        [python, "-m", "benchmarks.one", json.dumps(settings)],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        printed, complained = process.communicate(timeout=CASE_S)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it did not end within {CASE_S:g} s") from None
    finally:
        _end(process)
        shutil.rmtree(folder)
    if process.returncode != 0:
        words = complained.decode(errors="replace").strip().splitlines()
        raise RuntimeError(words[-1] if words else f"exit status {process.returncode}")
    return printed


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends the case and whatever it started: all in a session of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
