from __future__ import annotations

from gateway.flags import Flag, Source
from gateway.review.curves import STEPS, review_curve


def flags(*risks: float | None, hazard: str = "privacy") -> list[Flag]:
    return [Flag(tenant="acme", source=Source.POLICY, text="a text", hazard=hazard, risk=risk) for risk in risks]


def test_precision_and_recall_are_those_of_the_flags_above_a_threshold() -> None:
    curve = review_curve(flags(0.6, 0.9), flags(0.5, 0.7), None)
    assert curve is not None
    points = {round(point.threshold, 2): (point.precision, point.recall) for point in curve.points}
    assert len(points) == STEPS + 1
    assert points[0.0] == (0.5, 1.0)
    assert points[0.6] == (2 / 3, 1.0)
    assert points[0.8] == (1.0, 0.5)
    assert points[1.0] == (None, 0.0)


def test_a_hazard_has_a_curve_of_its_own_and_flags_without_a_risk_have_none() -> None:
    confirmed = [*flags(0.6, None), *flags(0.9, hazard="hate")]
    curve = review_curve(confirmed, flags(0.7), "privacy")
    assert curve is not None
    assert (curve.confirmed, curve.dismissed) == (1, 1)
    assert review_curve(confirmed, [], "elections") is None
    assert review_curve([], flags(0.7), None) is None
