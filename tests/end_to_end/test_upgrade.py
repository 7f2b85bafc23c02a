"""The gateway itself starts on the data folder that an earlier release left: its keys, its policy, its flags count."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import UPSTREAM_KEY, MakeGateway
from tests.end_to_end.exemplars import BAD_REQUEST
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking
from tests.fakes import ScriptedUpstream, whole
from tests.transcripts import chat_completion
from tests.upgrade.test_upgrade import RELEASES

UPGRADE = Path(__file__).parents[1] / "upgrade"


@pytest.fixture(params=RELEASES)
def left(request: pytest.FixtureRequest) -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="ap-")) / "left"
    shutil.copytree(UPGRADE / request.param, root)
    yield root
    shutil.rmtree(root.parent)


async def test_a_gateway_starts_on_what_an_earlier_release_left(
    left: Path, make_gateway: MakeGateway, upstream: ScriptedUpstream
) -> None:
    """Its bank is one of these tests: that of then needs an encoder which is no model."""
    was = json.loads((left / "told.json").read_text("utf-8"))
    gateway = make_gateway(
        UPSTREAM__API_KEY=UPSTREAM_KEY, DATA_DIR=str(left / "data"), POLICY_FILE=str(left / "policy.yaml")
    )
    upstream.on(CHAT, whole(chat_completion("A reply.")))
    caller = Caller(f"{gateway.url}/v1", "acme", was["token"])
    assert (await caller.http.post(CHAT, json=asking(BAD_REQUEST))).status_code == 200
    assert caller.last.headers["x-antiprompt-action"] == "flag"  # by the policy that was published then
    assert (await caller.http.post(CHAT, json=asking(), headers={"authorization": "Bearer no"})).status_code == 401
    await caller.close()
    async with State.beside(left / "data") as state:
        texts = {flag.text for flag in await state.flags.list()}
    gateway.close()
    assert texts >= {text for text, _ in was["flags"]["open"]} | {BAD_REQUEST}
