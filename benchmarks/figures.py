"""From samples to figures. A ratio is taken within a round, so that what slowed the machine for a while slows both."""

import statistics
from itertools import chain
from typing import NamedTuple

PINNED, UNPINNED = "pinned", "unpinned"

Rounds = list[list[float] | None]
"""For each round what a case found, sorted; None where it failed."""

Found = dict[tuple[str, str], Rounds]
"""By case and mode."""


class Figures(NamedTuple):
    """One row in one mode: the median of the rounds' medians, the tails of all rounds together, and the ratio to the
    row that the table divides by. None where there are too few numbers to say it."""

    p50: float
    p99: float | None
    p999: float | None
    ratio: float | None
    values: int  # how many there were
    rounds: list[float]  # each one's median, for the JSON


def figures(rounds: Rounds, base: Rounds) -> Figures | None:
    """None if the case failed in every round."""
    whole = [values for values in rounds if values]
    if not whole:
        return None
    pooled = sorted(chain(*whole))
    medians = [at(values, 0.5) for values in whole]
    return Figures(
        statistics.median(medians),
        at(pooled, 0.99) if has_tail(pooled, 0.99) else None,
        at(pooled, 0.999) if has_tail(pooled, 0.999) else None,
        median_ratio(rounds, base, 0.5),
        len(pooled),
        medians,
    )


def median_ratio(rounds: Rounds, base: Rounds, share: float) -> float | None:
    """The median over the rounds that have both. None if none has."""
    both = [(one, other) for one, other in zip(rounds, base, strict=False) if one and other]
    pairs = [(at(one, share), at(other, share)) for one, other in both if has_tail(one, share)]
    ratios = [one / other for one, other in pairs if other]
    return statistics.median(ratios) if ratios else None


def has_tail(values: list[float], share: float) -> bool:
    """Whether there are enough for at least one of them to lie beyond."""
    return share <= 0.5 or len(values) >= round(1 / (1 - share))


def at(ordered: list[float], share: float) -> float:
    """The value below which so large a share lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
