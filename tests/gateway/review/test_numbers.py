"""The page with the numbers: end users who were blocked, and what a lead does about them."""

from __future__ import annotations

from gateway.parts import Parts
from gateway.roles import Role
from gateway.strike_rules import Strikes
from gateway.strikes import Strike
from tests.gateway.review.conftest import LogIn

PERSON = "0f" * 16
RULES = Strikes(warn_at=1)


async def struck(parts: Parts, case_id: str = "case_1", end_user: str = PERSON, tenant: str = "default") -> None:
    strike = Strike(at_ms=0, weight=1, side="request", hazard="hate", part=tenant)
    await parts.strikes.add(strike, case_id=case_id, tenant=tenant, end_user=end_user, rules=RULES)


async def test_nobody_was_blocked_yet(log_in: LogIn) -> None:
    page = await (await log_in(Role.ANALYST)).get("/review/numbers")
    assert page.status_code == 200
    assert "End users who were blocked" in page.text
    assert "/review/strikes/clear" not in page.text


async def test_end_users_are_listed_under_a_pseudonym_with_what_follows(log_in: LogIn, parts: Parts) -> None:
    for number in range(4):
        await struck(parts, f"case_{number}")
    page = await (await log_in(Role.ANALYST)).get("/review/numbers")
    assert PERSON[:8] in page.text
    assert PERSON not in page.text
    assert '<td class="number">4.0</td><td class="number">4</td><td>Hate</td>' in page.text
    assert '<span class="chip warn">warned</span>' in page.text  # by the policy that ships, from 3 on
    assert "/review/strikes/clear" not in page.text


async def test_a_lead_clears_and_the_audit_log_says_so(log_in: LogIn, parts: Parts) -> None:
    await struck(parts)
    lead = await log_in(Role.LEAD, "grace")
    assert "/review/strikes/clear" in (await lead.get("/review/numbers")).text
    answer = await lead.post("/review/strikes/clear", tenant="default", end_user=PERSON)
    assert (answer.status_code, answer.headers["location"]) == (303, "/review/numbers#strikes")
    assert (await parts.strikes.conduct(tenant="default", end_user=PERSON, rules=RULES)).strikes == 0
    audit = (await lead.get("/review/audit")).text
    assert "<td>grace</td><td>clear strikes</td><td>0f0f0f0f</td>" in audit
    assert (await lead.post("/review/strikes/clear", tenant="default", end_user=PERSON)).status_code == 404
    for missing in ({"tenant": "default"}, {"end_user": PERSON}):
        assert (await lead.post("/review/strikes/clear", **missing)).status_code == 400
