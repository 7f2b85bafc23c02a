"""Moderation requests of every form, and replies in OpenAI's exact form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import ModerationCreateResponse

from antiprompt_bank.hazards import HAZARDS, OPENAI_CATEGORIES
from gateway.errors import BadRequest
from gateway.wire.moderations import Moderations
from gateway.wire.places import read

ROUTE = Moderations()


def reply(*hits: set[str], risks: dict[str, float] | None = None, with_scores: bool = False) -> dict:
    made = ROUTE.reply([risks or {}] * len(hits), hits, model="antiprompt", reply_id="modr-1", with_scores=with_scores)
    ModerationCreateResponse.model_validate(made, strict=True)
    return made


@pytest.mark.parametrize(
    ("given_input", "found", "results"),
    [
        ("a", [(("input",), 0, 0)], 1),
        (["a", " ", "a"], [(("input", 0), 0, -1), (("input", 2), 2, -1)], 3),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "a"}],
         [(("input", 0, "text"), 0, 0), (("input", 1, "text"), 0, 0)], 1),
    ],
)  # fmt: skip
def test_each_text_knows_its_result(given_input, found, results):
    body = {"input": given_input}
    assert [(text.place, text.choice, text.turn) for text in ROUTE.read_request(body).texts] == found
    assert ROUTE.result_count(body) == results


def test_images_are_unreadable():
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    extracted = ROUTE.read_request({"input": [{"type": "text", "text": "a"}, image]})
    assert [(part.place, part.kind) for part in extracted.unreadable] == [(("input", 1), "image")]


@pytest.mark.parametrize(
    ("given_input", "param"),
    [
        (None, "input"),
        ([], "input"),
        ({"a": "b"}, "input"),
        (["a", 7], "input[1]"),
        ([{"type": "text", "text": 7}], "input[0].text"),
        ([{"type": "smell"}], "input[0].type"),
        ([{"type": "text", "text": "a"}, "b"], "input[1]"),
        ([7], "input[0]"),
    ],
)
def test_a_wrong_type_is_a_bad_request(given_input, param):
    with pytest.raises(BadRequest) as caught:
        ROUTE.read_request({"input": given_input})
    assert caught.value.param == param


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_input_is_read_or_is_a_bad_request(given_input):
    body = {"input": given_input}
    try:
        texts = ROUTE.read_request(body).texts
    except BadRequest:
        return
    assert all(read(body, text.place) == text.text and text.choice < ROUTE.result_count(body) for text in texts)


def test_a_clean_input_has_every_category_switched_off():
    (result,) = reply(set())["results"]
    assert not result["flagged"]
    assert result["categories"] == dict.fromkeys(OPENAI_CATEGORIES, False)
    assert result["category_scores"] == dict.fromkeys(OPENAI_CATEGORIES, 0.0)
    assert result["category_applied_input_types"] == {category: ["text"] for category in OPENAI_CATEGORIES}


@pytest.mark.parametrize("hazard", HAZARDS)
def test_a_hit_switches_on_the_categories_of_its_hazard_and_is_flagged_unless_it_is_a_signal(hazard):
    (result,) = reply({hazard})["results"]
    on = {category for category, hit in result["categories"].items() if hit}
    assert on == set(HAZARDS[hazard].openai)
    assert result["flagged"] is not HAZARDS[hazard].signal


def test_a_passage_that_nobody_could_read_flags_nothing_alone():
    assert reply({"unreadable"})["results"][0]["flagged"] is False
    assert reply({"unreadable", "hate"})["results"][0]["flagged"] is True


def test_scores_are_zero_or_one_unless_they_may_be_seen():
    risks = {"violent_crimes": 0.75, "non_violent_crimes": 0.25, "privacy": 0.5, "jailbreak": 0.9}
    hidden = reply({"violent_crimes"}, risks=risks)["results"][0]["category_scores"]
    assert {category for category, score in hidden.items() if score} == {"violence", "illicit/violent"}
    assert set(hidden.values()) == {0.0, 1.0}
    seen = reply({"violent_crimes"}, risks=risks, with_scores=True)["results"][0]["category_scores"]
    assert {category: score for category, score in seen.items() if score} == {
        "violence": 0.75,
        "illicit/violent": 0.75,
        "illicit": 0.5,
    }


def test_each_input_has_a_result_of_its_own():
    assert [result["flagged"] for result in reply({"hate"}, set(), {"elections"})["results"]] == [True, False, True]


def test_results_and_hits_must_match_and_hazards_must_be_known():
    with pytest.raises(ValueError):
        ROUTE.reply([{}], [], model="m", reply_id="modr-1", with_scores=False)
    with pytest.raises(KeyError):
        ROUTE.reply([{}], [{"boredom"}], model="m", reply_id="modr-1", with_scores=False)
