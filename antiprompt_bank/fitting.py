"""Fitting a calibration to a bank's own exemplars: backgrounds of its rows, curves of its situations. Plain numpy.

Every exemplar is scored with its whole family (twin and variants) left out, which is how an unseen text would fare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.additions import MOST_RADIUS, RADIUS_MARGIN, REPETITION
from antiprompt_bank.calibration import (
    DIRECTION_WEIGHT,
    HIGH,
    LEANING_WEIGHT,
    LENGTH_WEIGHT,
    MEDIUM,
    NEARNESS_WEIGHT,
    PASSING_EVERYDAY,
    PASSING_LOOKALIKES,
    PASSING_UNSEEN,
    TRAINED_NEIGHBOURS,
    WORDING_WEIGHT,
    Curve,
    mean_closeness,
    sigmoid,
)
from antiprompt_bank.leaning import lean
from antiprompt_bank.neighbours import NEIGHBOURS, Neighbours, Rows, Shelf, stored
from antiprompt_bank.records import Side

_RIDGE: Final = 1.0
_STANCE_RIDGE: Final = 0.1
_DIRECTION_RIDGE: Final = 0.1
_MOST_DIRECTED: Final = 20_000
"""Windows that a direction is fitted on: more cost time and move it little."""
_FOLDS: Final = 8

_FEWEST: Final = 24
"""Windows of each kind (harmful, look-alike, everyday) that a curve takes at least: who knows only harm and its
look-alikes takes all else for harm, and then it is better to recognise repetitions only."""

_TOPIC_NEIGHBOURS: Final = 5
"""Exemplars that say what an answer is about: few, because topics have few answers each."""

_MOST_CONTRAST: Final = 0.5
"""How much nearness to the benign may count beside nearness to harm, so that what is far from both is not risky."""

_LEAST_GAP: Final = 1.0
"""Logits of the trained line between risk 0.5 and 0.9 at the least: few texts say little about a thousandth."""

_UNRELATED: Final = 8
_MOST_COMPARED: Final = 4000


@dataclass(frozen=True, slots=True)
class Exemplars:
    """Windows to fit a curve on, n of each: what they are, and what was found near them without their families.

    ``vectors`` ``(n, d)`` are those of the windows alone; ``families`` are numbers. Everyday exemplars are benign ones
    that resemble no hazard. ``leaning`` ``(n, 2)`` is what the encoder's adapter says of each; None without one.
    """

    harmful: Neighbours
    benign: Neighbours
    vectors: NDArray[np.float32]
    families: NDArray[np.int64]
    is_harmful: NDArray[np.bool_]
    is_everyday: NDArray[np.bool_]
    leaning: NDArray[np.float64] | None = None

    @property
    def is_lookalike(self) -> NDArray[np.bool_]:
        return ~self.is_harmful & ~self.is_everyday

    @property
    def fewest(self) -> int:
        """The number of windows of the rarest kind."""
        return int(min(kind.sum() for kind in (self.is_harmful, self.is_lookalike, self.is_everyday)))


def backgrounds(
    vectors: NDArray[np.float32],
    rows: Rows,
    shelves: Sequence[Shelf],
    families: NDArray[np.int64],
    hazards: NDArray[np.int64],
    harmful: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """``(n,)`` similarities of n rows to texts they have nothing to do with: the mean of the eight most similar ones.

    Nothing to do with: of another family, hazard (both as numbers) and label, on the same shelf. Of another label too,
    because refusals of all hazards sound alike, and that likeness must count. Compared with at most 4,000 rows of a
    shelf. Rounded to 4 digits, so that a bank read back scores the same.
    """
    found = np.zeros(len(vectors))
    on_shelf = np.array(shelves)
    for shelf in sorted(set(shelves)):
        members = np.flatnonzero(on_shelf == shelf)
        others = members
        if len(members) > _MOST_COMPARED:
            others = np.random.default_rng(0).choice(members, _MOST_COMPARED, replace=False)
        compared = stored(shelf, others, vectors, rows)
        for start in range(0, len(members), 512):
            these = members[start : start + 512]
            similarity = stored(shelf, these, vectors, rows) @ compared.T
            related = families[these][:, None] == families[others][None, :]
            related |= hazards[these][:, None] == hazards[others][None, :]
            related |= harmful[these][:, None] == harmful[others][None, :]
            unrelated = -np.partition(np.where(related, 0.0, -similarity), min(_UNRELATED, len(others)) - 1, axis=1)
            found[these] = unrelated[:, :_UNRELATED].mean(axis=1)
    return np.clip(found, 0.0, 0.95).round(4)


def radii(
    vectors: NDArray[np.float32],
    rows: Rows,
    shelves: Sequence[Shelf],
    harmful: NDArray[np.bool_],
    background: NDArray[np.float64],
    harmless: NDArray[np.float32] | None,
    least_of: NDArray[np.float64],
) -> NDArray[np.float64]:
    """``(records,)`` similarities from which a text counts as a repetition of each record.

    Without an adapter that is a fixed closeness. With one, ``harmless`` ``(m, d)`` being requests that neither it nor
    the bank has seen, a radius is as wide as the nearest row of the other label allows: an adapter draws what is meant
    alike together, so that a wide radius catches an exemplar's relatives. ``least_of`` ``(records,)`` is the least
    that it may be (``additions.least_radius``). Rounded to 4 digits.
    """
    least = REPETITION * (1 - background) + background
    if harmless is not None:
        least = least_of[rows.record]
        on_shelf = np.array(shelves)
        for shelf in sorted(set(shelves)):
            for label in (True, False):
                these = np.flatnonzero((on_shelf == shelf) & (harmful == label))
                others = stored(shelf, np.flatnonzero((on_shelf == shelf) & (harmful != label)), vectors, rows)
                if shelf == "request" and label:
                    others = np.concatenate([others, harmless])
                if not len(others):
                    continue
                for start in range(0, len(these), 512):
                    some = these[start : start + 512]
                    nearest = (stored(shelf, some, vectors, rows) @ others.T).max(axis=1)
                    least[some] = np.maximum(least[some], nearest + RADIUS_MARGIN)
    found = np.full(int(rows.record.max(initial=-1)) + 1, -1.0)
    np.maximum.at(found, rows.record, least)
    radius: NDArray[np.float64] = np.clip(found, -1.0, MOST_RADIUS).round(4)
    return radius


def direction_of(vectors: NDArray[np.float32], harmful: NDArray[np.bool_]) -> NDArray[np.float32]:
    """``(d + 1,)``, bias last: the direction from harmless windows to harmful ones, both of equal weight, in logits.

    At most 20,000 of the ``(n, d)`` windows are looked at. Nothing but a zero where one of the labels is missing.
    """
    if not harmful.any() or harmful.all():
        return np.zeros(vectors.shape[1] + 1, dtype=np.float32)
    if len(vectors) > _MOST_DIRECTED:
        some = np.sort(np.random.default_rng(0).choice(len(vectors), _MOST_DIRECTED, replace=False))
        vectors, harmful = vectors[some], harmful[some]
    return _logistic(vectors.astype(np.float64), harmful, _DIRECTION_RIDGE).astype(np.float32)


def fit_trained_curve(
    known: Exemplars, harmless: Exemplars | None, side: Side, direction: NDArray[np.float32]
) -> Curve:
    """The line of an encoder with an adapter: its weights are given, and only moved to where the harmless stay below.

    ``direction`` is that of the bank's windows of this ``side`` (``direction_of``). The adapter has learned from the
    bank's own exemplars, so they say nothing about unseen texts: ``harmless`` are everyday texts that neither has seen.
    Without any, the bank's everyday exemplars must do, which flatters.
    """
    if known.fewest < _FEWEST or known.leaning is None:
        return Curve()
    line = _trained_line(known, side, direction)
    below = line[known.is_everyday]
    if harmless is not None and len(harmless.families) >= _FEWEST:
        below = _trained_line(harmless, side, direction)
    medium = max(
        _passed_by(PASSING_UNSEEN[MEDIUM], below), _passed_by(PASSING_LOOKALIKES[MEDIUM], line[known.is_lookalike])
    )
    high = max(_passed_by(PASSING_UNSEEN[HIGH], below), medium + _LEAST_GAP)
    scale, bias = _anchored(medium, high)
    weight = NEARNESS_WEIGHT * scale
    curve = Curve(
        weight,
        weight,
        bias,
        TRAINED_NEIGHBOURS,
        leaning_weight=LEANING_WEIGHT[side] * scale,
        wording_weight=WORDING_WEIGHT[side] * scale,
        length_weight=LENGTH_WEIGHT[side] * scale,
        direction=tuple((DIRECTION_WEIGHT * scale * direction.astype(np.float64)).round(6).tolist()),
    )
    return _described(curve, known, scale * line + bias)


def _trained_line(known: Exemplars, side: Side, direction: NDArray[np.float32]) -> NDArray[np.float64]:
    near_harm, near_good = mean_closeness(known.harmful, known.benign, TRAINED_NEIGHBOURS)
    line = NEARNESS_WEIGHT * (near_harm - near_good)
    if known.leaning is not None:
        line = line + known.leaning @ (LEANING_WEIGHT[side], WORDING_WEIGHT[side])
    return line + DIRECTION_WEIGHT * lean(known.vectors, direction)


def fit_request_curve(known: Exemplars) -> Curve:
    """One line tells harm from its look-alikes; it is moved to where they and everyday exemplars keep their bounds."""
    if known.fewest < _FEWEST:
        return Curve()
    neighbours = min(max(known.fewest // 10, 4), NEIGHBOURS)
    means = np.column_stack(mean_closeness(known.harmful, known.benign, neighbours))
    told_apart = ~known.is_everyday
    weights = _nearness(means[told_apart], known.is_harmful[told_apart])
    line = means @ weights
    scale, bias = _anchored(
        *(
            max(
                _passed_by(PASSING_LOOKALIKES[risk], line[known.is_lookalike]),
                _passed_by(PASSING_EVERYDAY[risk], line[known.is_everyday]),
            )
            for risk in (MEDIUM, HIGH)
        )
    )
    curve = Curve(float(weights[0] * scale), float(-weights[1] * scale), bias, neighbours)
    return _described(curve, known, scale * line + bias)


def fit_answer_curve(known: Exemplars) -> Curve:
    """Two lines: nearness tells harm from everyday answers, stance tells it from its look-alikes."""
    if known.fewest < _FEWEST:
        return Curve()
    means = np.column_stack(mean_closeness(known.harmful, known.benign, _TOPIC_NEIGHBOURS))
    told_apart = ~known.is_lookalike
    weights = _nearness(means[told_apart], known.is_harmful[told_apart])
    nearness = means @ weights
    scale, bias = _anchored(
        *(_passed_by(PASSING_EVERYDAY[risk], nearness[known.is_everyday]) for risk in (MEDIUM, HIGH))
    )
    direction, stance = _stance(known)
    stance_scale, stance_bias = _anchored(
        *(_passed_by(PASSING_LOOKALIKES[risk], stance[known.is_lookalike]) for risk in (MEDIUM, HIGH))
    )
    curve = Curve(
        harmful=float(weights[0] * scale),
        benign=float(-weights[1] * scale),
        bias=bias,
        neighbours=_TOPIC_NEIGHBOURS,
        stance=tuple((direction[:-1] * stance_scale).round(6).tolist()),
        stance_bias=float(direction[-1] * stance_scale + stance_bias),
    )
    return _described(curve, known, np.minimum(scale * nearness + bias, stance_scale * stance + stance_bias))


def _described(curve: Curve, known: Exemplars, line: NDArray[np.float64]) -> Curve:
    """The curve with what it was fitted on; none at all where harm is no nearer to harm than anything else is."""
    if curve.harmful <= 0:
        return Curve()
    risk = sigmoid(line[known.is_harmful])
    recall = float(np.mean(risk >= MEDIUM)), float(np.mean(risk >= HIGH))
    return replace(curve, fitted_on=len(line), recall=recall)


def _passed_by(share: float, line: NDArray[np.float64]) -> float:
    return float(np.quantile(line, 1 - share))


def _anchored(medium: float, high: float) -> tuple[float, float]:
    """Scale and bias that turn a line into a logit: risk 0.5 at ``medium``, 0.9 at ``high``."""
    scale = float(np.log(HIGH / (1 - HIGH))) / max(high - medium, 1e-6)
    return scale, -medium * scale


def _stance(known: Exemplars) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A direction ``(d + 1,)`` (bias last) from look-alikes to harm, and what it says of each window ``(n,)``.

    What it says of a window comes from a direction fitted without the window's family.
    """
    told_apart = ~known.is_everyday
    vectors = known.vectors.astype(np.float64)
    fold = known.families % _FOLDS
    said = np.zeros(len(vectors))
    for left_out in range(_FOLDS):
        others = told_apart & (fold != left_out)
        direction = _logistic(vectors[others], known.is_harmful[others], _STANCE_RIDGE)
        said[fold == left_out] = vectors[fold == left_out] @ direction[:-1] + direction[-1]
    return _logistic(vectors[told_apart], known.is_harmful[told_apart], _STANCE_RIDGE), said


def _nearness(means: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights of the nearness to harm and to the benign.

    Nearness to the benign may not raise the risk, nor count for more than ``_MOST_CONTRAST`` of nearness to harm:
    where the fit says otherwise, harm alone or the largest contrast allowed is fitted in its place.
    """
    weights = _logistic(means, positive)[:-1]
    if weights[1] > 0:
        return np.array([float(_logistic(means[:, :1], positive)[0]), 0.0])
    if _MOST_CONTRAST * weights[0] < -weights[1]:
        contrast = float(_logistic(means[:, :1] - _MOST_CONTRAST * means[:, 1:], positive)[0])
        return np.array([contrast, -_MOST_CONTRAST * contrast])
    return weights


def _logistic(features: NDArray[np.float64], positive: NDArray[np.bool_], ridge: float = _RIDGE) -> NDArray[np.float64]:
    """Weights, bias last, of a ridge logistic regression with both classes of equal weight, by Newton's method."""
    design = np.column_stack([features, np.ones(len(features))])
    share = float(positive.mean())
    balance = np.where(positive, 0.5 / share, 0.5 / (1 - share))
    penalty = np.diag([ridge] * features.shape[1] + [0.0])
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        chance = sigmoid(design @ weights)
        slope = design.T @ (balance * (chance - positive)) + penalty @ weights
        curvature = (design * (balance * chance * (1 - chance))[:, None]).T @ design + penalty
        step = np.linalg.solve(curvature, slope)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights
