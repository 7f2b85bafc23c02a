import pytest

from gateway.roles import PERMITTED, Role, permitted


@pytest.mark.parametrize("role", Role)
def test_what_is_not_in_the_table_is_denied_to_everybody(role: Role) -> None:
    assert not permitted(role, "GET", "/review/secrets")
    assert not permitted(role, "DELETE", "/review/queue")


def test_an_analyst_changes_nothing() -> None:
    allowed = {route for route in PERMITTED if permitted(Role.ANALYST, *route.split(" ", 1))}
    changing = {route for route in allowed if route.startswith("POST")}
    assert changing == {"POST /review/log-out", "POST /review/playground", "POST /review/policy/preview"}


def test_an_admin_may_do_whatever_anybody_may() -> None:
    assert all(Role.ADMIN in roles for roles in PERMITTED.values())


def test_a_lead_may_do_whatever_a_moderator_may() -> None:
    assert all(Role.LEAD in roles for roles in PERMITTED.values() if Role.MODERATOR in roles)


@pytest.mark.parametrize(
    "path", ["versions/publish", "versions/rollback", "policy", "bank/second", "bank/exemplars/{exemplar_id}"]
)
def test_bank_and_policy_are_changed_by_leads_and_admins(path: str) -> None:
    assert {role for role in Role if permitted(role, "POST", f"/review/{path}")} == {Role.LEAD, Role.ADMIN}
