"""Calibration: from neighbours to a risk in [0, 1] that means the same on every bank (how it is fitted: ``fitting``).

Two points of the scale are fixed, by exemplars that were scored with their own families left out:

* risk 0.5 is passed by at most 15 % of the harmless look-alikes and 5 % of the everyday exemplars. Both are picked to
  be hard; of what people write on most days, about 1 % passes it.
* risk 0.9 is passed by at most 8 % of the look-alikes and 1 % of the everyday exemplars; about 0.1 % of what people
  write.

A calibration belongs to one bank version and one encoder, since both move every similarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.leaning import lean
from antiprompt_bank.neighbours import NEIGHBOURS, SITUATIONS, Neighbours, Situation
from antiprompt_bank.records import Side

MEDIUM: Final = 0.5
HIGH: Final = 0.9
PASSING_LOOKALIKES: Final = {MEDIUM: 0.15, HIGH: 0.08}
"""For each of the two fixed risks the share of look-alikes, their families left out, that may pass it."""
PASSING_EVERYDAY: Final = {MEDIUM: 0.05, HIGH: 0.01}
"""The same for everyday exemplars: benign ones that resemble no hazard."""
PASSING_UNSEEN: Final = {MEDIUM: 0.01, HIGH: 0.001}
"""The same, where an adapter was trained on the exemplars, for everyday texts that neither it nor the bank has seen."""

NEARNESS_WEIGHT: Final = 8.0
LEANING_WEIGHT: Final[Mapping[Side, float]] = {"request": 0.25, "response": 0.0}
WORDING_WEIGHT: Final[Mapping[Side, float]] = {"request": 1.0, "response": 2.0}
DIRECTION_WEIGHT: Final = 0.25
LENGTH_WEIGHT: Final[Mapping[Side, float]] = {"request": 0.3, "response": 0.0}
TRAINED_NEIGHBOURS: Final = 32
"""The line of an encoder with an adapter; chosen with whole sources left out (``RESULTS.md``)."""


MOST_WINDOWS: Final = 8
"""Windows of a text from which more of them lower the risk of each no further."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Risk of one situation: a sigmoid over nearness, leaning and stance. Zero where nothing could be fitted.

    *Nearness* is ``harmful * h - benign * b + bias``, where h and b are the mean closeness of the ``neighbours``
    closest harmful and benign exemplars: a mean over many, because the single closest one moves with every row that is
    added. (What one exemplar must do alone is the business of its radius, see ``scoring``.) ``harmful >= benign >= 0``:
    going away from everything lowers the risk.

    *Stance* is ``stance . vector + stance_bias``, with the vector of the answer alone. An answer and its look-alike
    ("drink it", "never drink it") have the same neighbours; what tells them apart is a direction that runs through all
    topics, from refusing and warning to complying. The lower of the two counts: near harm, and complying with it.
    Empty for requests, where it gained nothing, and with an adapter.

    *Leaning* is what an adapter's own classifiers say of a window's vector and of its wording, ``leaning_weight`` and
    ``wording_weight`` times of which are added to nearness: what is near to nothing that the bank knows can still lean
    to harm. ``direction`` ``(d + 1,)``, bias last, does the same job for the vector, but was fitted to this bank's
    exemplars and is added as it is; empty without an adapter.

    A text of many windows has many chances to look risky: ``length_weight`` times the logarithm of how many it has is
    taken off, at most that of ``MOST_WINDOWS``, so that nobody hides by writing a lot.

    ``fitted_on`` counts the windows of exemplars; ``recall`` is the share of harmful ones, their families left out, at
    risk 0.5 and 0.9.
    """

    harmful: float = 0.0
    benign: float = 0.0
    bias: float = 0.0
    neighbours: int = NEIGHBOURS
    stance: tuple[float, ...] = ()
    stance_bias: float = 0.0
    leaning_weight: float = 0.0
    wording_weight: float = 0.0
    length_weight: float = 0.0
    direction: tuple[float, ...] = ()
    fitted_on: int = 0
    recall: tuple[float, float] = (0.0, 0.0)

    def risk(
        self,
        harmful: Neighbours,
        benign: Neighbours,
        vectors: NDArray[np.float32],
        leaning: NDArray[np.float64] | None,
        length: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float64]:
        """``(n,)`` risks of n windows; ``vectors`` ``(n, d)`` are those of the windows alone, without a prompt.

        ``leaning`` ``(n, 2)`` is what the encoder's classifiers say of each (see ``leaning``), None without an adapter;
        ``length`` ``(n,)`` how many windows the text of each has, None for one.
        """
        if not self.fitted_on:
            return np.zeros(len(harmful.closeness))
        near_harm, near_good = mean_closeness(harmful, benign, self.neighbours)
        line = self.harmful * near_harm - self.benign * near_good + self.bias
        if leaning is not None:
            line = line + leaning @ (self.leaning_weight, self.wording_weight)
        if length is not None and self.length_weight:
            line = line - self.length_weight * np.log(np.clip(length, 1, MOST_WINDOWS))
        if self.direction:
            line = line + lean(vectors, np.array(self.direction, dtype=np.float32))
        if self.stance:
            line = np.minimum(line, vectors @ np.array(self.stance) + self.stance_bias)
        return sigmoid(line)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The curves of a bank, one for each situation, and what they belong to.

    ``background`` has a number for each row of the vectors (see ``neighbours``), ``radius`` one for each record: the
    similarity from which a text counts as a repetition of it (see ``scoring``).
    """

    bank: str
    encoder: str
    curves: Mapping[Situation, Curve]
    background: NDArray[np.float64]
    radius: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        return {
            "bank": self.bank,
            "encoder": self.encoder,
            "passing": {
                f"risk {risk}": {"look-alikes": PASSING_LOOKALIKES[risk], "everyday": PASSING_EVERYDAY[risk]}
                for risk in (MEDIUM, HIGH)
            },
            "curves": {situation: asdict(curve) for situation, curve in self.curves.items()},
            "background": self.background.tolist(),
            "radius": self.radius.tolist(),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Calibration:
        """Raises ``ValueError`` when the row is not a calibration of this form."""
        try:
            curves = {situation: _curve(row["curves"][situation]) for situation in SITUATIONS}
            background = np.array(row["background"], dtype=np.float64)
            radius = np.array(row["radius"], dtype=np.float64)
            return cls(str(row["bank"]), str(row["encoder"]), curves, background, radius)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a calibration: {error!r}") from error


def mean_closeness(
    harmful: Neighbours, benign: Neighbours, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``(n,)`` each: how close the ``count`` closest harmful and the ``count`` closest benign exemplars are."""
    return harmful.closeness[:, :count].mean(axis=1), benign.closeness[:, :count].mean(axis=1)


def sigmoid(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic function, without overflow."""
    return 1.0 / (1.0 + np.exp(-np.clip(line, -50.0, 50.0)))


def _curve(row: Mapping[str, Any]) -> Curve:
    tuples = {name: tuple(row.get(name, ())) for name in ("stance", "direction", "recall")}
    return Curve(**{**row, **tuples})
