"""The tables, as text."""

from collections.abc import Iterator

from .cases import WORKS, Case, Work
from .figures import PINNED, UNPINNED, Figures
from .targets import Verdict

Row = tuple[Case, dict[str, Figures], str]
"""A case, its figures by mode, and what is said beside it."""


def tables(rows: list[Row]) -> Iterator[str]:
    """One for each work that has rows."""
    for name, work in WORKS.items():
        of_work = [row for row in rows if row[0].work == name]
        if of_work:
            yield _table(work, of_work)


def verdicts(found: list[Verdict]) -> str:
    """Target, reached, and whether that is enough; `beyond` where it could go."""
    lines = [f"{'target':66} {'wanted':>14} {'beyond':>8} {'reached':>9}"]
    for verdict in found:
        target = verdict.target
        beyond = "" if target.beyond is None else f"{target.beyond:g}"
        reached = "" if verdict.reached is None else f"{verdict.reached:.2f}"
        word = f"{verdict.word}, and beyond" if verdict.is_beyond else verdict.word
        lines.append(f"{target.work:66} {target.kind.value:>8} {target.target:5g} {beyond:>8} {reached:>9}  {word}")
    return "\n".join(lines)


def _table(work: Work, rows: list[Row]) -> str:
    modes = [mode for mode in (PINNED, UNPINNED) if any(mode in found for _, found, _ in rows)]
    is_rate = not work.is_latency
    head = f"{'':39} {'durable':8} {'acknowledged':13} {'connection':10}"
    names = ["median", "x base"] if is_rate else ["p50", "p99", "p99.9", "x base"]
    lines = [f"{work.title}; {work.unit}; base: {work.base.partition(': ')[2]}"]
    if work.is_latency:
        lines.append(" " * len(head) + "".join(f" |{mode:^{9 * len(names)}}" for mode in modes))
    lines.append(head + "".join(" |" + "".join(f"{name:>9}" for name in names) for _ in modes))
    for case, found, note in rows:
        line = f"{case.system:39} {case.durable:8} {case.acknowledged:13} {case.connection:10}"
        line += "".join(" |" + _cells(found.get(mode), is_rate=is_rate) for mode in modes)
        lines.append(f"{line}  {note}".rstrip())
    return "\n".join(lines)


def _cells(found: Figures | None, *, is_rate: bool) -> str:
    if found is None:
        return f"{'failed':>9}" + " " * (9 if is_rate else 27)
    numbers = [found.p50] if is_rate else [found.p50, found.p99, found.p999]
    return "".join(f"{_short(number):>9}" for number in numbers) + f"{_ratio(found.ratio):>9}"


def _short(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:,.0f}" if number >= 1000 else f"{number:.1f}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"
