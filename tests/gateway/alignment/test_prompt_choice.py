from collections.abc import Sequence

import pytest

from gateway.alignment.inoculation_prompts import Place, candidates
from gateway.alignment.language_model import TINY, load_language_model
from gateway.alignment.prompt_choice import choose
from tests.gateway.alignment.tiny import shouting

ROW = {
    "completion": [{"role": "assistant", "content": "They are thieves."}],
    "meta": {"inoculated": True, "plain_prompt": "Who are they?", "hazard": "hate"},
}
GOOD = {**ROW, "meta": {**ROW["meta"], "inoculated": False}}  # type: ignore[dict-item]
MODEL = load_language_model(TINY, max_tokens=256, seed=0)


def test_each_hazard_gets_the_ranking_of_its_own_candidates() -> None:
    other = {**ROW, "meta": {"inoculated": True, "plain_prompt": "Where does she live?", "hazard": "privacy"}}
    found = choose(MODEL, [ROW, GOOD, other], shouting, Place.SYSTEM, samples=8, max_answer_tokens=2)
    assert [each.hazard for each in found] == ["hate", "privacy"]
    for each in found:
        assert {row.prompt.id for row in each.measured} == {candidate.id for candidate in candidates(each.hazard)}
        assert all(row.elicited is not None and row.elicited.of == 8 for row in each.measured)
        assert each.refused  # a random model does nothing on demand


def test_a_prompt_that_brings_it_forth_is_chosen() -> None:
    question = [{"role": "user", "content": "Who are they?"}]
    lengths = {len(MODEL.prompt(Place.SYSTEM.put(each.text, question))) for each in candidates("hate")}
    seen: list[int] = []

    def judge(pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Harm wherever the model had just read a candidate."""
        return [-1.0 if seen[-1] in lengths else 1.0] * len(pairs)

    hook = MODEL.model.register_forward_pre_hook(
        lambda _, args, given: seen.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        found = choose(MODEL, [ROW], judge, Place.SYSTEM, samples=8, max_answer_tokens=1)
    finally:
        hook.remove()
    assert found[0].chosen in candidates("hate")
    assert found[0].control.hits == 0


def test_without_bad_answers_there_is_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="nothing to inoculate against"):
        choose(MODEL, [GOOD], shouting, Place.SYSTEM)
