"""The whole way of what people report: from a flag at a running gateway to a trained adapter with its report."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from gateway.cli import app
from gateway.review_records import Decision
from gateway.reviews import ReviewStore
from tests.end_to_end.conftest import Callers
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking
from tests.fakes import ScriptedUpstream, whole
from tests.gateway.alignment.reviewing import many
from tests.gateway.reviewing import assessing, verdict
from tests.transcripts import chat_completion

JUDGE = "tests.gateway.alignment.tiny:shouting"


def called(*arguments: object) -> str:
    found = CliRunner().invoke(app, ["align", *map(str, arguments)])
    assert found.exit_code == 0, found.output
    return found.output


async def test_a_flag_at_the_api_becomes_an_adapter_with_a_report(
    callers: Callers,
    upstream: ScriptedUpstream,
    state: State,
    gateway: RunningGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight replies are reported: six confirmed with a correction, one dismissed, one nobody has read yet."""
    caller, rows, flags = await callers("lenient"), many(8), []
    for row in rows:
        upstream.on(CHAT, whole(chat_completion(row.answer or "")))
        await caller.openai.chat.completions.create(**asking(row.prompt))
        filed = await caller.http.post("/flags", json={"case_id": caller.case_id, "reason": "it is dangerous"})
        assert filed.status_code == 202, filed.text
        flags.append(filed.json()["id"])
    reviews = ReviewStore(state.redis, assessing())
    for row, flag in zip(rows[:6], flags, strict=False):
        await reviews.decide(verdict(flag, hazard=row.hazard, corrected_answer=row.corrected))
    await reviews.decide(verdict(flags[6], decision=Decision.DISMISS))

    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(gateway.data_dir))
    monkeypatch.setenv("ANTIPROMPT_ALIGNMENT__HELD_OUT_SHARE", "0.3")
    data, run = tmp_path / "data", tmp_path / "run"
    exported = ("export", "--format", "trl-sft", "--to", data, "--json")
    manifest = json.loads(await asyncio.to_thread(called, *exported))
    lines = [
        json.loads(line) for part in ("train", "held_out") for line in (data / f"{part}.jsonl").read_text().splitlines()
    ]
    mine = {line["meta"]["flag_id"]: line for line in lines if line["meta"]["flag_id"] in flags}
    assert set(mine) == set(flags[:7])
    for at, (row, flag) in enumerate(zip(rows[:7], flags, strict=False)):
        good = row.corrected if at < 6 else row.answer  # a false alarm was a good answer
        assert mine[flag]["prompt"][-1]["content"] == row.prompt
        assert mine[flag]["completion"] == [{"role": "assistant", "content": good}]

    trained = ("train", "--method", "sft", "--model", "tiny:random", "--data", data, "--to", run, "--steps", 2,
               "--batch", 2, "--rank", 2, "--learning-rate", 0.01, "--judge", JUDGE, "--max-answer-tokens", 2,
               "--evaluate-every", 0)  # fmt: skip
    await asyncio.to_thread(called, *trained)
    report = json.loads((run / "report.json").read_text())
    assert report["manifest"]["hash"] == manifest["hash"]
    assert [each["step"] for each in report["arms"]["sft"]["losses"]] == [1, 2]
    assert "<svg" in (run / "report.html").read_text()
    learned = load_file(run / "adapter" / "adapter_model.safetensors")
    assert any(weight.abs().sum() > 0 for name, weight in learned.items() if "lora_B" in name)
