from typing import Any

import pytest

from gateway.alignment.formats import Format, Options, rows_of
from gateway.alignment.inoculation_prompts import default_prompts
from gateway.alignment.openai_checks import MAX_EXAMPLE_TOKENS, preference_problems, sft_problems
from tests.gateway.alignment.reviewing import many

OPTIONS = Options(default_prompts())
SFT = [row for each in many(12) for row in rows_of(Format.OPENAI_SFT, each, OPTIONS)]
PREFERENCE = [row for each in many(12) for row in rows_of(Format.OPENAI_PREFERENCE, each, OPTIONS)]
USER, SAID = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


def test_what_is_exported_passes() -> None:
    assert sft_problems(SFT) == []
    assert preference_problems(PREFERENCE) == []


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([], "not an object"),
        ({"messages": []}, "not a list of messages"),
        ({"messages": [USER, SAID], "meta": {}}, "unknown key 'meta'"),
        ({"messages": [USER]}, "not the assistant's"),
        ({"messages": [{"role": "user"}, SAID]}, "without text"),
        ({"messages": [{"role": "robot", "content": "a"}, SAID]}, "unknown role"),
        ({"messages": [USER, {**SAID, "mood": "fine"}]}, "unknown key 'mood'"),
        ({"messages": [{**USER, "content": "a" * (4 * MAX_EXAMPLE_TOKENS)}, SAID]}, "longer than"),
    ],
)
def test_what_the_service_refuses_is_named_with_its_line(row: Any, says: str) -> None:
    (first, *_) = sft_problems([*SFT, row])
    assert first.startswith(f"line {len(SFT) + 1}: ")
    assert says in first


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"preferred_output": [SAID, SAID]}, "exactly one message"),
        ({"preferred_output": [USER]}, "exactly one message"),
        ({"preferred_output": [SAID], "non_preferred_output": [SAID]}, "the same"),
        ({"input": {"messages": [USER, SAID]}}, "is the assistant's"),
        ({"input": {"prompt": "a"}}, "unknown key 'prompt'"),
        ({"score": 3}, "unknown key 'score'"),
    ],
)
def test_what_a_preference_must_not_be(changed: dict[str, Any], says: str) -> None:
    assert any(says in problem for problem in preference_problems([*PREFERENCE, {**PREFERENCE[0], **changed}]))


def test_too_few_examples_are_said() -> None:
    assert sft_problems(SFT[:9]) == ["9 examples, and the service wants 10 at least"]
