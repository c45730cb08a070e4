"""Backchannel beside its peers, in one run: `python -m benchmarks`. README.md says how to read what it prints."""

import argparse
import dataclasses
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from .cases import CASES, WORKS, Case
from .figures import PINNED, UNPINNED, Figures, figures
from .rounds import Result, measure, modes_of
from .sizes import TINY, Sizes
from .table import Row, tables, verdicts
from .targets import TARGETS, Verdict, verdict
from .tools import Tools, gather

TINY_AT_ONCE = 4  # nothing is measured then


def main(argv: list[str] | None = None) -> int:
    """Measures and prints. Returns the exit status: 1 if a case failed that could run."""
    options = _parser().parse_args(argv)
    sizes = _sizes(options)
    cases = chosen(options.only)
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended all the same
    run = Path(tempfile.mkdtemp(prefix="bench-", dir=options.dir))
    try:
        needs = {need for case in cases for need in case.needs}
        may_install = not (options.no_install or options.tiny)
        tools = gather(needs, options.cache, run, may_install=may_install, is_here=options.here)
        able = [case for case in cases if not tools.lacking(case.needs)]
        result = measure(
            able, options.cpu, options.rounds, sizes, tools, run, options.seed,
            at_once=TINY_AT_ONCE if options.tiny else 1, say=_progress,
        )  # fmt: skip
    finally:
        shutil.rmtree(run)
    _progress("")
    rows = [_row(case, options.cpu, result) for case in able]
    judged = [verdict(target, result.found) for target in TARGETS]
    machine = _machine(options.dir)
    print(_report(rows, judged, machine, options, tools, result))
    if options.json:
        report = _json(rows, judged, machine, options, sizes, tools, result)
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if result.failures else 0


def chosen(only: list[str]) -> list[Case]:
    """All cases, or those whose name has one of these words, with the rows that they are divided by."""
    if not only:
        return list(CASES)
    wanted = {case.name for case in CASES if any(words in case.name for words in only)}
    needed = {WORKS[case.work].base for case in CASES if case.name in wanted}
    needed |= {target.base for target in TARGETS if target.row in wanted and isinstance(target.base, str)}
    return [case for case in CASES if case.name in wanted | needed]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORDS",
        help="rows with these in their name, and their bases (may be repeated)",
    )
    parser.add_argument("--list", action="store_true", help="print the names of the rows, and end")
    parser.add_argument("--rounds", type=int, help="(default: 5; tiny: 1)")
    parser.add_argument(
        "--cpu",
        type=_modes,
        default=[PINNED, UNPINNED],
        help="of latencies: pinned, unpinned, or both with a comma (default: both)",
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of the order in each round")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there too")
    parser.add_argument("--messages", type=int, help="of each latency in each round")
    parser.add_argument(
        "--waiting", type=_pair, metavar="SOME,MANY", help="messages in a mailbox (default: 10000,1000000)"
    )
    parser.add_argument("--agents", type=_pair, metavar="SOME,MANY", help="agents in one process (default: 100,1000)")
    parser.add_argument(
        "--tiny", action="store_true", help="show that every row that needs no peer runs; the numbers mean nothing"
    )
    parser.add_argument(
        "--here", action="store_true", help="measure Backchannel in this environment, not freshly installed"
    )
    parser.add_argument("--no-install", action="store_true", help="fetch nothing: what is not there is left out")
    parser.add_argument("--cache", type=Path, default=_cache(), help="where peers are kept (default: %(default)s)")
    parser.add_argument("--dir", help="where everything runs; its disk is measured (default: the temporary directory)")
    return parser  # fmt: skip


def _sizes(options: argparse.Namespace) -> Sizes:
    """The sizes of this run; fills in what depends on them."""
    sizes = TINY if options.tiny else Sizes()
    if options.rounds is None:
        options.rounds = 1 if options.tiny else 5
    if options.messages is not None:
        slow = min(options.messages, sizes.slow_messages)
        sizes = dataclasses.replace(sizes, messages=options.messages, slow_messages=slow)
    if options.waiting is not None:
        sizes = dataclasses.replace(sizes, waiting=options.waiting)
    if options.agents is not None:
        sizes = dataclasses.replace(sizes, agents=options.agents)
    return sizes


def _row(case: Case, modes: list[str], result: Result) -> Row:
    base = WORKS[case.work].base
    found = {
        mode: made
        for mode in modes_of(case, modes)
        if (made := figures(result.found[case.name, mode], result.found.get((base, mode), []))) is not None
    }
    return case, found, result.notes.get(case.name, "")


# --- what is said -----------------------------------------------------------------------------------------------------


def _report(
    rows: list[Row],
    judged: list[Verdict],
    machine: dict[str, Any],
    options: argparse.Namespace,
    tools: Tools,
    result: Result,
) -> str:
    parts = [
        ", ".join(f"{key} {value}" for key, value in machine.items()),
        f"{options.rounds} rounds, seed {options.seed}" + ("; tiny: the numbers mean nothing" if options.tiny else ""),
        *tables(rows),
        verdicts(judged),
    ]
    if tools.missing:
        parts.append("could not be had:\n" + _listed(tools.missing))
    if result.failures:
        parts.append("failed:\n" + _listed(result.failures))
    return "\n\n".join(parts)


def _listed(reasons: dict[str, str]) -> str:
    return "\n".join(f"  {what}: {why}" for what, why in reasons.items())


def _json(
    rows: list[Row],
    judged: list[Verdict],
    machine: dict[str, Any],
    options: argparse.Namespace,
    sizes: Sizes,
    tools: Tools,
    result: Result,
) -> dict[str, Any]:
    return {
        "machine": machine,
        "versions": tools.versions,
        "rounds": options.rounds,
        "seed": options.seed,
        "is_tiny": options.tiny,
        "sizes": dataclasses.asdict(sizes),
        "rows": {case.name: _row_json(case, found, note) for case, found, note in rows},
        "targets": [
            {
                "work": v.target.work, "row": v.target.row, "base": v.target.base, "kind": v.target.kind.value,
                "target": v.target.target, "beyond": v.target.beyond, "reached": v.reached, "verdict": v.word,
            }
            for v in judged
        ],
        "missing": tools.missing,
        "failed": result.failures,
    }  # fmt: skip


def _row_json(case: Case, found: dict[str, Figures], note: str) -> dict[str, Any]:
    includes = {"durable": case.durable, "acknowledged": case.acknowledged, "connection": case.connection}
    about = {"work": case.work, "system": case.system, "unit": WORKS[case.work].unit, "note": note}
    return about | includes | {mode: figures._asdict() for mode, figures in found.items()}


def _progress(text: str) -> None:
    """One line that changes, for a person who waits; where it cannot change, nothing."""
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="" if text else "\r", file=sys.stderr, flush=True)


def _machine(folder: str | None) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "filesystem": _filesystem(os.path.realpath(folder or tempfile.gettempdir())),
    }


def _cpu() -> str:
    with open("/proc/cpuinfo") as file:
        return next((line.partition(": ")[2].strip() for line in file if line.startswith("model name")), "unknown")


def _filesystem(path: str) -> str:
    """The type of the file system that a path lies on."""
    with open("/proc/mounts") as file:
        mounts = [(words[1], words[2]) for words in map(str.split, file)]
    return max(
        (mount for mount in mounts if path == mount[0] or path.startswith(mount[0].rstrip("/") + "/")),
        key=lambda mount: len(mount[0]),
    )[1]


# --- what options mean ------------------------------------------------------------------------------------------------


def _modes(text: str) -> list[str]:
    modes = text.split(",")
    if not set(modes) <= {PINNED, UNPINNED}:
        raise argparse.ArgumentTypeError(f"{text} is not {PINNED}, {UNPINNED}, or both with a comma")
    return modes


def _pair(text: str) -> tuple[int, int]:
    some, _, many = text.partition(",")
    try:
        return int(some), int(many)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not two counts with a comma") from None


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "backchannel-benchmarks")


if __name__ == "__main__":
    sys.exit(main())
