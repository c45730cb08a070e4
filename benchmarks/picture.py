"""Latencies as a picture: one line a row on a logarithmic scale, a dot at the p50, a stroke to the p99. SVG by hand."""

from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

WIDTH, LEFT, RIGHT, TOP, ROW, HEAD = 860, 330, 70, 10, 19, 34
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 } .head { font-weight: 600 } .axis { font-size: 11px; fill: #777 }
.grid { stroke: #ddd } .ours { fill: #c0392b; stroke: #c0392b } .peer { fill: #5a7d9a; stroke: #5a7d9a }
text.ours { stroke: none; font-weight: 600 }
@media (prefers-color-scheme: dark) { text { fill: #ccc } .axis { fill: #999 } .grid { stroke: #444 } }
"""


class Line(NamedTuple):
    """One row: what it is called, its p50 and p99 in microseconds, and whether it is ours."""

    label: str
    p50: float
    p99: float | None
    is_ours: bool


def picture(groups: dict[str, list[Line]]) -> str:
    """Each group under its title, the quickest first, all on one scale."""
    numbers = [n for lines in groups.values() for line in lines for n in (line.p50, line.p99) if n]
    low, high = floor(log10(min(numbers))), ceil(log10(max(numbers)))

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (log10(value) - low) / max(1, high - low)

    height = TOP + sum(HEAD + ROW * len(lines) for lines in groups.values()) + 2 * ROW
    bottom = height - 1.5 * ROW
    drawn = []
    for power in range(low, high + 1):
        at = x(10.0**power)
        drawn.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom:.1f}"/>')
        drawn.append(_text(at, bottom + 14, _unit(10.0**power), "axis", "middle"))
    y = float(TOP)
    for title, lines in groups.items():
        drawn.append(_text(8, y + 22, title, "head"))
        y += HEAD
        for line in sorted(lines, key=lambda line: line.p50):
            kind, middle = "ours" if line.is_ours else "peer", y + ROW / 2
            drawn.append(_text(LEFT - 10, middle + 4, line.label, "ours" if line.is_ours else "", "end"))
            if line.p99:
                ends = f'x1="{x(line.p50):.1f}" x2="{x(line.p99):.1f}" y1="{middle}" y2="{middle}"'
                drawn.append(f'<line class="{kind}" stroke-width="2" {ends}/>')
            drawn.append(f'<circle class="{kind}" cx="{x(line.p50):.1f}" cy="{middle}" r="4"/>')
            drawn.append(_text(x(line.p99 or line.p50) + 8, middle + 4, _unit(line.p50), "axis"))
            y += ROW
    size = f'width="{WIDTH}" height="{height:g}" viewBox="0 0 {WIDTH} {height:g}"'
    body = "\n".join(drawn)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{body}\n</svg>\n'


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _unit(us: float) -> str:
    return f"{us:.3g} us" if us < 1000 else f"{us / 1000:.3g} ms" if us < 1e6 else f"{us / 1e6:.3g} s"
