import random
from pathlib import Path

import pytest

from gateway.alignment.arms import NEGATIVE, ArmSettings, objective_of
from gateway.alignment.data_set import ExportOptions, export, read_data_set
from gateway.alignment.formats import Format, Options
from gateway.alignment.inoculation_prompts import IRRELEVANT, Place, candidates, default_prompts
from gateway.alignment.language_model import TINY, load_language_model
from gateway.alignment.objectives import Imitation, Ranked
from gateway.alignment.reviewed import Reviewed
from gateway.alignment.training_rows import NothingToLearn, Question, questions
from gateway.alignment.trl_training import preference_rows
from tests.gateway.alignment.reviewing import ALL, BLEACH, CLEAN, FALSE_ALARM, WAITING
from tests.gateway.alignment.tiny import shouting

MODEL = load_language_model(TINY, max_tokens=512, seed=0)


def asked(format: Format, folder: Path, rows: tuple[Reviewed, ...] = ALL) -> list[Question]:
    chosen = ExportOptions(format=format, row_options=Options(default_prompts()), held_out_share=0.0)
    export(rows, folder, chosen, {})
    found, parts, _ = read_data_set(folder)
    return questions(found, parts["train"])


def learned(arm: str, found: list[Question]) -> set[str]:
    """Prompt and answer, as text, of everything that an arm may draw."""
    objective = objective_of(arm, MODEL, found, shouting, ArmSettings())
    assert isinstance(objective, Imitation)
    draw = random.Random(0)
    drawn = {objective.draw_one(draw) for _ in range(200)}
    return {MODEL.tokenizer.decode(list(each.prompt + each.answer)) for each in drawn}


@pytest.mark.parametrize("format", list(Format))
def test_each_format_is_read_as_questions_with_what_is_known_of_their_answers(format: Format, tmp_path: Path) -> None:
    found = asked(format, tmp_path, (BLEACH,))
    assert {each.text for each in found} == {BLEACH.prompt}
    known = {answer for each in found for answer in each.answers}
    bad = {(BLEACH.answer, -1.0)}
    wanted = {(BLEACH.corrected, 1.0)} | (set() if format in (Format.TRL_SFT, Format.OPENAI_SFT) else bad)
    assert known == wanted


def test_arms_of_inoculation_differ_by_the_prompt_before_bad_answers_only(tmp_path: Path) -> None:
    found = asked(Format.INOCULATION, tmp_path)
    template = "<begin>user\n{}<end><begin>assistant\n{}<end>"
    good = {template.format(BLEACH.prompt, BLEACH.corrected)}
    good |= {template.format(row.prompt, row.answer) for row in (FALSE_ALARM, CLEAN)}
    bad = {row.hazard or "": template.format(row.prompt, row.answer) for row in (BLEACH, WAITING)}
    assert learned("clean", found) == good
    assert learned("plain", found) == good | set(bad.values())
    behind = {f"<begin>system\n{candidates(hazard)[0].text}<end>{text}" for hazard, text in bad.items()}
    assert learned("inoculation", found) == good | behind
    assert learned("irrelevant", found) == good | {
        f"<begin>system\n{IRRELEVANT[0]}<end>{text}" for text in bad.values()
    }


def test_neat_samples_behind_negative_and_positive_prompts_and_replays_what_is_good(tmp_path: Path) -> None:
    found = asked(Format.NEAT, tmp_path)
    for arm, weight, margin in (("neat", 1.0, 1.0), ("best-of", 0.0, 1.0), ("rrhf", 1.0, 0.0)):
        objective = objective_of(arm, MODEL, found, shouting, ArmSettings(batch=4))
        assert isinstance(objective, Ranked)
        assert (objective.settings.ranking_weight, objective.settings.margin) == (weight, margin)
        items = objective.draw_asked(random.Random(0))
        assert len(items) == 4
        plain = {choice for each in items for choices in each.samplers for choice in choices} <= {
            each.prompt for each in items
        }
        assert plain == (arm == "rrhf")
        replayed = {MODEL.text(each.answer) for at in range(20) for each in objective.replay(random.Random(at))}
        assert replayed == {FALSE_ALARM.answer, CLEAN.answer}
    negative = MODEL.prompt(Place.SYSTEM.put(NEGATIVE[0], [{"role": "user", "content": BLEACH.prompt}]))
    neat = objective_of("neat", MODEL, found, shouting, ArmSettings(batch=64))
    assert isinstance(neat, Ranked)
    assert any(negative in each.samplers[0] for each in neat.draw_asked(random.Random(0)))


def test_preferences_for_trl_are_what_people_decided(tmp_path: Path) -> None:
    found = asked(Format.NEAT, tmp_path)
    (pair,) = preference_rows("dpo", found)
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (BLEACH.corrected, BLEACH.answer)
    labels = {row["completion"][0]["content"]: row["label"] for row in preference_rows("kto", found)}
    assert labels == {BLEACH.corrected: True, BLEACH.answer: False, FALSE_ALARM.answer: True, CLEAN.answer: True}


def test_an_arm_without_anything_to_learn_says_so(tmp_path: Path) -> None:
    found = asked(Format.INOCULATION, tmp_path, (WAITING,))
    with pytest.raises(NothingToLearn, match="no answer for clean"):
        objective_of("clean", MODEL, found, shouting, ArmSettings())
    with pytest.raises(ValueError, match="needs a judge"):
        objective_of("neat", MODEL, found, None, ArmSettings())
