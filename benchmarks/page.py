"""The page about performance: its tables and its picture, from what a run wrote with `--json`.

python -m benchmarks.page FIGURES.json
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .bench import ROOT
from .cases import WORKS
from .figures import PINNED, UNPINNED
from .picture import Line, picture

PAGE = ROOT / "docs" / "performance.md"
PICTURE = "performance.svg"
BEGIN, END = "<!-- figures: begin (python -m benchmarks.page) -->", "<!-- figures: end -->"
SHOWN = ("send", "round trip", "one way")  # in the picture


def main(argv: list[str]) -> int:
    report = json.loads(Path(argv[0]).read_text())
    PAGE.write_text(filled(PAGE.read_text(), report))
    PAGE.with_name(PICTURE).write_text(drawn(report))
    return 0


def filled(page: str, report: dict[str, Any]) -> str:
    """The page with this run's figures between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    assert mark, f"{PAGE.name} has lost its marks"
    return "\n".join([before + BEGIN, *_figures(report), END + after])


def drawn(report: dict[str, Any]) -> str:
    groups: dict[str, list[Line]] = {}
    for row in report["rows"].values():
        found = row.get(PINNED)
        if row["work"] in SHOWN and found:
            of = groups.setdefault(f"{WORKS[row['work']].title}, pinned to one CPU", [])
            label = f"{row['system']}, {row['connection']}" + ("" if row["durable"] == "no" else f" · {row['durable']}")
            of.append(Line(label, found["p50"], found["p99"], row["system"].startswith("Backchannel")))
    return picture(groups)


def _figures(report: dict[str, Any]) -> Iterator[str]:
    machine = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    yield f"\nOne run: {report['rounds']} rounds, seed {report['seed']}; {machine}.\n"
    yield f"![Latencies on a logarithmic scale: a dot is the p50, its stroke ends at the p99]({PICTURE})\n"
    yield "| target | wanted | beyond | reached | |\n|---|---|---|---|---|"
    for target in report["targets"]:
        cells = [target["work"], f"{target['kind']} {target['target']:g}"]
        cells += ["" if target["beyond"] is None else f"{target['beyond']:g}", _number(target["reached"])]
        yield _line([*cells, target["verdict"]])
    for work, about in WORKS.items():
        rows = [row for row in report["rows"].values() if row["work"] == work]
        if rows:
            yield from _table(f"{about.title} ({about.unit})", rows, is_latency=about.is_latency)
    if report["missing"]:
        yield "\nNot there to be measured: " + "; ".join(f"{what} ({why})" for what, why in report["missing"].items())
    yield ""


def _table(title: str, rows: list[dict[str, Any]], *, is_latency: bool) -> Iterator[str]:
    modes = [mode for mode in (PINNED, UNPINNED) if any(mode in row for row in rows)]
    names = ["p50", "p99", "p999", "ratio"] if is_latency else ["p50", "ratio"]
    words = {"p50": "p50" if is_latency else "median", "p99": "p99", "p999": "p99.9", "ratio": "x base"}
    yield f"\n**{title}**\n"
    heads = [f"{words[name]}{f', {mode}' if is_latency else ''}" for mode in modes for name in names]
    yield _line(["", "durable", "acknowledged", "connection", *heads])
    yield "|---|---|---|---" + "|---:" * len(heads) + "|"
    for row in rows:
        cells = [_number(row[mode][name]) if mode in row else "failed" for mode in modes for name in names]
        yield _line([row["system"], row["durable"], row["acknowledged"], row["connection"], *cells])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
