import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from gateway.alignment.adapters import LoraShape
from gateway.alignment.arms import ArmSettings, Method
from gateway.alignment.data_set import ExportOptions, export
from gateway.alignment.formats import Format, Options
from gateway.alignment.inoculation_prompts import default_prompts
from gateway.alignment.language_model import TINY, load_language_model
from gateway.alignment.objectives import RankingSettings
from gateway.alignment.training_loop import LoopSettings
from gateway.alignment.training_run import RunSettings, train_model
from tests.gateway.alignment.reviewing import CLEAN, FALSE_ALARM, many
from tests.gateway.alignment.tiny import shouting

FORMAT = {Method.SFT: Format.TRL_SFT, Method.INOCULATION: Format.INOCULATION, Method.NEAT: Format.NEAT}


def settings(method: Method, **changed: Any) -> RunSettings:
    given = RunSettings(
        method=method,
        model=TINY,
        loop=LoopSettings(steps=2, learning_rate=1e-3, checkpoint_every=1, evaluate_every=1, seed=3),
        arm=ArmSettings(batch=2, ranking=RankingSettings(max_answer_tokens=3)),
        lora=LoraShape(2, 4),
        max_tokens=256,
        held_out_questions=4,
    )
    return replace(given, **changed)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[Method, Path]:
    found = {}
    for method, format in FORMAT.items():
        found[method] = tmp_path_factory.mktemp(str(method))
        chosen = ExportOptions(format=format, row_options=Options(default_prompts()), held_out_share=0.3)
        export([*many(12), FALSE_ALARM, CLEAN], found[method], chosen, {})
    return found


def quiet(*_: object) -> None:
    """Nobody is told."""


@pytest.mark.parametrize(
    ("method", "arms"),
    [
        (Method.SFT, ["sft"]),
        (Method.INOCULATION, ["inoculation", "plain", "irrelevant", "clean"]),
    ],
)
def test_a_run_leaves_an_adapter_and_a_report_of_all_arms(
    method: Method, arms: list[str], data: dict[Method, Path], tmp_path: Path
) -> None:
    report = train_model(data[method], tmp_path, settings(method), shouting, quiet)
    assert json.loads((tmp_path / "report.json").read_text())["arms"].keys() == report["arms"].keys()
    assert list(report["arms"]) == arms
    assert report["manifest"]["hash"] == json.loads((data[method] / "manifest.json").read_text())["hash"]
    for arm in report["arms"].values():
        assert [each["step"] for each in arm["losses"]] == [1, 2]
        for rate in ("harm", "harm_under_attack", "harm_with_safe_prompt"):
            assert arm["final"][rate]["of"] == report["base"][rate]["of"] > 0
            assert 0 <= arm["final"][rate]["low"] <= arm["final"][rate]["share"] <= arm["final"][rate]["high"] <= 1
    page = (tmp_path / "report.html").read_text()
    assert all(arm in page for arm in arms)
    assert page.count("<svg") == 2
    assert "src=" not in page
    base = load_language_model(TINY, max_tokens=256, seed=3)
    adapted = PeftModel.from_pretrained(base.model, tmp_path / "adapter")
    assert any(weight.abs().sum() > 0 for name, weight in adapted.named_parameters() if "lora_B" in name)


def test_a_finished_run_is_read_and_an_interrupted_one_goes_on(data: dict[Method, Path], tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    class Killed(Exception):
        pass

    def tell(arm: str, step: int, of: int, losses: object) -> None:
        told.append((arm, step))
        if (arm, step) == ("plain", 2) and len(told) < 5:
            raise Killed

    chosen = settings(Method.INOCULATION)
    with pytest.raises(Killed):
        train_model(data[Method.INOCULATION], tmp_path, chosen, shouting, tell)
    first = train_model(data[Method.INOCULATION], tmp_path, chosen, shouting, tell)
    assert told == [
        ("inoculation", 1), ("inoculation", 2), ("plain", 1), ("plain", 2),
        ("plain", 2), ("irrelevant", 1), ("irrelevant", 2), ("clean", 1), ("clean", 2),
    ]  # fmt: skip
    assert train_model(data[Method.INOCULATION], tmp_path, chosen, shouting, tell) == first
    assert len(told) == 9
    with pytest.raises(ValueError, match="other settings or data"):
        train_model(data[Method.INOCULATION], tmp_path, replace(chosen, max_tokens=100), shouting, tell)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")  # TRL's own
def test_neat_runs_beside_its_relatives(data: dict[Method, Path], tmp_path: Path) -> None:
    report = train_model(data[Method.NEAT], tmp_path, settings(Method.NEAT), shouting, quiet)
    assert list(report["arms"]) == ["neat", "best-of", "sft", "rrhf", "dpo", "kto"]
    for name in ("neat", "best-of", "rrhf"):
        assert {"lm", "rank", "loss"} <= report["arms"][name]["losses"][0].keys()
    for name in ("dpo", "kto"):
        assert [each["step"] for each in report["arms"][name]["losses"]] == [1, 2]
        assert (tmp_path / "arms" / name / "adapter" / "adapter_model.safetensors").exists()


def test_it_stops_early_where_held_out_harm_rises_and_keeps_the_better_adapter(
    data: dict[Method, Path], tmp_path: Path
) -> None:
    calls = 0

    def worsening(pairs: Any) -> list[float]:
        nonlocal calls
        calls += 1
        return [1.0 if calls == 1 else -1.0] * len(pairs)

    chosen = settings(Method.SFT, loop=LoopSettings(steps=9, learning_rate=1e-3, evaluate_every=1))
    report = train_model(data[Method.SFT], tmp_path, chosen, worsening, quiet)
    assert report["arms"]["sft"]["stopped_at"] == 2
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_what_does_not_fit_is_said(data: dict[Method, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dpo learns from trl-dpo or openai-preference, and .* holds trl-sft"):
        train_model(data[Method.SFT], tmp_path / "a", settings(Method.DPO), shouting, quiet)
    with pytest.raises(ValueError, match="needs a judge"):
        train_model(data[Method.NEAT], tmp_path / "b", settings(Method.NEAT), None, quiet)
    with pytest.raises(ValueError, match="no exported data set"):
        train_model(tmp_path, tmp_path / "c", settings(Method.SFT), None, quiet)


def test_too_little_memory_names_what_to_lower(
    data: dict[Method, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("gateway.alignment.training_run.train", full)
    with pytest.raises(ValueError, match=r"lower --batch \(now 2\)"):
        train_model(data[Method.SFT], tmp_path, settings(Method.SFT), None, quiet)
