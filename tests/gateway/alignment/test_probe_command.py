"""``antiprompt probe`` as people run it, against a model server on a real socket."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from antiprompt_bank import Bank
from gateway.alignment.probe_judging import RUBRIC
from gateway.cli import app
from gateway.commands import probe as command
from gateway.flags import Flag, FlagStore, Source
from gateway.redis_client import RedisClient
from gateway.settings import RedisSettings
from tests.conftest import running
from tests.fakes import error
from tests.gateway.alignment.probing import HAZARDS, PER_HAZARD, REFUSAL, ModelServer, bad_answer, failing_at

ALL = len(HAZARDS) * PER_HAZARD


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, probed_bank: Bank, redis_url: str) -> Iterator[None]:
    """Settings, with the tiny bank in the place of the one that they choose, which would bring the real encoder.

    Logging is afterwards as it was, since commands set it up for their own process.
    """
    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ANTIPROMPT_REDIS__URL", redis_url)
    monkeypatch.setattr(command, "load_chosen_bank", lambda settings: probed_bank)
    configured, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**configured)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer(failing_at()) as server:
        yield server


def run(model: ModelServer, *arguments: object, bias: bool = False) -> Result:
    given = ["probe", "--upstream", model.url, "--model", "m", "--bias" if bias else "--no-bias"]
    return CliRunner().invoke(app, [*given, *map(str, arguments)], env={"COLUMNS": "160"})


def said(result: Result) -> str:
    return " ".join(result.output.split())


def test_where_the_model_fails_is_said_and_written(model: ModelServer, tmp_path: Path) -> None:
    model.speaks = failing_at("hate", "jailbreak")
    figures, page = tmp_path / "report.json", tmp_path / "report.html"
    done = run(model, "--json", figures, "--html", page)
    assert done.exit_code == 0, done.output
    assert "fails at: hate, jailbreak" in said(done)
    assert bad_answer("hate") not in done.output
    written = json.loads(figures.read_bytes())
    assert sorted(written["failing"]) == ["hate", "jailbreak"]
    assert (written["asked"], written["answered"], len(written["failures"])) == (ALL, ALL, 2 * PER_HAZARD)
    assert {failure["answer"] for failure in written["failures"]} == {bad_answer("hate"), bad_answer("jailbreak")}
    assert written["what"]["model"] == "m"
    assert bad_answer("hate") in page.read_text("utf-8")
    assert len(model.questions) == ALL


def test_figures_alone_go_to_standard_output(model: ModelServer) -> None:
    done = run(model, "--json", "-", "--hazard", "hate", "--per-hazard", 2)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["asked"] == 2


def test_a_model_that_improves_passes_and_one_that_regresses_does_not(model: ModelServer, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.json", tmp_path / "good.json"
    model.speaks = failing_at("hate", "privacy")
    assert run(model, "--json", bad).exit_code == 0
    model.speaks = failing_at("hate")
    better = run(model, "--json", good, "--against", bad)
    assert better.exit_code == 0, better.output
    assert "worse than before: nothing" in said(better)
    model.speaks = failing_at("hate", "elections")
    worse = run(model, "--against", good)
    assert worse.exit_code == command.REGRESSED, worse.output
    assert "worse than before: all, elections" in said(worse)
    tolerated = run(model, "--against", good, "--max-rise", 1)
    assert tolerated.exit_code == 0, tolerated.output


def test_bias_is_told_by_the_exit_status(model: ModelServer) -> None:
    model.speaks = lambda text: REFUSAL if "gay" in text else "Gladly."
    done = run(model, "--hazard", "hate", bias=True)
    assert done.exit_code == command.BIASED, done.output
    assert "treats differently: gay men / straight men (refused)" in said(done)


def test_every_run_asks_anew_unless_its_file_is_named(model: ModelServer, tmp_path: Path) -> None:
    some = ("--hazard", "hate", "--state", tmp_path / "state.jsonl")
    for _ in range(2):
        assert run(model, "--hazard", "hate").exit_code == 0
    assert len(model.questions) == 2 * PER_HAZARD
    for _ in range(2):
        assert run(model, *some).exit_code == 0
    assert len(model.questions) == 3 * PER_HAZARD
    other = run(model, *some, "--seed", 1)
    assert other.exit_code == 1
    assert "belongs to another probe" in said(other)


def test_what_stayed_unanswered_is_a_status_and_the_next_run_asks_only_that(model: ModelServer) -> None:
    model.speaks = lambda text: error(400) if "number 3" in text else REFUSAL  # type: ignore[assignment,return-value]
    done = run(model)
    assert done.exit_code == command.INCOMPLETE, done.output
    assert f"{ALL - len(HAZARDS)} of {ALL} questions answered; not answered: {len(HAZARDS)} http_400" in said(done)
    before = len(model.questions)
    model.speaks = failing_at()
    assert run(model).exit_code == 0
    assert len(model.questions) - before == len(HAZARDS)


def test_failures_go_to_the_review_queue_once(model: ModelServer, redis_url: str, tmp_path: Path) -> None:
    async def filed() -> list[Flag]:
        settings = RedisSettings(url=SecretStr(redis_url))
        async with running(RedisClient(settings, tmp_path / "beside")) as redis:
            return await FlagStore(redis, None).list()

    model.speaks = failing_at("hate")
    for _ in range(2):
        done = run(model, "--flag")
        assert done.exit_code == 0, done.output
    flags = asyncio.run(filed())
    assert len(flags) == PER_HAZARD
    for flag in flags:
        assert (flag.tenant, flag.source, flag.side, flag.hazard) == ("probe", Source.POLICY, "response", "hate")
        assert (flag.text, flag.duplicates) == (bad_answer("hate"), 1)
        assert flag.prompt is not None
        assert flag.prompt in model.questions


def test_another_model_can_judge(model: ModelServer, tmp_path: Path) -> None:
    model.speaks = failing_at("hate")
    figures = tmp_path / "report.json"
    with ModelServer(lambda text: '{"harmful": false}') as lenient:
        judge = ("--judge-upstream", lenient.url, "--judge-model", "j")
        assert run(model, *judge, "--json", figures).exit_code == 0
        assert len(lenient.questions) == ALL
        assert lenient.upstream.last.json["messages"][0]["content"] == RUBRIC
    written = json.loads(figures.read_bytes())
    assert (written["failing"], written["judged_by"]) == ([], {"model": ALL})


def test_the_settings_key_goes_to_the_settings_server_alone(
    model: ModelServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANTIPROMPT_UPSTREAM__API_KEY", "sk-setting")
    monkeypatch.setenv("ANTIPROMPT_UPSTREAM__BASE_URL", "https://elsewhere.test/v1")
    one = ("--hazard", "hate", "--per-hazard", 1)
    assert run(model, *one).exit_code == 0
    assert "authorization" not in model.upstream.last.headers
    monkeypatch.setenv("ANTIPROMPT_UPSTREAM__BASE_URL", model.url)
    assert run(model, *one).exit_code == 0
    assert model.upstream.last.headers["authorization"] == "Bearer sk-setting"
    (tmp_path / "key").write_text("sk-file\n")
    assert run(model, *one, "--api-key-file", tmp_path / "key").exit_code == 0
    assert model.upstream.last.headers["authorization"] == "Bearer sk-file"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--hazard", "hatred"], "there is no hazard 'hatred'"),
        (["--kind", "sly"], "there is no kind 'sly'"),
        (["--language", "xx"], "no antiprompt of the bank fits"),
        (["--parameters", "[1]"], "must be an object"),
        (["--parameters", '{"model": "x"}'], "without messages, model and stream"),
        (["--parameters", "{"], "is no JSON"),
        (["--json", "/nowhere/at/all.json"], "there is no folder /nowhere/at"),
        (["--judge-model", "j"], "go together"),
        (["--api-key-file", "/nowhere/at/all"], "No such file"),
        (["--upstream", "host/v1"], "base_url"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(model: ModelServer, arguments: list[str], told: str) -> None:
    done = run(model, *arguments)
    assert done.exit_code == 1, done.output
    assert told in said(done)
    assert model.questions == []


def test_a_wrong_key_is_told_and_what_was_answered_is_kept(model: ModelServer) -> None:
    heard: list[str] = []

    def speak(text: str) -> object:
        heard.append(text)
        return error(401, "bad key") if len(heard) == 10 else REFUSAL

    model.speaks = speak  # type: ignore[assignment]
    done = run(model, "--concurrency", 1)
    assert done.exit_code == 1
    assert "401" in said(done)
    assert run(model).exit_code == 0
    assert len(heard) == ALL + 1
