"""Calibration: from neighbours to a risk in [0, 1] that means the same on every bank.

A curve is a logistic regression on how close the harmful and the benign exemplars are on average. It is fitted on the
bank's own exemplars, each scored with its whole family (twin and variants) left out, which is how close an unseen text
would be; the benign side of the fit is the look-alikes, since those are what must be told apart. The line is then moved
and stretched so that its values can be used in a policy:

* risk 0.5: passed by at most 15 % of the look-alikes and 5 % of the everyday exemplars. Both are picked to be hard; of
  what people write on most days, less than 1 % passes it.
* risk 0.9: passed by at most 8 % of the look-alikes and 1 % of the everyday exemplars; less than 0.2 % of what people
  write.

A calibration belongs to one bank version and one encoder, since both move every similarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.neighbours import NEIGHBOURS, SITUATIONS, Neighbours, Shelf, Situation

_RIDGE: Final = 1.0
_FEWEST: Final = 24
_MEDIUM: Final = 0.5
_HIGH: Final = 0.9
_PASSING: Final = {_MEDIUM: (0.15, 0.05), _HIGH: (0.08, 0.01)}
"""For each risk, the shares of look-alikes and of everyday exemplars, their families left out, that may pass it."""

_UNRELATED: Final = 8
_MOST_COMPARED: Final = 4000


@dataclass(frozen=True, slots=True)
class Curve:
    """Risk of one situation: ``sigmoid(harmful * h - benign * b + bias)``, zero where nothing could be fitted.

    h and b are the mean closeness of the ``neighbours`` closest harmful and benign exemplars: a mean over many,
    because the single closest one moves with every row that is added. (What one exemplar must do alone is the business
    of its radius, see ``scoring``.) ``harmful >= benign >= 0``: going away from everything lowers the risk.

    ``fitted_on`` counts the windows of exemplars. With fewer than 24 harmful ones, look-alikes or everyday ones nothing
    is fitted, and only near-verbatim matches count: who knows only harm and its look-alikes takes all else for harm.
    ``recall`` is the share of harmful exemplars, their families left out, at risk 0.5 and 0.9.
    """

    harmful: float = 0.0
    benign: float = 0.0
    bias: float = 0.0
    neighbours: int = NEIGHBOURS
    fitted_on: int = 0
    recall: tuple[float, float] = (0.0, 0.0)

    def risk(self, harmful: Neighbours, benign: Neighbours) -> NDArray[np.float64]:
        """``(n,)`` risks of n windows."""
        if not self.fitted_on:
            return np.zeros(len(harmful.closeness))
        near_harm, near_good = _means(harmful, benign, self.neighbours)
        return _sigmoid(self.harmful * near_harm - self.benign * near_good + self.bias)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The curves of a bank, one for each situation, the background of each of its rows, and what they belong to."""

    bank: str
    encoder: str
    curves: Mapping[Situation, Curve]
    background: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        return {
            "bank": self.bank,
            "encoder": self.encoder,
            "passing": {
                f"risk {risk}": {"look-alikes": lookalikes, "everyday": everyday}
                for risk, (lookalikes, everyday) in _PASSING.items()
            },
            "curves": {situation: asdict(curve) for situation, curve in self.curves.items()},
            "background": self.background.tolist(),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Calibration:
        """Raises ``ValueError`` when the row is not a calibration of this form."""
        try:
            curves = {
                situation: Curve(**{**row["curves"][situation], "recall": tuple(row["curves"][situation]["recall"])})
                for situation in SITUATIONS
            }
            background = np.array(row["background"], dtype=np.float64)
            return cls(str(row["bank"]), str(row["encoder"]), curves, background)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a calibration: {error!r}") from error


def backgrounds(
    vectors: NDArray[np.float32], shelves: list[Shelf], families: NDArray[np.int64], hazards: NDArray[np.int64]
) -> NDArray[np.float64]:
    """``(n,)`` similarities of n rows to texts they have nothing to do with: the mean of the eight most similar ones.

    Nothing to do with: of another family and another hazard (both as numbers), on the same shelf. Compared with at most
    4,000 rows of a shelf. Rounded to 4 digits, so that a bank read back scores the same.
    """
    found = np.zeros(len(vectors))
    on_shelf = np.array(shelves)
    for shelf in sorted(set(shelves)):
        rows = np.flatnonzero(on_shelf == shelf)
        others = _sample(rows, _MOST_COMPARED)
        for start in range(0, len(rows), 512):
            these = rows[start : start + 512]
            similarity = vectors[these] @ vectors[others].T
            related = families[these][:, None] == families[others][None, :]
            related |= hazards[these][:, None] == hazards[others][None, :]
            unrelated = -np.partition(np.where(related, 0.0, -similarity), min(_UNRELATED, len(others)) - 1, axis=1)
            found[these] = unrelated[:, :_UNRELATED].mean(axis=1)
    return np.clip(found, 0.0, 0.95).round(4)


def fit_curve(
    harmful: Neighbours, benign: Neighbours, *, is_harmful: NDArray[np.bool_], is_everyday: NDArray[np.bool_]
) -> Curve:
    """Fit a curve on exemplars whose neighbours were found with their own families left out.

    ``is_harmful`` and ``is_everyday`` are ``(n,)``; everyday exemplars are benign ones that resemble no hazard.
    """
    is_lookalike = ~is_harmful & ~is_everyday
    fewest = int(min(is_harmful.sum(), is_lookalike.sum()))
    if min(fewest, int(is_everyday.sum())) < _FEWEST:
        return Curve()
    neighbours = min(max(fewest // 10, 4), NEIGHBOURS)
    means = np.column_stack(_means(harmful, benign, neighbours))
    told_apart = is_harmful | is_lookalike
    weights = _logistic(means[told_apart], is_harmful[told_apart])
    line = means @ weights
    lookalikes, everyday = line[is_lookalike], line[is_everyday]
    medium, high = (
        max(float(np.quantile(lookalikes, 1 - of_lookalikes)), float(np.quantile(everyday, 1 - of_everyday)))
        for of_lookalikes, of_everyday in (_PASSING[_MEDIUM], _PASSING[_HIGH])
    )
    if weights[0] <= 0 or medium >= high:  # harm is no closer to harm than anything else is
        return Curve()
    stretch = float(np.log(_HIGH / (1 - _HIGH))) / (high - medium)
    found = line[is_harmful]
    return Curve(
        harmful=float(weights[0] * stretch),
        benign=float(-weights[1] * stretch),
        bias=-medium * stretch,
        neighbours=neighbours,
        fitted_on=len(line),
        recall=(float(np.mean(found >= medium)), float(np.mean(found >= high))),
    )


def _means(harmful: Neighbours, benign: Neighbours, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return harmful.closeness[:, :count].mean(axis=1), benign.closeness[:, :count].mean(axis=1)


def _sample(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def _logistic(means: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Two weights of a ridge logistic regression with both classes of equal weight, fitted by Newton's method.

    Nearness to the benign may not raise the risk, nor count for more than nearness to harm (or a text far from both
    would be risky): where the fit says otherwise, the one alone or the plain difference is fitted in its place.
    """
    weights = _newton(means, positive)
    if weights[1] > 0:
        return np.array([float(_newton(means[:, :1], positive)[0]), 0.0])
    if weights[0] < -weights[1]:
        difference = float(_newton(means[:, :1] - means[:, 1:], positive)[0])
        return np.array([difference, -difference])
    return weights


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
