"""Calibration: from neighbours to a risk in [0, 1] that means the same on every bank.

A curve is a logistic regression on how near the harmful and the benign exemplars are. It is fitted on the bank's own
exemplars, each scored with its whole family (twin and variants) left out, which is how near an unseen text would be.
The line is then moved and stretched so that its values can be used in a policy:

* risk 0.5: 5 % of the harmless look-alikes and 1 % of the everyday exemplars would pass it. Look-alikes are far harder
  than what people write on most days; measured on everyday prompts this is 1 % or less.
* risk 0.9: 1 % of the look-alikes and 0.2 % of the everyday exemplars.

A calibration belongs to one bank version and one encoder, since both move every similarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.neighbours import Neighbours, Situation

FEATURES: Final = ("harmful, best 4", "harmful, best 8", "benign, best 4", "benign, best 8")
"""What a curve weighs: the mean similarity of the nearest exemplars. Means, because the single nearest one moves with
every row that is added; what one exemplar must do alone is the business of its radius (see ``scoring``)."""

_HARMFUL_FEATURES: Final = 2
_RIDGE: Final = 1.0
_FEWEST: Final = 24
_LOGIT_HIGH: Final = float(np.log(0.9 / 0.1))


@dataclass(frozen=True, slots=True)
class Curve:
    """Risk of one situation: ``sigmoid(weights . features + bias)``, zero where ``fitted_on`` is.

    ``fitted_on`` counts the exemplars; with fewer than 24 of either label nothing is fitted, and only near-verbatim
    matches count. ``recall`` is the share of harmful exemplars, their families left out, at risk 0.5 and 0.9.
    """

    weights: tuple[float, ...] = (0.0,) * len(FEATURES)
    bias: float = 0.0
    fitted_on: int = 0
    recall: tuple[float, float] = (0.0, 0.0)

    def risk(self, harmful: Neighbours, benign: Neighbours) -> NDArray[np.float64]:
        """``(n,)`` risks of n windows."""
        if not self.fitted_on:
            return np.zeros(len(harmful.similarity))
        return _sigmoid(_features(harmful, benign) @ np.array(self.weights) + self.bias)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The curves of a bank, one for each situation, and what they belong to."""

    bank: str
    encoder: str
    curves: Mapping[Situation, Curve]

    def to_json(self) -> dict[str, Any]:
        return {
            "bank": self.bank,
            "encoder": self.encoder,
            "features": list(FEATURES),
            "risk_0.5": "5 % of look-alikes, 1 % of everyday exemplars, their families left out",
            "risk_0.9": "1 % of look-alikes, 0.2 % of everyday exemplars, their families left out",
            "curves": {situation: asdict(curve) for situation, curve in self.curves.items()},
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Calibration:
        """Raises ``ValueError`` when the row is not a calibration of this form."""
        try:
            if row["features"] != list(FEATURES):
                raise ValueError(f"features are {row['features']}, not {list(FEATURES)}")
            curves = {
                situation: Curve(
                    weights=tuple(float(weight) for weight in curve["weights"]),
                    bias=float(curve["bias"]),
                    fitted_on=int(curve["fitted_on"]),
                    recall=(float(curve["recall"][0]), float(curve["recall"][1])),
                )
                for situation, curve in row["curves"].items()
            }
            return cls(str(row["bank"]), str(row["encoder"]), curves)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"not a calibration: {error!r}") from error


def fit_curve(
    harmful: Neighbours, benign: Neighbours, *, is_harmful: NDArray[np.bool_], is_everyday: NDArray[np.bool_]
) -> Curve:
    """Fit a curve on exemplars whose neighbours were found with their own families left out.

    ``is_harmful`` and ``is_everyday`` are ``(n,)``; everyday exemplars are benign ones that resemble no hazard.
    """
    counts = int(is_harmful.sum()), int((~is_harmful).sum())
    if min(counts) < _FEWEST:
        return Curve()
    features = _features(harmful, benign)
    weights = _logistic(features, is_harmful)
    if not weights.any():
        return Curve()
    line = features @ weights
    lookalikes, everyday = line[~is_harmful & ~is_everyday], line[is_everyday]
    middle = _highest_quantile((lookalikes, 0.95), (everyday, 0.99))
    high = max(_highest_quantile((lookalikes, 0.99), (everyday, 0.998)), middle + 1e-3)
    stretch = _LOGIT_HIGH / (high - middle)
    found = line[is_harmful]
    return Curve(
        weights=tuple((weights * stretch).tolist()),
        bias=-middle * stretch,
        fitted_on=len(features),
        recall=(float(np.mean(found >= middle)), float(np.mean(found >= high))),
    )


def _features(harmful: Neighbours, benign: Neighbours) -> NDArray[np.float64]:
    parts = [_mean_of_best(side.similarity, count) for side in (harmful, benign) for count in (4, 8)]
    return np.stack(parts, axis=1)


def _mean_of_best(similarity: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    # Missing neighbours have similarity -1: a bank with fewer than ``count`` rows is far from everything.
    best: NDArray[np.float64] = similarity[:, :count].mean(axis=1)
    return best


def _highest_quantile(*parts: tuple[NDArray[np.float64], float]) -> float:
    return max(float(np.quantile(values, share)) for values, share in parts if len(values))


def _logistic(features: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights of a ridge logistic regression with both classes of equal weight, fitted by Newton's method.

    A weight whose sign would be absurd (being near harm lowers the risk) is set to zero and the rest fitted again.
    """
    expected = np.where(np.arange(features.shape[1]) < _HARMFUL_FEATURES, 1.0, -1.0)
    kept = np.ones(features.shape[1], dtype=bool)
    while kept.any():
        weights = np.zeros(features.shape[1])
        weights[kept] = _newton(features[:, kept], positive)
        absurd = weights * expected < 0
        if not absurd.any():
            return weights
        kept &= ~absurd
    return np.zeros(features.shape[1])


def _newton(features: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    design = np.column_stack([features, np.ones(len(features))])
    share = positive.mean()
    balance = np.where(positive, 0.5 / share, 0.5 / (1 - share))
    ridge = np.diag([_RIDGE] * features.shape[1] + [0.0])
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        chance = _sigmoid(design @ weights)
        slope = design.T @ (balance * (chance - positive)) + ridge @ weights
        curvature = (design * (balance * chance * (1 - chance))[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, slope)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights[:-1]


def _sigmoid(line: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-np.clip(line, -50.0, 50.0)))
