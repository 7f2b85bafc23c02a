"""Which calibration is in force: the bank's own, or one fitted to one's own texts; and what a stale one does.

A fit (``antiprompt calibrate``) belongs to one bank version and one encoder, because both move every risk. One that
belongs to others is *stale*: it is never enforced. What happens then is the setting ``bank.on_stale_calibration``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from antiprompt_bank import Bank, BankError, Score, Side
from antiprompt_bank.conformal import Fit, read_fit
from gateway.settings import Settings

FILE_NAME: Final = "calibration.json"

Status = Literal["shipped", "fitted", "stale_in_shadow", "stale_shipped"]
"""The bank's own calibration; one's own fit; a stale fit with nothing enforced; a stale fit set aside."""


class CalibrationStale(BankError):
    """The fit belongs to another bank or encoder, and the setting is not to screen with such a bank at all."""


@dataclass(frozen=True, slots=True)
class CalibrationInForce:
    """What a bank's scores go through. ``fit`` is set where status is fitted, ``reason`` where it is stale."""

    status: Status = "shipped"
    fit: Fit | None = None
    reason: str | None = None

    @property
    def stale(self) -> bool:
        return self.status in ("stale_in_shadow", "stale_shipped")

    @property
    def in_shadow(self) -> bool:
        """Whether decisions are recorded and not enforced."""
        return self.status == "stale_in_shadow"

    def applied(self, score: Score, side: Side) -> Score:
        """The score that policy sees."""
        return score if self.fit is None else self.fit.applied(score, side)


def calibration_file(settings: Settings) -> Path:
    """Where the fit is, or would be."""
    return settings.bank.calibration_file or settings.data_dir / FILE_NAME


def calibration_for(settings: Settings, bank: Bank) -> CalibrationInForce:
    """Read the fit, if there is one, and see whether it belongs to this bank.

    Raises ``CalibrationStale`` where it does not and the setting is ``refuse``, ``BankCorrupt`` where the file holds no
    fit, and ``BankNotFound`` where the setting names a file that is not there.
    """
    path = calibration_file(settings)
    if settings.bank.calibration_file is None and not path.exists():
        return CalibrationInForce()
    fit = read_fit(path)
    base = calibrated_version(bank)
    if fit.belongs_to(base, bank.encoder.id):
        return CalibrationInForce("fitted", fit)
    reason = (
        f"the calibration was fitted to bank {fit.bank} with encoder {fit.encoder}, but bank {base} with encoder "
        f"{bank.encoder.id} is in force: run `antiprompt calibrate` again"
    )
    match settings.bank.on_stale_calibration:
        case "refuse":
            raise CalibrationStale(reason)
        case "shipped":
            return CalibrationInForce("stale_shipped", reason=reason)
        case "shadow":
            return CalibrationInForce("stale_in_shadow", reason=reason)


def calibrated_version(bank: Bank) -> str:
    """The version that calibrations are tied to: of a bank with entries added since, the one it is derived from."""
    version: str = getattr(bank, "base_version", bank.version)
    return version
