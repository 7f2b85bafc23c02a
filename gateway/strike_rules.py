"""What follows where an end user is blocked again and again, as a policy says it."""

from __future__ import annotations

import itertools
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Weight = Annotated[float, Field(strict=True, ge=0.5, le=100, allow_inf_nan=False)]
Seconds = Annotated[float, Field(strict=True, ge=1, le=31_536_000, allow_inf_nan=False)]


class Strikes(BaseModel):
    """What follows where one end user is blocked again and again: from which weight of their strikes on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warn_at: Weight | None = Field(None, description="Replies carry x-antiprompt-standing: warned. Unset: never.")
    slow_at: Weight | None = Field(None, description="Few requests a minute, then 429. Unset: never.")
    slow_s: Seconds = Field(3600.0, description="How long after the strike that led there.")
    slow_requests_per_minute: int = Field(6, strict=True, ge=1, le=10_000, description="Requests of a slowed end user.")
    suspend_at: Weight | None = Field(None, description="403 with code account_suspended. Unset: never.")
    suspend_s: Seconds = Field(86_400.0, description="How long after the strike that led there.")

    @model_validator(mode="after")
    def _rise(self) -> Strikes:
        named = [(name, getattr(self, name)) for name in ("warn_at", "slow_at", "suspend_at")]
        given = [(name, value) for name, value in named if value is not None]
        for (lower, least), (higher, most) in itertools.pairwise(given):
            if least > most:
                raise ValueError(f"{lower} is {least:g}, above {higher}; who is stopped was warned before")
        return self

    @property
    def follows(self) -> bool:
        """Whether anything follows at all."""
        return (self.warn_at, self.slow_at, self.suspend_at) != (None, None, None)
