"""Conformal risk control: a bank's risks fitted to one's own harmless texts, with a promise for the next one.

Of n harmless texts that come from where the next one will come from, a threshold t with

    n / (n + 1) * FPR(t) + 1 / (n + 1) <= alpha

keeps the chance that the next one reaches it at alpha or less, whatever the texts or the detector are like
(Angelopoulos et al., Conformal Risk Control, arXiv 2208.02814). ``FPR`` is the share of the n texts whose risk, the
highest over hazards and windows, is t or more; so alpha is the total over all hazards. No text at all may reach t with
fewer than ``2 / alpha`` texts, and below ``needed(alpha)`` nothing can be promised.

The thresholds become a map of the risk (``Anchors``) that keeps its order: t(alpha) becomes 0.5 and t(alpha / 10)
becomes 0.9, which is what policies are written for. From 0.95 on nothing is moved: that is where the bank puts texts
that repeat an exemplar, and no fit may keep those from being blocked. Plain Python and numpy.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.calibration import HIGH, MEDIUM
from antiprompt_bank.errors import BankCorrupt, BankNotFound
from antiprompt_bank.records import Side
from antiprompt_bank.scoring import REPETITION_RISK, Score

STEP: Final = 1e-6
"""Thresholds lie on a grid of this width, so that they read back as they were written."""

LEAST: Final = 0.1
"""The lowest risk that may become 0.5. What is cleared by a benign exemplar has at most 0.05, and must stay clear."""

MOST: Final = REPETITION_RISK - 1e-3
"""The highest risk that may become 0.9; the one that becomes 0.5 is lower."""

_APART: Final = 0.01
"""The least distance between the two in logits: one risk cannot be both 0.5 and 0.9."""

_FORMAT: Final = 1
_SLACK: Final = 1e-9
"""For sums such as 0.01 * 100 - 1, which are no whole numbers in floating point."""


def needed(alpha: float) -> int:
    """How many texts it takes to promise ``alpha``: 99 for 1 %. Raises ``ValueError`` unless it is in (0, 1)."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha is {alpha}, not between 0 and 1")
    return math.ceil(1 / alpha - 1 - _SLACK)


def rate(risks: NDArray[np.float64], threshold: float) -> float:
    """The share of texts that reach a threshold; 0 where there are none."""
    return float(np.mean(risks >= threshold)) if len(risks) else 0.0


def bound(risks: NDArray[np.float64], threshold: float) -> float:
    """What is promised of a threshold that was fixed by ``threshold_for``: at most this share of the next texts."""
    return (len(risks) * rate(risks, threshold) + 1) / (len(risks) + 1)


def threshold_for(risks: NDArray[np.float64], alpha: float) -> float | None:
    """The smallest threshold (on the grid) whose ``bound`` is at most ``alpha``; None with too few texts.

    It lies above every text that must not reach it, and above all that have the same risk.
    """
    if len(risks) < needed(alpha):
        return None
    return _above(risks, math.floor(alpha * (len(risks) + 1) - 1 + _SLACK))


def pooled_threshold(own: NDArray[np.float64], shipped: NDArray[np.float64], alpha: float) -> float:
    """A threshold from fewer own texts than ``needed``, without a promise.

    Each own text stands for ``1 / (needed + 1)`` of the traffic, however many texts were shipped, and those stand for
    the rest. So no own text may reach the threshold, and of the shipped ones at most ``alpha / rest``. With no own
    texts that is the shipped ones' own threshold; with ``needed`` own ones it is ``threshold_for``. Where nothing was
    shipped, risk 0.5 stands in for it.
    """
    rest = 1 - len(own) / (needed(alpha) + 1)
    others = shipped if len(shipped) else np.array([MEDIUM - STEP])
    return max(_above(own, 0), _above(others, math.floor(min(alpha / rest, 1.0) * len(others) + _SLACK)))


def _above(risks: NDArray[np.float64], passing: int) -> float:
    """The smallest threshold on the grid that at most ``passing`` of the risks reach."""
    if passing >= len(risks):
        return 0.0
    highest_kept = float(np.sort(risks)[::-1][passing])
    # Half a step at least, so that the two are still apart after a logarithm.
    return round(math.ceil(highest_kept / STEP + 0.5) * STEP, 6)


@dataclass(frozen=True, slots=True)
class Anchors:
    """What the fit of one side fixes: the risk ``medium`` becomes 0.5 and ``high`` becomes 0.9.

    ``n_own`` and ``n_shipped`` count the texts it was fitted to. ``promise``: of further texts like the own ones at
    most alpha reach 0.5 on average; ``high_promise``: at most alpha / 10 reach 0.9.

    Raises ``ValueError`` unless ``LEAST <= medium < high <= MOST``.
    """

    medium: float
    high: float
    n_own: int
    n_shipped: int
    promise: bool
    high_promise: bool

    def __post_init__(self) -> None:
        if not LEAST <= self.medium < self.high <= MOST:
            raise ValueError(f"anchors are {self.medium} and {self.high}, not between {LEAST} and {MOST} in this order")

    def risk(self, raw: float) -> float:
        """The fitted risk of a bank's risk, both in [0, 1]; never falls where the raw one rises.

        In logits: shifted below ``medium``, linear between the anchors and from ``high`` to 0.95, unchanged above. What
        is not a number stays none, which policy takes for a risk.
        """
        if not 0.0 < raw < REPETITION_RISK:
            return raw
        at, medium = _logit(raw), _logit(self.medium)
        if raw < self.medium:
            return _expit(at - medium)
        if raw < self.high:
            return _between(at, medium, _logit(self.high), MEDIUM, HIGH)
        return _between(at, _logit(self.high), _logit(REPETITION_RISK), HIGH, REPETITION_RISK)


@dataclass(frozen=True, slots=True)
class Fit:
    """The anchors of each side that was fitted, and what they belong to: one bank version and one encoder.

    An encoder's id names its adapter. ``alpha`` is the share of harmless texts that may reach risk 0.5, over all
    hazards; ``created_at`` is UTC, ISO 8601; ``inputs`` maps each file that was read to its sha256.
    """

    bank: str
    encoder: str
    alpha: float
    created_at: str
    sides: Mapping[Side, Anchors]
    inputs: Mapping[str, str]

    def belongs_to(self, bank: str, encoder: str) -> bool:
        """Whether it was made for this version (of a derived bank: the one it is derived from) and this encoder."""
        return (self.bank, self.encoder) == (bank, encoder)

    def applied(self, score: Score, side: Side) -> Score:
        """A score of a text of this side with its fitted risks: one map for all hazards, so the worst one stays."""
        anchors = self.sides.get(side)
        if anchors is None:
            return score
        risks = {hazard: anchors.risk(risk) for hazard, risk in score.risks.items()}
        return replace(score, risk=anchors.risk(score.risk), risks=risks)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "bank": self.bank,
            "encoder": self.encoder,
            "alpha": self.alpha,
            "created_at": self.created_at,
            "sides": {side: asdict(anchors) for side, anchors in self.sides.items()},
            "inputs": dict(self.inputs),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Fit:
        """Raises ``ValueError`` when the row is not a fit of this form."""
        try:
            if row["format"] != _FORMAT:
                raise ValueError(f"format is {row['format']!r}, but this release reads {_FORMAT}")
            needed(row["alpha"])
            sides: dict[Side, Anchors] = {}
            for side, anchors in row["sides"].items():
                if side not in ("request", "response"):
                    raise ValueError(f"side is {side!r}, not 'request' or 'response'")
                sides[side] = Anchors(**anchors)
            return cls(
                str(row["bank"]), str(row["encoder"]), row["alpha"], str(row["created_at"]), sides, dict(row["inputs"])
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a fit: {error!r}") from error


def anchors_of(own: Sequence[float], shipped: Sequence[float], alpha: float) -> Anchors:
    """Fit one side: the bank's risks of one's own harmless texts and, used where those are too few, of shipped ones.

    Where no promise can be made for 0.9, it keeps the distance from 0.5 that it has in the bank. A threshold that
    would lie at 0.95 or above is not followed, and then there is no promise: texts that repeat an exemplar must stay
    within reach.

    Raises ``ValueError`` where there is no own text, a risk is not in [0, 1] or ``alpha`` not in (0, 1).
    """
    mine, theirs = (np.asarray(risks, dtype=np.float64) for risks in (own, shipped))
    if not len(mine):
        raise ValueError("there is no text to fit to")
    if not all(np.all((risks >= 0) & (risks <= 1)) for risks in (mine, theirs)):
        raise ValueError("a risk is not in [0, 1]")
    wanted = threshold_for(mine, alpha)
    exact = pooled_threshold(mine, theirs, alpha) if wanted is None else wanted
    medium = min(max(exact, LEAST), round(_expit(_logit(MOST) - _APART) - STEP, 6))
    exact_high = threshold_for(mine, alpha / 10)
    high = _expit(_logit(medium) + _logit(HIGH) - _logit(MEDIUM)) if exact_high is None else exact_high
    high = min(max(high, _expit(_logit(medium) + _APART)), MOST)
    return Anchors(
        medium=medium,
        high=high,
        n_own=len(mine),
        n_shipped=len(theirs) if wanted is None else 0,
        promise=wanted is not None and medium >= exact,
        high_promise=exact_high is not None and high >= exact_high,
    )


def save_fit(fit: Fit, path: Path) -> None:
    """Write a fit, in one step and synced to disk: whoever reads the file finds the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, made = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)
            file.write((json.dumps(fit.to_json(), indent=2, ensure_ascii=False) + "\n").encode())
            file.flush()
            os.fsync(handle)
        os.replace(made, path)
    except BaseException:
        os.unlink(made)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_fit(path: Path) -> Fit:
    """Raises ``BankNotFound`` when there is no such file, ``BankCorrupt`` when it holds no fit."""
    try:
        return Fit.from_json(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise BankNotFound(f"there is no calibration at {path}; `antiprompt calibrate` makes one") from error
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BankCorrupt(f"{path} is not a calibration: {error}; `antiprompt calibrate` makes a new one") from error


def _between(at: float, low: float, high: float, low_risk: float, high_risk: float) -> float:
    """The risk of a logit ``at`` in ``[low, high]``, whose ends have the risks given."""
    least, most = _logit(low_risk), _logit(high_risk)
    risk = _expit(least + (at - low) / (high - low) * (most - least))
    return min(max(risk, low_risk), high_risk)  # the ends are exact: policies compare with them


def _logit(risk: float) -> float:
    return math.log(risk) - math.log1p(-risk)


def _expit(line: float) -> float:
    # Two forms, so that neither end overflows.
    return 1.0 / (1.0 + math.exp(-line)) if line >= 0 else math.exp(line) / (1.0 + math.exp(line))
