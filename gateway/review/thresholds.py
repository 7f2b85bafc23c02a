"""The policy: from which risk on each rule acts, what other thresholds would have done, and saving them."""

from __future__ import annotations

import time
from typing import Final

from starlette.responses import Response

from antiprompt_bank import HAZARDS
from gateway.errors import BadRequest, Forbidden
from gateway.flag_records import FlagState
from gateway.policy import Policy, PolicyError
from gateway.review.backtest import Backtest, backtest
from gateway.review.curves import review_curve
from gateway.review.forms import Form
from gateway.review.guard import Visit, see
from gateway.review.numbers import DAY_S
from gateway.review.threshold_edit import replaced, thresholds

CASES_REPLAYED: Final = 1000
FLAGS_READ: Final = 200
_FIELD: Final = "threshold-"


async def show_policy(visit: Visit) -> Response:
    """Every rule's threshold, and the curve of what people made of the flags."""
    return await _page(visit, await visit.parts.policies.text(), None)


async def preview(visit: Visit) -> Response:
    """What the thresholds of the form would have done with the last day's cases. Saves nothing."""
    text = await _changed(visit)
    now = time.time()
    cases = await visit.parts.cases.spread(now - DAY_S, now, limit=CASES_REPLAYED)
    replay = backtest(cases, Policy.from_yaml(await visit.parts.policies.text()), _policy(text))
    if visit.request.headers.get("hx-request") == "true":
        return visit.page("backtest.html", replay=replay)
    return await _page(visit, text, replay)


async def save(visit: Visit) -> Response:
    """Publish the thresholds of the form as a new version of the policy."""
    if visit.parts.policies.locked:
        raise Forbidden("the policy is locked to its file; change the file and restart the gateway")
    note = visit.form.needed("note", most=1000)
    text = await _changed(visit)
    _policy(text)
    await visit.parts.policies.publish(text, author=visit.name, note=note)
    return see("/review/policy")


async def _page(visit: Visit, text: str, replay: Backtest | None) -> Response:
    policies, reviews = visit.parts.policies, visit.parts.reviews
    in_force = {one.number: one.value for one in thresholds(await policies.text())}
    hazard = visit.form.choice("hazard", tuple(HAZARDS))
    confirmed = await reviews.queue(state=FlagState.CONFIRMED, limit=FLAGS_READ)
    dismissed = await reviews.queue(state=FlagState.DISMISSED, limit=FLAGS_READ)
    return visit.page(
        "policy.html",
        tab="policy",
        status=policies.status,
        locked=policies.locked,
        rules=thresholds(text),
        in_force=in_force,
        replay=replay,
        hazard=hazard,
        curve=review_curve(confirmed.flags, dismissed.flags, hazard),
        history=() if policies.locked else await policies.history(limit=10),
        note=visit.form.text("note", most=1000) or "",
    )


async def _changed(visit: Visit) -> str:
    """The policy's text with the thresholds of the form. Raises ``BadRequest``."""
    text = await visit.parts.policies.text()
    if visit.form.text("version") not in (None, visit.parts.policies.status.version):
        raise BadRequest("the policy was changed by somebody else meanwhile; load the page again", param="version")
    try:
        return replaced(text, _values(visit.form))
    except KeyError:
        raise BadRequest("the policy has no such rule; load the page again") from None


def _values(form: Form) -> dict[int, float]:
    found = {}
    for name in form.names():
        number = name.removeprefix(_FIELD)
        if name.startswith(_FIELD) and number.isascii() and number.isdigit():
            value = form.number(name, 0.0, 1.0)
            if value is not None:
                found[int(number[:6])] = value
    return found


def _policy(text: str) -> Policy:
    try:
        return Policy.from_yaml(text)
    except PolicyError as error:
        raise BadRequest(f"these thresholds cannot stand together: {'; '.join(error.problems)}") from None
