from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.case_records import Case, CaseFinding
from gateway.parts import Parts
from gateway.policy_store import PolicyStore
from gateway.roles import Role
from gateway.settings import Settings
from tests.gateway.review.conftest import LogIn, Person

POLICY = """\
# Ours.
rules:
  - {name: harmful, hazard: "*", side: any, risk_at_least: 0.9, action: block}
"""


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return Settings(redis={"url": redis_url}, data_dir=tmp_path / "data", policy_file=file)


async def version(person: Person) -> str:
    """The version that the form of the page is about."""
    found: list[str] = re.findall('name="version" value="([^"]+)"', (await person.get("/review/policy")).text)
    return found[0]


async def test_a_threshold_is_saved_as_a_new_version_and_comments_stay(log_in: LogIn, parts: Parts) -> None:
    person = await log_in(Role.LEAD)
    fields = {"version": await version(person), "threshold-0": "0.8", "note": "too lax"}
    assert (await person.post("/review/policy", **fields)).status_code == 303
    assert await parts.policies.text() == POLICY.replace("0.9", "0.8")
    assert (parts.policies.status.author, parts.policies.status.note) == ("mia", "too lax")
    page = (await person.get("/review/policy")).text
    assert "published by mia" in page
    assert 'value="0.8"' in page


async def test_a_page_from_before_somebody_else_s_change_saves_nothing(log_in: LogIn, parts: Parts) -> None:
    person = await log_in(Role.LEAD)
    before = await version(person)
    await parts.policies.publish(POLICY.replace("0.9", "0.7"), author="leo", note="a trial")
    answer = await person.post("/review/policy", version=before, note="x", **{"threshold-0": "0.8"})
    assert answer.status_code == 400
    assert "meanwhile" in answer.text
    assert "0.7" in await parts.policies.text()


@pytest.mark.parametrize(
    "fields",
    [{"threshold-0": "1.5"}, {"threshold-0": "x"}, {"threshold-7": "0.5"}, {"threshold-0": "0.5", "note": ""}],
)
async def test_what_does_not_fit_is_an_error_in_words(fields: dict[str, str], log_in: LogIn, parts: Parts) -> None:
    person = await log_in(Role.LEAD)
    answer = await person.post("/review/policy", **{"version": await version(person), "note": "why", **fields})
    assert answer.status_code == 400
    assert await parts.policies.text() == POLICY


async def test_what_would_have_been_blocked_is_counted_without_saving(log_in: LogIn, parts: Parts) -> None:
    person = await log_in(Role.ANALYST)
    for number, (risk, age_s) in enumerate(((0.5, 60), (0.85, 60), (0.95, 60), (0.85, 90_000))):
        found = CaseFinding(side="request", role="user", index=0, risk=risk, hazard="privacy", risks={"privacy": risk})
        parts.cases.record(
            Case(
                id=f"case_{number}",
                created_at=time.time() - age_s,
                tenant="acme",
                surface="chat",
                action="allow",
                hazard="privacy",
                risk=risk,
                findings=(found,),
            )
        )
    fields = {"version": await version(person), "threshold-0": "0.8"}
    answer = await person.post("/review/policy/preview", **fields)
    assert answer.status_code == 200
    row = re.sub(r"<[^>]+>", " ", answer.text.split("would have blocked")[1].split("</tr>")[0]).split()
    assert row == ["1", "2"]
    assert "With 3 cases, spread over the last day" in answer.text
    assert 'value="0.8"' in answer.text
    assert await parts.policies.text() == POLICY


async def test_a_locked_policy_is_read_and_not_changed(
    log_in: LogIn, parts: Parts, app: object, settings: Settings
) -> None:
    assert settings.policy_file is not None
    settings.policy_file.write_text("locked: true\n" + POLICY)
    locked = PolicyStore(parts.redis, settings.policy_file)
    await locked.start()
    app.state.parts = replace(parts, policies=locked)  # type: ignore[attr-defined]
    person = await log_in(Role.ADMIN)
    page = (await person.get("/review/policy")).text
    assert "locked to its file" in page
    assert "Save as a new version" not in page
    answer = await person.post("/review/policy", note="why", **{"threshold-0": "0.8"})
    assert answer.status_code == 403
    assert (await person.post("/review/policy/preview", **{"threshold-0": "0.8"})).status_code == 200
