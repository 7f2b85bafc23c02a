"""When a difference is one: exact sign tests on paired answers, and what several tests at once take."""

from __future__ import annotations

import math
from collections.abc import Sequence


def sign_test(one: int, other: int) -> float:
    """Two-sided p that of ``one + other`` discordant pairs so many fall on one side by chance.

    McNemar's test in its exact form: the pairs that agree say nothing, the others fall like a fair coin (Q. McNemar
    1947). 1 where there is none.
    """
    return min(1.0, 2 * tail(max(one, other), one + other))


def tail(least: int, of: int) -> float:
    """Chance that a fair coin, thrown ``of`` times, falls on one side ``least`` times or more."""
    ways = math.comb(of, least)
    total = 0
    for count in range(least, of + 1):
        total += ways
        ways = ways * (of - count) // (count + 1)
    throws: int = 1 << of
    return total / throws


def holm(ps: Sequence[float]) -> list[float]:
    """The same p values, raised so that a bound on them bounds the chance of any false alarm among them all.

    (S. Holm 1979.) In the order given.
    """
    adjusted = [1.0] * len(ps)
    largest = 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=lambda at: ps[at])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[at]))
        adjusted[at] = largest
    return adjusted
