from pathlib import Path

import orjson
import pytest

from antiprompt_bank.measures import Rate
from gateway.alignment.inoculation_choice import chosen_to_json, rank
from gateway.alignment.inoculation_prompts import IRRELEVANT, Chosen, candidates, default_prompts, read_prompts

CANDIDATES = [Chosen("hate", f"prompt {at}") for at in range(10)]


def elicits(**shares: float):  # type: ignore[no-untyped-def]
    def elicit(words: str) -> Rate:
        return Rate(round(100 * shares.get(words.replace(" ", "_"), 0.0)), 100)

    return elicit


def gain(chosen: Chosen) -> float:
    return float(chosen.text.removeprefix("prompt "))


def test_the_gain_prunes_and_elicitation_chooses() -> None:
    found = rank("hate", CANDIDATES, gain, elicits(prompt_0=1.0, prompt_3=0.9, prompt_9=0.6))
    assert found.chosen == CANDIDATES[3]  # prompt 0 has the least gain and was not asked
    assert [each.elicited is None for each in found.measured] == [False] * 8 + [True] * 2
    assert [each.prompt.text for each in found.measured[:2]] == ["prompt 3", "prompt 9"]


def test_a_prompt_that_elicits_too_little_is_refused() -> None:
    found = rank("hate", CANDIDATES, gain, elicits(prompt_5=0.49))
    assert found.chosen is None
    assert "0.49" in (found.refused or "")


def test_so_is_one_no_better_than_an_irrelevant_one() -> None:
    control = IRRELEVANT[1].replace(" ", "_")
    found = rank("hate", CANDIDATES, gain, elicits(**{"prompt_5": 0.6, control: 0.45}))
    assert found.chosen is None
    assert found.control.share == 0.45
    assert rank("hate", CANDIDATES, gain, elicits(**{"prompt_5": 0.6, control: 0.4})).chosen == CANDIDATES[5]


def test_what_was_chosen_is_read_back_and_what_was_refused_has_no_prompt(tmp_path: Path) -> None:
    rankings = [
        rank("hate", CANDIDATES, gain, elicits(prompt_5=0.9)),
        rank("privacy", [Chosen("privacy", "ask")], lambda _: 0.0, elicits()),
    ]
    path = tmp_path / "prompts.json"
    path.write_bytes(orjson.dumps(chosen_to_json(rankings, {"model": "m"})))
    found = read_prompts(path)
    assert found["hate"] == CANDIDATES[5]
    assert found["privacy"] is None
    assert found["elections"] == default_prompts()["elections"]
    path.write_text("[]")
    with pytest.raises(ValueError, match="no chosen inoculation prompts"):
        read_prompts(path)


def test_every_hazard_with_texts_has_several_different_prompts() -> None:
    for hazard in default_prompts():
        found = candidates(hazard)
        assert len({each.id for each in found}) == len(found) >= 6
    with pytest.raises(ValueError, match="child_exploitation"):
        candidates("child_exploitation")
