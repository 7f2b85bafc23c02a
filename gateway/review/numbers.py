"""Numbers: how the work goes, how the bank grows, who is blocked often, and whether scores are still what they were."""

from __future__ import annotations

import time
from typing import Final

from starlette.responses import Response

from antiprompt_bank import State
from gateway.drift import drift_of
from gateway.review.guard import Visit, see

DAY_S: Final = 86_400
CASES_READ: Final = 500
"""Cases, spread over a stretch of time, that its distribution of risks is taken from."""

_BEFORE_S: Final = 7 * DAY_S


async def show_numbers(visit: Visit) -> Response:
    """All of it on one page."""
    numbers = await visit.parts.reviews.numbers()
    entries = await visit.parts.entries.all()
    now, cases = time.time(), visit.parts.cases
    lately = await cases.spread(now - DAY_S, now, limit=CASES_READ)
    before = await cases.spread(now - _BEFORE_S, now - DAY_S, limit=CASES_READ)
    bank = visit.parts.screener.bank
    return visit.page(
        "numbers.html",
        tab="numbers",
        numbers=numbers,
        drift=drift_of([case.risk for case in lately], [case.risk for case in before]),
        records=len(bank.records) if bank is not None else 0,
        joined=sum(entry.record.state is State.LIVE for entry in entries),
        waiting=sum(entry.awaits_second for entry in entries),
        entries=len(entries),
        struck=await visit.parts.strikes.listed(lambda part: visit.parts.policies.current.for_tenant(part).strikes),
    )


async def clear_strikes(visit: Visit) -> Response:
    """Forget the strikes of one end user, and with them what follows."""
    form = visit.form
    await visit.parts.strikes.clear(
        tenant=form.needed("tenant"), end_user=form.needed("end_user", most=64), by=visit.name
    )
    return see("/review/numbers#strikes")
