"""Conduct: an end user whom policy has blocked too often is slowed down or refused, wherever they write."""

from __future__ import annotations

from gateway.errors import StateUnavailable, Suspended
from gateway.quotas import Quotas
from gateway.strike_rules import Strikes
from gateway.strikes import Conduct, Standing, StrikeStore


class EndUsers:
    """Where end users (digests) stand, and what follows from it for what they do next."""

    def __init__(self, strikes: StrikeStore, quotas: Quotas) -> None:
        self._strikes = strikes
        self._quotas = quotas

    async def conduct(self, *, tenant: str, end_user: str | None, rules: Strikes) -> Conduct:
        """Where somebody stands. Nobody is blamed while Redis cannot tell."""
        if end_user is None or not rules.follows:
            return Conduct()
        try:
            return await self._strikes.conduct(tenant=tenant, end_user=end_user, rules=rules)
        except StateUnavailable:
            return Conduct()

    async def admit(self, conduct: Conduct, *, tenant: str, end_user: str | None, rules: Strikes, param: str) -> None:
        """Refuse, or slow down, whom policy has blocked too often; ``param`` is the field that named them.

        Raises ``Suspended`` and ``RateLimited``.
        """
        if conduct.standing is Standing.SUSPENDED:
            raise Suspended(
                "this end user is suspended for a while, because the safety policy had to block them too often",
                param=param,
                retry_after_s=conduct.left_s,
            )
        if conduct.standing is Standing.SLOWED and end_user is not None:
            await self._quotas.take_as_slowed(
                tenant=tenant, end_user=end_user, requests_per_minute=rules.slow_requests_per_minute
            )
