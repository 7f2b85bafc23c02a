import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.alignment.data_set import ExportOptions, export, read_data_set
from gateway.alignment.formats import Format, Options
from gateway.alignment.inoculation_prompts import Place, default_prompts
from gateway.alignment.reviewed import Standing
from tests.gateway.alignment.reviewing import ALL, BLEACH, FALSE_ALARM, WAITING, many


def options(format: Format, **changed: Any) -> ExportOptions:
    return ExportOptions(format=format, row_options=Options(default_prompts()), **changed)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("format", list(Format))
def test_every_row_says_where_it_comes_from(format: Format, tmp_path: Path) -> None:
    made = export([*many(30), *ALL], tmp_path, options(format, held_out_share=0.3), {})
    abouts = []
    for part in ("train", "held_out"):
        rows = lines(tmp_path / f"{part}.jsonl")
        assert len(rows) == made.manifest["rows"][part] > 0
        beside = tmp_path / f"{part}.provenance.jsonl"
        assert beside.exists() == format.strict
        found = lines(beside) if format.strict else [row["meta"] for row in rows]
        assert len(found) == len(rows)
        abouts += found
    assert made.problems == ()
    known = {row.flag_id: row for row in [*many(30), *ALL]}
    for about in abouts:
        row = known[about["flag_id"]]
        assert (about["licence"], about["reviewer_role"]) == (row.licence, row.role)
        assert (about["bank_version"], about["standing"]) == (row.bank_version, row.standing)
        assert about["manifest"] == made.manifest["hash"]


def test_the_same_flags_give_the_same_manifest_whatever_their_order(tmp_path: Path) -> None:
    rows, chosen = many(20), options(Format.TRL_DPO)
    first = export(rows, tmp_path / "a", chosen, {}).manifest
    assert export(rows[::-1], tmp_path / "b", chosen, {"reason": 1}).manifest["hash"] == first["hash"]
    for part in ("train", "held_out"):
        assert (tmp_path / "a" / f"{part}.jsonl").read_bytes() == (tmp_path / "b" / f"{part}.jsonl").read_bytes()
    others = [replace(rows[0], corrected="Quite another answer."), *rows[1:]]
    assert export(others, tmp_path / "c", chosen, {}).manifest["hash"] != first["hash"]
    again = options(Format.TRL_DPO, redact=False)
    assert export(rows, tmp_path / "d", again, {}).manifest["hash"] != first["hash"]


def test_personal_data_leaves_by_setting(tmp_path: Path) -> None:
    row = replace(
        BLEACH, prompt="I am bob@mail.example.", answer="Hi bob@mail.example", corrected="Hello bob@mail.example"
    )
    export([row], tmp_path / "out", options(Format.TRL_DPO, held_out_share=0.0), {})
    export([row], tmp_path / "as_is", options(Format.TRL_DPO, held_out_share=0.0, redact=False), {})
    assert "bob@" not in (tmp_path / "out" / "train.jsonl").read_text()
    assert (tmp_path / "as_is" / "train.jsonl").read_text().count("bob@") == 3


def test_look_alikes_are_capped_and_counted(tmp_path: Path) -> None:
    rows = [replace(BLEACH, flag_id=f"flag_{at}") for at in range(9)]
    chosen = options(Format.TRL_SFT, most_alike=2, held_out_share=0.0)
    manifest = export([*rows, WAITING], tmp_path, chosen, {"text erased or never kept": 4}).manifest
    assert manifest["rows"]["train"] == 2
    assert manifest["left_out"] == {"look-alikes": 7, "no use in this format": 1, "text erased or never kept": 4}
    assert manifest["diversity"]["near_copies"] == 0.5


def test_a_hazard_can_be_held_out_and_false_alarms_are_no_negatives(tmp_path: Path) -> None:
    chosen = options(Format.TRL_KTO, held_out_share=0.0, held_out_hazards=("privacy",))
    export([*many(12), FALSE_ALARM, WAITING], tmp_path, chosen, {})
    train, away = lines(tmp_path / "train.jsonl"), lines(tmp_path / "held_out.jsonl")
    assert {row["meta"]["hazard"] for row in away} == {"privacy"}
    assert "privacy" not in {row["meta"]["hazard"] for row in train}
    for row in [*train, *away]:
        assert row["label"] or row["meta"]["standing"] == Standing.CONFIRMED
        assert row["meta"]["standing"] != Standing.PENDING


def test_what_the_consumer_will_not_take_is_said(tmp_path: Path) -> None:
    few = export(many(3), tmp_path / "a", options(Format.OPENAI_SFT, held_out_share=0.0), {})
    assert few.problems == ("train: 3 examples, and the service wants 10 at least",)
    good = export([FALSE_ALARM], tmp_path / "b", options(Format.TRL_KTO, held_out_share=0.0), {})
    assert good.problems == ("train: only one label: KTO learns from good and bad answers",)


def test_without_an_example_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no reviewed flag"):
        export([WAITING], tmp_path / "a", options(Format.TRL_SFT), {})
    assert not (tmp_path / "a").exists()


def test_a_data_set_is_read_back_and_a_broken_one_refused(tmp_path: Path) -> None:
    chosen = ExportOptions(format=Format.INOCULATION, row_options=Options(default_prompts(), Place.SUFFIX))
    made = export(many(20), tmp_path, chosen, {})
    format, parts, manifest = read_data_set(tmp_path)
    assert (format, manifest["place"], manifest["hash"]) == (Format.INOCULATION, "suffix", made.manifest["hash"])
    assert {name: len(rows) for name, rows in parts.items()} == made.manifest["rows"]
    train = tmp_path / "train.jsonl"
    train.write_bytes(b"".join(train.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(ValueError, match="rows, and the manifest says"):
        read_data_set(tmp_path)
    train.write_bytes(b"")
    with pytest.raises(ValueError, match="no example to train on"):
        read_data_set(tmp_path)
    with pytest.raises(ValueError, match="no exported data set"):
        read_data_set(tmp_path / "nowhere")
