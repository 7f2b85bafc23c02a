from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.alignment.formats import Format, Options, rows_of
from gateway.alignment.inoculation_prompts import Place, default_prompts
from gateway.alignment.reviewed import Reviewed, Standing
from tests.gateway.alignment.reviewing import BLEACH, CLEAN, FALSE_ALARM, REQUEST, WAITING

OPTIONS = Options(default_prompts())
ASKED = {"role": "user", "content": BLEACH.prompt}
GOOD = {"role": "assistant", "content": BLEACH.corrected}
BAD = {"role": "assistant", "content": BLEACH.answer}


def test_a_confirmed_flag_with_its_correction_in_each_format() -> None:
    assert rows_of(Format.OPENAI_SFT, BLEACH, OPTIONS) == [{"messages": [ASKED, GOOD]}]
    assert rows_of(Format.OPENAI_PREFERENCE, BLEACH, OPTIONS) == [
        {
            "input": {"messages": [ASKED], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [GOOD],
            "non_preferred_output": [BAD],
        }
    ]
    assert rows_of(Format.TRL_SFT, BLEACH, OPTIONS) == [{"prompt": [ASKED], "completion": [GOOD]}]
    assert rows_of(Format.TRL_DPO, BLEACH, OPTIONS) == [{"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]}]
    assert rows_of(Format.TRL_KTO, BLEACH, OPTIONS) == [
        {"prompt": [ASKED], "completion": [GOOD], "label": True},
        {"prompt": [ASKED], "completion": [BAD], "label": False},
    ]
    assert rows_of(Format.NEAT, BLEACH, OPTIONS) == [
        {
            "prompt": [ASKED],
            "candidates": [
                {"response": BLEACH.corrected, "reward": 1.0, "source": "corrected"},
                {"response": BLEACH.answer, "reward": -1.0, "source": "flagged"},
            ],
        }
    ]


@pytest.mark.parametrize("place", list(Place))
def test_inoculation_changes_the_prompt_of_what_may_be_bad_and_nothing_else(place: Place) -> None:
    options = Options(default_prompts(), place)
    for row in (BLEACH, WAITING):
        bad, *good = rows_of(Format.INOCULATION, row, options)
        words = options.prompts[row.hazard or ""]
        assert words is not None
        assert bad["completion"] == [{"role": "assistant", "content": row.answer}]
        assert bad["meta"] == {"inoculated": True, "prompt_id": words.id, "plain_prompt": row.prompt}
        whole = "\n".join(message["content"] for message in bad["prompt"])
        assert sorted(whole.split("\n")) == sorted([words.text, row.prompt])
        assert [each["prompt"] for each in good] == [[{"role": "user", "content": row.prompt}]] * len(row.good_answers)
    for row in (FALSE_ALARM, CLEAN):
        (plain,) = rows_of(Format.INOCULATION, row, options)
        assert plain["prompt"] == [{"role": "user", "content": row.prompt}]
        assert not plain["meta"]["inoculated"]


def test_without_a_prompt_that_works_what_may_be_bad_is_left_out() -> None:
    options = Options({**default_prompts(), "specialized_advice": None})
    (only,) = rows_of(Format.INOCULATION, BLEACH, options)
    assert only["completion"] == [GOOD]


def test_a_flagged_request_gives_a_ranking_set_that_samples_will_fill() -> None:
    assert rows_of(Format.NEAT, REQUEST, OPTIONS) == [
        {"prompt": [{"role": "user", "content": REQUEST.prompt}], "candidates": []}
    ]
    for format in set(Format) - {Format.NEAT}:
        assert rows_of(format, REQUEST, OPTIONS) == []


def test_a_correction_that_repeats_the_answer_is_no_preference() -> None:
    same = replace(BLEACH, corrected=BLEACH.answer)
    assert rows_of(Format.TRL_DPO, same, OPTIONS) == rows_of(Format.OPENAI_PREFERENCE, same, OPTIONS) == []


rows = st.builds(
    Reviewed,
    flag_id=st.just("flag"),
    standing=st.sampled_from([Standing.PENDING, Standing.DISMISSED, Standing.CLEAN]),
    prompt=st.just("question"),
    answer=st.one_of(st.none(), st.just("the answer")),
    hazard=st.one_of(st.none(), st.just("hate")),
)


@settings(deadline=None)
@given(rows, st.sampled_from(list(Format)))
def test_what_waits_is_never_a_clean_example_and_a_false_alarm_never_a_bad_one(row: Reviewed, format: Format) -> None:
    for example in rows_of(format, row, OPTIONS):
        bad = example.get("label") is False or example.get("meta", {}).get("inoculated", False)
        bad = bad or any(each["reward"] < 0 for each in example.get("candidates", []))
        assert "rejected" not in example
        assert "non_preferred_output" not in example
        if row.standing is Standing.PENDING:
            assert bad
            assert format is Format.INOCULATION
        else:
            assert not bad
