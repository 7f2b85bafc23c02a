"""``antiprompt align``, as people call it; the whole path from flags to a report with a real Redis."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.alignment.reviewed import write_rows
from gateway.cli import app
from gateway.redis_client import RedisClient
from gateway.review_records import Decision
from gateway.reviews import ReviewStore
from tests.gateway.alignment.reviewing import CLEAN, many
from tests.gateway.reviewing import assessing, filed, verdict

JUDGE = "tests.gateway.alignment.tiny:shouting"


@pytest.fixture
def here(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANTIPROMPT_REDIS__URL", redis_url)
    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ANTIPROMPT_ALIGNMENT__HELD_OUT_SHARE", "0.3")
    return tmp_path


def called(*arguments: object, exit_code: int = 0) -> str:
    found = CliRunner().invoke(app, ["align", *map(str, arguments)])
    assert found.exit_code == exit_code, found.output
    return found.output


async def decided(redis: RedisClient) -> None:
    """Sixty flags: two thirds confirmed, most of them with a correction, the rest dismissed or waiting."""
    store = ReviewStore(redis, assessing())
    for at, row in enumerate(many(60)):
        flag = await filed(redis, row.answer, prompt=row.prompt, hazard=row.hazard)
        if at % 6 < 4:
            await store.decide(verdict(flag, corrected_answer=row.corrected if at % 6 < 3 else None))
        elif at % 6 == 4:
            await store.decide(verdict(flag, decision=Decision.DISMISS))


async def test_from_flags_in_redis_to_data_sets(here: Path, redis_client: RedisClient) -> None:
    await decided(redis_client)
    output = await asyncio.to_thread(called, "export", "--format", "trl-kto", "--to", here / "kto", "--json")
    found = json.loads(output)
    assert sum(found["rows"].values()) == 40 + 30 + 10  # bad answers, corrections, false alarms
    again = await asyncio.to_thread(called, "export", "--format", "trl-kto", "--to", here / "again", "--json")
    assert json.loads(again)["hash"] == found["hash"]
    rows = [
        json.loads(line)
        for part in ("train", "held_out")
        for line in (here / "kto" / f"{part}.jsonl").read_text().splitlines()
    ]
    assert {row["meta"]["standing"] for row in rows if not row["label"]} == {"confirmed"}
    assert {row["meta"]["standing"] for row in rows} == {"confirmed", "dismissed"}
    output = await asyncio.to_thread(called, "export", "--format", "inoculation", "--to", here / "ip", "--json")
    assert sum(json.loads(output)["rows"].values()) == 40 + 30 + 10 + 10


def test_rows_of_ones_own_are_exported_and_trained_on(here: Path) -> None:
    write_rows(here / "rows.jsonl", (row.to_json() for row in many(12)))
    write_rows(here / "clean.jsonl", [CLEAN.to_json()])
    output = called("export", "--format", "trl-sft", "--rows", here / "rows.jsonl", "--clean", here / "clean.jsonl",
                    "--to", here / "sft")  # fmt: skip
    assert "manifest" in output
    given = ("--method", "sft", "--model", "tiny:random", "--data", here / "sft", "--to", here / "run", "--steps", 2,
             "--batch", 2, "--rank", 2, "--judge", JUDGE, "--max-answer-tokens", 2, "--evaluate-every", 1)  # fmt: skip
    assert "before training" in called("train", *given)
    assert list(json.loads(called("train", *given, "--json"))["arms"]) == ["sft"]
    assert "other settings" in called("train", *given, "--seed", 4, exit_code=1)


def test_prompts_that_a_model_does_not_follow_are_refused(here: Path) -> None:
    write_rows(here / "rows.jsonl", (row.to_json() for row in many(12)))
    called("export", "--format", "inoculation", "--rows", here / "rows.jsonl", "--to", here / "ip")
    given = ("--model", "tiny:random", "--data", here / "ip", "--judge", JUDGE, "--samples", 8)
    output = called("prompts", *given, "--to", here / "prompts.json", "--json", exit_code=1)
    found = json.loads(output)
    assert found["chosen"] == []
    assert {each["hazard"] for each in found["rankings"]} == {"privacy", "specialized_advice"}
    called("export", "--format", "inoculation", "--rows", here / "rows.jsonl", "--to", here / "plain",
           "--prompts", here / "prompts.json")  # fmt: skip
    rows = [json.loads(line) for line in (here / "plain" / "train.jsonl").read_text().splitlines()]
    assert rows
    assert not any(row["meta"]["inoculated"] for row in rows)


def test_what_the_consumer_refuses_ends_with_one(here: Path) -> None:
    write_rows(here / "rows.jsonl", (row.to_json() for row in many(3)))
    output = called("export", "--format", "openai-sft", "--rows", here / "rows.jsonl", "--to", here / "x", exit_code=1)
    assert "the service wants 10" in output.replace("\n", " ")
    (here / "rows.jsonl").write_text("{")
    assert "line 1" in called("export", "--rows", here / "rows.jsonl", "--format", "neat", "--to", here, exit_code=1)
