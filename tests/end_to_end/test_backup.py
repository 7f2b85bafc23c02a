"""A gateway that runs is backed up by the command, and goes on elsewhere: another data folder, another Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import UPSTREAM_KEY, MakeGateway
from tests.end_to_end.exemplars import BAD_REQUEST, GOOD_REPLY, GOOD_REQUEST
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking
from tests.fakes import ScriptedUpstream, whole
from tests.transcripts import chat_completion
from tests.upgrade.told import told

BLOCK: Final = 'rules: [{name: mine, hazard: "*", side: any, risk_at_least: 0.9, action: block}]'


@pytest.fixture
def old_policy(tmp_path: Path) -> Path:
    (tmp_path / "old.yaml").write_text(BLOCK)
    return tmp_path / "old.yaml"


@pytest.fixture
def old(make_gateway: MakeGateway, old_policy: Path) -> Iterator[RunningGateway]:
    made = make_gateway(UPSTREAM__API_KEY=UPSTREAM_KEY, POLICY_FILE=str(old_policy))
    yield made
    made.close()


async def ready_with(gateway: RunningGateway) -> str:
    """The bank that a gateway decides with."""
    async with httpx2.AsyncClient(verify=False) as client:
        return str((await client.get(f"{gateway.url}/readyz")).json()["bank"])


async def test_a_gateway_goes_on_from_its_backup_on_an_empty_machine(
    old: RunningGateway,
    old_policy: Path,
    bank_folder: Path,
    make_gateway: MakeGateway,
    upstream: ScriptedUpstream,
    tmp_path: Path,
) -> None:
    async with State.beside(old.data_dir) as state:
        tenant, token = await state.new_key("refusal")
    caller = Caller(f"{old.url}/v1", tenant, token)
    upstream.on(CHAT, whole(chat_completion(GOOD_REPLY)))
    await caller.http.post(CHAT, json=asking(GOOD_REQUEST))
    case_id = caller.case_id
    async with State.beside(old.data_dir) as state:
        await state.case(case_id)
    await caller.http.post("/flags", json={"text": GOOD_REPLY, "reason": "too much flour"})
    await caller.close()
    backup = tmp_path / "backup"
    said = await asyncio.to_thread(old.json, "backup", str(backup))
    assert said["one_moment"] is True
    assert await asyncio.to_thread(old.command, "restore", str(backup), status=1) == ""  # it runs
    async with State.beside(old.data_dir) as state:
        before = await told(state.redis, bank_folder, old_policy)
    bank = await ready_with(old)
    await asyncio.to_thread(old.stop)

    new = make_gateway(
        start=False,
        UPSTREAM__API_KEY=UPSTREAM_KEY,
        BANK__PATH=str(tmp_path / "bank"),
        POLICY_FILE=str(tmp_path / "policy.yaml"),
    )
    new.data_dir.mkdir(parents=True)
    await asyncio.to_thread(new.command, "restore", str(backup))
    assert (tmp_path / "policy.yaml").read_text() == BLOCK
    await asyncio.to_thread(new.start)
    assert await ready_with(new) == bank
    async with State.beside(new.data_dir) as state:
        assert await told(state.redis, tmp_path / "bank", tmp_path / "policy.yaml") == before
        exchange = await state.cases.exchange(case_id, tenant=None)
    assert exchange is not None
    assert exchange.reply == (GOOD_REPLY,)
    moved = Caller(f"{new.url}/v1", tenant, token)  # with the key of before
    assert (await moved.http.post(CHAT, json=asking(GOOD_REQUEST))).status_code == 200
    await moved.http.post(CHAT, json=asking(BAD_REQUEST))
    assert moved.last.headers["x-antiprompt-action"] == "block"
    await moved.close()
    await asyncio.to_thread(new.close)
