"""Scores made by hand, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from antiprompt_bank import Neighbour, Score, Side
from gateway.policy import Finding


def score(risks: Mapping[str, float], nearest: Sequence[Neighbour] = (), *, start: int = 0, end: int = 1) -> Score:
    """A score as the bank gives it: the risk is the largest of the risks."""
    hazard = max(risks, key=lambda each: risks[each], default=None)
    risk = risks[hazard] if hazard is not None else 0.0
    return Score(risk, hazard, dict(risks), tuple(nearest), "raw", start, end, 1)


def finding(side: Side = "request", role: str = "user", index: int = 0, /, **risks: float) -> Finding:
    """What was found in one text."""
    return Finding(score(risks), side, role, index)
