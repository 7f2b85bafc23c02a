"""A bank fitted to one's own texts: the command, the gateway that enforces a fresh fit, and what a stale one does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from antiprompt_bank.conformal import Fit, read_fit, save_fit
from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import MakeGateway
from tests.end_to_end.exemplars import BAD_REQUEST, GOOD_REPLY, GOOD_REQUEST, HEADACHE
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking
from tests.fakes import ScriptedUpstream, whole
from tests.transcripts import chat_completion

POLICY: Final = """
rules: [{name: block, hazard: "*", side: any, risk_at_least: 0.9, action: block}]
"""
OWN: Final = [f"How many of the {number} chairs go into each of {number % 7 + 2} rooms?" for number in range(3, 104)]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("calibrated") / "policy.yaml"
    path.write_text(POLICY, "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def fitted(make_gateway: MakeGateway, policy: str, tmp_path_factory: pytest.TempPathFactory) -> RunningGateway:
    """A gateway whose bank was fitted to ``OWN`` and to three answers before it was started."""
    gateway = make_gateway(start=False, POLICY_FILE=policy)
    own = tmp_path_factory.mktemp("own")
    rows: list[dict[str, Any]] = [{"text": text} for text in (*OWN, OWN[0])]
    rows += [{"text": f"{GOOD_REPLY} {number}", "prompt": GOOD_REQUEST} for number in range(3)]
    rows += [{"text": BAD_REQUEST, "label": "harmful"}, {"text": ""}]
    (own / "traffic.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (own / "notes.md").write_text("no texts", "utf-8")
    told = gateway.json("calibrate", "--benign", str(own))
    assert told["rows"] == len(rows)
    assert told["left_out"] == {"there twice": 1, "not labelled benign": 1, "without a text": 1}
    requests, responses = told["found"]["request"], told["found"]["response"]
    assert (requests["n_own"], requests["n_shipped"], requests["promise"]) == (len(OWN), 0, True)
    assert (responses["n_own"], responses["promise"], responses["needed"]) == (3, False, 99)
    assert responses["n_shipped"] > 0
    assert requests["at"][0]["bound"] <= 0.01
    assert requests["at"][1]["bound"] is None
    assert OWN[0] not in json.dumps(told)
    return gateway.start()


@pytest.fixture(scope="module")
def stale_fit(fitted: RunningGateway) -> Fit:
    """What ``fitted`` uses, as if it had been fitted to an earlier version."""
    return replace(read_fit(fitted.data_dir / "calibration.json"), bank="20260101T000000000Z-0123456789ab")


@asynccontextmanager
async def asked(gateway: RunningGateway, upstream: ScriptedUpstream) -> AsyncIterator[Caller]:
    """A caller that has asked for harm."""
    upstream.on(CHAT, whole(chat_completion(GOOD_REPLY)))
    caller = Caller(f"{gateway.url}/v1", "default", "sk-the-callers-own")
    try:
        await caller.http.post(CHAT, json=asking(BAD_REQUEST))
        yield caller
    finally:
        await caller.close()


async def ready(gateway: RunningGateway) -> Any:
    async with httpx2.AsyncClient(verify=False) as client:
        return (await client.get(f"{gateway.url}/readyz")).json()


async def test_a_fresh_fit_is_enforced(fitted: RunningGateway, upstream: ScriptedUpstream) -> None:
    async with asked(fitted, upstream) as caller:
        assert json.loads(caller.last.body)["choices"][0]["finish_reason"] == "content_filter"
        assert not upstream.requests
    assert (await ready(fitted))["calibration"] == "fitted"
    assert fitted.metric("antiprompt_calibration_stale") == 0
    checked = json.loads(fitted.command("check", BAD_REQUEST, "--json", status=3))
    assert (checked["action"], checked["calibration"], checked["stale"]) == ("block", "fitted", None)
    assert "calibration" not in fitted.command("doctor")
    assert "the calibration is stale" not in fitted.log()


async def test_a_stale_fit_puts_everything_into_shadow_and_says_so(
    make_gateway: MakeGateway, policy: str, stale_fit: Fit, upstream: ScriptedUpstream
) -> None:
    gateway = make_gateway(start=False, POLICY_FILE=policy)
    save_fit(stale_fit, gateway.data_dir / "calibration.json")
    gateway.start()
    async with asked(gateway, upstream) as caller:
        assert json.loads(caller.last.body)["choices"][0]["message"]["content"] == GOOD_REPLY
        assert len(upstream.requests) == 1
        async with State.beside(gateway.data_dir) as state:
            case = await state.case(caller.case_id)
        assert (str(case.action), set(case.shadow)) == ("allow", {"block"})
        moderated = await caller.http.post("/moderations", json={"input": BAD_REQUEST})
        assert moderated.json()["results"][0]["flagged"] is False
        # As with a policy in shadow: a caller can still ask for more.
        strict = await caller.http.post(CHAT, json=asking(BAD_REQUEST), headers={"x-antiprompt-policy": "strict"})
        assert strict.json()["choices"][0]["finish_reason"] == "content_filter"
    assert (await ready(gateway)) == {
        "status": "ready",
        "bank": case.bank_version,
        "calibration": "stale_in_shadow",
        "redis": "up",
        "reason": None,
    }
    assert gateway.metric("antiprompt_calibration_stale") == 1
    warnings = [line for line in gateway.log().splitlines() if "the calibration is stale" in line]
    assert len(warnings) == 1
    assert json.loads(warnings[0])["level"] == "warning"
    assert stale_fit.bank in warnings[0]
    assert "nothing is enforced" in gateway.command("doctor", status=1)
    assert "NOTHING IS ENFORCED" in gateway.command("check", BAD_REQUEST)


async def test_a_stale_fit_may_give_way_to_the_banks_own_calibration(
    make_gateway: MakeGateway, policy: str, stale_fit: Fit, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    save_fit(stale_fit, tmp_path / "mine.json")
    gateway = make_gateway(
        POLICY_FILE=policy,
        BANK__CALIBRATION_FILE=str(tmp_path / "mine.json"),
        BANK__ON_STALE_CALIBRATION="shipped",
    )
    async with asked(gateway, upstream) as caller:
        assert json.loads(caller.last.body)["choices"][0]["finish_reason"] == "content_filter"
        assert not upstream.requests
    assert (await ready(gateway))["calibration"] == "stale_shipped"
    assert gateway.metric("antiprompt_calibration_stale") == 1
    assert "the calibration is stale" in gateway.log()
    assert "it is not used" in gateway.command("doctor")
    assert "YOUR CALIBRATION IS NOT USED" in gateway.command("check", BAD_REQUEST, status=3)


async def test_a_gateway_may_refuse_to_work_with_a_stale_fit(
    make_gateway: MakeGateway, policy: str, stale_fit: Fit
) -> None:
    gateway = make_gateway(start=False, POLICY_FILE=policy, BANK__ON_STALE_CALIBRATION="refuse")
    save_fit(stale_fit, gateway.data_dir / "calibration.json")
    gateway.start(until_ready=False)
    with pytest.raises(AssertionError, match="never be ready"):
        gateway.wait_until_ready()
    told = await ready(gateway)
    assert (told["status"], told["calibration"]) == ("failed", None)
    assert "run `antiprompt calibrate` again" in told["reason"]
    assert gateway.metric("antiprompt_calibration_stale") == 1
    assert "will not be ready" in gateway.command("doctor", status=1)


def test_plain_lines_and_tables_are_read_and_texts_shown_only_when_asked(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    gateway = make_gateway(start=False)
    (tmp_path / "own.txt").write_text(f"{HEADACHE}\n{OWN[0]}\n", "utf-8")
    (tmp_path / "own.csv").write_text(f'text,side\n"{GOOD_REPLY}",response\n"{OWN[1]}",request\n', "utf-8")
    files = ("--benign", str(tmp_path / "own.txt"), str(tmp_path / "own.csv"), "--out", str(tmp_path / "fit.json"))
    told = gateway.command("calibrate", *files)
    assert "requests: 3 texts" in told
    assert "responses: 1 texts" in told
    assert "1.00% takes 99" in told
    assert "chairs" not in told
    assert "chairs" in gateway.command("calibrate", *files, "--show-texts")
    assert set(read_fit(tmp_path / "fit.json").inputs) == {files[1], files[2]}
    assert not (gateway.data_dir / "calibration.json").exists()


def test_without_harmless_texts_nothing_is_written(make_gateway: MakeGateway, tmp_path: Path) -> None:
    gateway = make_gateway(start=False)
    (tmp_path / "own.jsonl").write_text('{"text": "x", "label": "harmful"}\n', "utf-8")
    gateway.command("calibrate", "--benign", str(tmp_path), status=1)
    assert not gateway.data_dir.exists()
