"""The ``antiprompt`` command beside a running gateway, and what is seen of a gateway from outside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx2
import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import Metrics
from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import Callers, MakeGateway
from tests.end_to_end.exemplars import BAD_REQUEST, DO_NOT_DRINK_IT, DRINK_IT, GOOD_REQUEST, HEADACHE, exemplars
from tests.end_to_end.running_gateway import PATIENCE_S, RunningGateway
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking
from tests.fakes import ScriptedUpstream, error, stream, whole
from tests.transcripts import chat_completion, chat_stream

BLOCK: Final = """
rules: [{name: block, hazard: "*", side: any, risk_at_least: 0.9, action: block}]
"""
FLAG: Final = """
rules: [{name: flag, hazard: "*", side: any, risk_at_least: 0.9, action: flag}]
"""
INVALID: Final = """
rules: [{name: block, hazard: "*", side: any, risk_at_least: 7, action: explode}]
"""


@pytest.fixture(scope="session")
def governed(make_gateway: MakeGateway, tmp_path_factory: pytest.TempPathFactory) -> RunningGateway:
    """A gateway without client keys, whose policy blocks and may be published anew."""
    policy = tmp_path_factory.mktemp("governed") / "policy.yaml"
    policy.write_text(BLOCK, "utf-8")
    return make_gateway(POLICY_FILE=str(policy))


@pytest.fixture
async def caller(governed: RunningGateway) -> AsyncIterator[Caller]:
    caller = Caller(f"{governed.url}/v1", "default", "sk-the-callers-own")
    yield caller
    await caller.close()


# Texts.


def test_check_says_what_would_be_done_and_ends_with_0_or_3(governed: RunningGateway) -> None:
    allowed = json.loads(governed.command("check", GOOD_REQUEST, "--json"))
    assert (allowed["action"], allowed["risk"]) == ("allow", 0)
    blocked = json.loads(governed.command("check", BAD_REQUEST, "--json", status=3))
    assert (blocked["action"], blocked["rule"], blocked["hazard"]) == ("block", "block", "indiscriminate_weapons")
    assert blocked["risk"] >= 0.9
    assert blocked["nearest"][0]["text"] == BAD_REQUEST
    for_people = governed.command("check", BAD_REQUEST, status=3)
    assert "block" in for_people
    assert "indiscriminate_weapons" in for_people


def test_check_reads_a_response_with_the_prompt_that_it_answers(governed: RunningGateway) -> None:
    side = ("--side", "response", "--prompt", HEADACHE)
    harmful = json.loads(governed.command("check", DRINK_IT, *side, "--json", status=3))
    assert (harmful["action"], harmful["hazard"]) == ("block", "specialized_advice")
    assert json.loads(governed.command("check", DO_NOT_DRINK_IT, *side, "--json"))["action"] == "allow"


def test_settings_are_listed_with_their_variables_and_secrets_masked(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(start=False, UPSTREAM__API_KEY="sk-hush", REDIS__URL="redis://:hush@localhost:1/0")
    for output in (gateway.command("settings"), gateway.command("settings", "--json")):
        assert "hush" not in output
        assert "*****" in output
    assert json.loads(gateway.command("settings", "--json"))["limits"]["max_json_depth"] == 64


def test_a_setting_that_does_not_exist_is_refused_by_its_name(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(start=False, UPSTRAEM__API_KEY="sk-hush")
    with pytest.raises(AssertionError, match="ANTIPROMPT_UPSTRAEM__API_KEY is set, but there is no setting"):
        gateway.command("settings")


# The bank.


def test_bank_stats_list_and_export_show_what_is_in_the_bank(governed: RunningGateway, tmp_path: Path) -> None:
    records = exemplars()
    stats = governed.json("bank", "stats")
    assert stats["records"] == len(records)
    weapons = next(row for row in stats["hazards"] if row["hazard"] == "indiscriminate_weapons")
    assert (weapons["request_harmful"], weapons["response_harmful"]) == (2, 1)

    listed = governed.json("bank", "list", "--hazard", "specialized_advice", "--side", "response", "--label", "harmful")
    assert [record["text"] for record in listed] == [DRINK_IT]
    assert "boredom" in governed_failure(governed, "bank", "list", "--hazard", "boredom")

    target = tmp_path / "bank.jsonl"
    governed.command("bank", "export", str(target))
    exported = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert {record["text"] for record in exported} == {record.text for record in records}


def governed_failure(gateway: RunningGateway, *arguments: str) -> str:
    """What a command that fails says."""
    with pytest.raises(AssertionError) as failed:
        gateway.command(*arguments)
    said = str(failed.value)
    assert ": 1\n" in said  # the exit status
    assert "Traceback" not in said
    return said


# The policy.


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)


async def test_a_policy_is_checked_published_rolled_back_and_suspended_while_the_gateway_runs(
    governed: RunningGateway, caller: Caller, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello")))
    for name, text in (("mild", FLAG), ("invalid", INVALID)):
        (tmp_path / f"{name}.yaml").write_text(text, "utf-8")
    mild, invalid = str(tmp_path / "mild.yaml"), str(tmp_path / "invalid.yaml")

    async def does(action: str) -> bool:
        reply = await caller.http.post(CHAT, json=asking(BAD_REQUEST))
        return reply.headers["x-antiprompt-action"] == action

    async def run(*arguments: str) -> str:
        return await asyncio.to_thread(governed.command, "policy", *arguments)

    assert await does("block")
    strict = (await asyncio.to_thread(governed.json, "policy", "status"))["version"]
    version = (await run("check", mild)).split()[-1]
    assert "risk_at_least" in await asyncio.to_thread(governed_failure, governed, "policy", "check", invalid)
    await asyncio.to_thread(governed_failure, governed, "policy", "publish", invalid, "--note", "a slip")
    assert await does("block")

    assert version in await run("publish", mild, "--note", "less strict", "--author", "ada")
    await until(lambda: does("flag"))
    await until(lambda: shows_policy(governed, version))

    await run("rollback", strict, "--note", "too mild")
    await until(lambda: does("block"))

    await run("break-glass", "--minutes", "5", "--reason", "nobody can work")
    await until(lambda: does("allow"))
    assert governed.metric("antiprompt_shadow_hits_total", action="block") >= 1
    await run("restore", "--note", "they can")
    await until(lambda: does("block"))

    history = await asyncio.to_thread(governed.json, "policy", "history")
    assert {"less strict", "too mild", "nobody can work", "they can"} <= {entry["note"] for entry in history}
    assert "ada" in {entry["author"] for entry in history}


async def shows_policy(gateway: RunningGateway, version: str) -> bool:
    return await asyncio.to_thread(gateway.metric, "antiprompt_policy_info", version=version) == 1


def test_doctor_finds_nothing_wrong_with_the_private_redis(governed: RunningGateway) -> None:
    assert governed.json("doctor") == []
    assert "nothing to change" in governed.command("doctor")


def test_a_policy_that_is_not_valid_does_not_start_and_is_told_in_a_sentence(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(INVALID, "utf-8")
    gateway = make_gateway(start=False, POLICY_FILE=str(policy))
    said = governed_failure(gateway, "serve")
    assert "risk_at_least" in said


def test_keys_are_made_listed_and_shown_once(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(start=False)
    made = gateway.json("keys", "create", "--tenant", "acme", "--model", "m", "--requests-per-minute", "7")
    assert made["token"].startswith("agk_")
    listing = gateway.command("keys", "list", "--json")
    (listed,) = json.loads(listing)
    assert (listed["tenant"], listed["models"], listed["requests_per_minute"]) == ("acme", ["m"], 7)
    assert made["token"] not in listing
    assert not [file for file in gateway.data_dir.rglob("*") if file.is_file() and held(made["token"], file)]
    assert "ghost" in governed_failure(gateway, "keys", "revoke", "ghost")


def held(token: str, file: Path) -> bool:
    return token.rpartition("_")[2].encode() in file.read_bytes()


# Seen from outside.


async def test_no_log_line_and_no_metric_holds_what_users_or_models_wrote(
    gateway: RunningGateway, callers: Callers, state: State, upstream: ScriptedUpstream
) -> None:
    word = "quincejelly"
    caller, flagging = await callers("refusal"), await callers("flag")
    reply = chat_completion(f"A {word} reply.")
    upstream.on(CHAT, whole(reply), stream(*chat_stream(f"A {word} stream.")), error(500, word), whole(word.encode()))
    for asked in (asking(f"A {word} question?", user=word), asking(word, stream=True), asking(word), asking(word)):
        await caller.http.post(CHAT, json=asked)
    await caller.http.post(CHAT, json=asking(f"{BAD_REQUEST} {word}", model=word))
    await flagging.http.post(CHAT, json=asking(f"{BAD_REQUEST} {word}"))
    await caller.http.post("/flags", json={"text": word, "reason": word, "end_user": word})
    await caller.http.post("/flags", json={"text": word, word: word})
    await caller.http.post(CHAT, content=f'{{"{word}": '.encode())
    await caller.http.post(f"/{word}", json={})
    await caller.http.post("/moderations", json={"input": word})
    await caller.http.post(CHAT, json=asking(), headers={"authorization": f"Bearer agk_{word}"})
    await state.case(caller.received[0].headers["x-antiprompt-case"])
    metrics = (await caller.http.get(f"{gateway.url}/metrics")).text
    log = gateway.log()
    assert '"event":"exchange"' in log
    for seen in (log, metrics):
        assert word not in seen
        assert caller.token not in seen
        assert BAD_REQUEST not in seen


async def test_every_log_line_is_json_and_names_its_case(
    gateway: RunningGateway, callers: Callers, upstream: ScriptedUpstream
) -> None:
    caller = await callers("refusal")
    upstream.on(CHAT, whole(chat_completion("Hello")))
    await caller.http.post(CHAT, json=asking())
    lines = [json.loads(line) for line in gateway.log().splitlines() if line.startswith("{")]
    (mine,) = [line for line in lines if line.get("case") == caller.case_id]
    assert (mine["event"], mine["level"], mine["tenant"]) == ("exchange", "info", caller.tenant)
    assert (mine["surface"], mine["action"], mine["status"], mine["upstream_status"]) == ("chat", "allow", 200, 200)


async def test_metrics_are_those_that_the_code_names_and_parse(
    gateway: RunningGateway, callers: Callers, upstream: ScriptedUpstream
) -> None:
    caller = await callers("refusal")
    upstream.on(CHAT, whole(chat_completion("Hello")))
    before = gateway.metric("antiprompt_requests_total", surface="chat", action="block")
    risks = gateway.metric("antiprompt_risk_count", side="request")
    await caller.http.post(CHAT, json=asking(BAD_REQUEST))
    await caller.http.post(CHAT, json=asking())
    assert gateway.metric("antiprompt_requests_total", surface="chat", action="block") == before + 1
    assert gateway.metric("antiprompt_risk_count", side="request") == risks + 2  # passes as well as hits
    async with httpx2.AsyncClient(verify=False) as client:
        answer = await client.get(f"{gateway.url}/metrics")
    assert answer.headers["content-type"] == prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
    shown = {family.name for family in text_string_to_metric_families(answer.text)}
    named = {family.name for family in Metrics().registry.collect()}
    assert {name for name in named if name.startswith("antiprompt_")} <= shown
    assert gateway.metric("antiprompt_bank_info") == 1


async def test_health_says_nothing_of_the_set_up(gateway: RunningGateway, upstream_port: int) -> None:
    async with httpx2.AsyncClient(verify=False) as client:
        health = await client.get(f"{gateway.url}/healthz")
        ready = await client.get(f"{gateway.url}/readyz")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert ready.json().keys() == {"status", "bank", "calibration", "redis", "reason"}
    assert str(upstream_port) not in ready.text
