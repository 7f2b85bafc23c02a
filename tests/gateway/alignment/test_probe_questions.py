from dataclasses import replace

import pytest

from antiprompt_bank import HAZARDS, Antiprompt, Label, State
from gateway.alignment.probe_pairs import CONTRASTS, REQUESTS, bias_questions, blinded
from gateway.alignment.probe_questions import Sample, sampled
from tests.gateway.alignment.probing import HAZARDS as PROBED
from tests.gateway.alignment.probing import PER_HAZARD, question, records


def harmful(text: str, **fields: object) -> Antiprompt:
    values = {"side": "request", "hazard": "hate", **fields}
    return Antiprompt(text=text, label=Label.HARMFUL, **values)  # type: ignore[arg-type]


def texts(found: list[Antiprompt], **sample: object) -> set[str]:
    return {each.text for each in sampled(found, Sample(**sample))}  # type: ignore[arg-type]


def test_every_harmful_request_is_asked_hazard_by_hazard() -> None:
    found = sampled(records(), Sample())
    assert {each.text for each in found} == {question(hazard, n) for hazard in PROBED for n in range(PER_HAZARD)}
    order = [list(HAZARDS).index(each.hazard or "") for each in found]
    assert order == sorted(order)


def test_what_a_harmful_answer_answered_is_asked_once() -> None:
    answers = [harmful(text, side="response", prompt="may I drink it", hazard="specialized_advice") for text in "ab"]
    (asked,) = sampled(answers, Sample())
    assert (asked.text, asked.hazard, asked.kind) == ("may I drink it", "specialized_advice", "plain")


def test_what_is_benign_retired_or_expired_is_not_asked() -> None:
    benign = Antiprompt(text="a", label=Label.BENIGN, side="request")
    gone = [replace(harmful("b"), state=State.RETIRED), harmful("c", expires_at="2020-01-01T00:00:00+00:00")]
    assert texts([benign, *gone, harmful("d")]) == {"d"}


def test_a_sample_is_the_same_for_one_seed_whatever_else_is_in_the_bank() -> None:
    few = records()
    more = [*reversed(few), *(harmful(f"other {n}", hazard="prompt_leak") for n in range(9))]
    one = texts(few, per_hazard=2, seed=3)
    assert len(one) == 2 * len(PROBED)
    assert one <= texts(more, per_hazard=2, seed=3)
    assert one != texts(few, per_hazard=2, seed=4)


def test_a_sample_can_be_narrowed() -> None:
    found = [
        harmful("mild", severity=1),
        harmful("grave", severity=4),
        harmful("anders", language="de"),
        harmful("unclear", kind="ambiguous"),
        harmful("private", hazard="privacy"),
    ]
    assert texts(found, severity_at_least=4) == {"grave"}
    assert texts(found, languages=("de",)) == {"anders"}
    assert texts(found, kinds=("ambiguous",)) == {"unclear"}
    assert texts(found, hazards=("privacy",)) == {"private"}
    assert texts(found, kinds=("plain",), hazards=("hate",)) == {"mild", "grave", "anders"}


@pytest.mark.parametrize(
    "sample", [{"hazards": ("hatred",)}, {"kinds": ("sly",)}, {"per_hazard": 0}, {"severity_at_least": 5}]
)
def test_a_sample_of_what_does_not_exist_is_refused(sample: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Sample(**sample)  # type: ignore[arg-type]


def test_pairs_differ_in_the_group_alone() -> None:
    questions, pairs = bias_questions()
    text = {each.id: each.text for each in questions}
    assert len(pairs) == len(CONTRASTS) * len(REQUESTS)
    for pair in pairs:
        one, other = text[pair.question], text[pair.other]
        assert one != other
        assert blinded(one) == blinded(other)
        group = pair.contrast.group, pair.contrast.other
        assert one.replace(group[0].one, group[1].one).replace(group[0].many, group[1].many) == other


def test_every_contrast_can_be_found_even_after_correcting_for_all() -> None:
    """With all pairs on one side, the exact test of one contrast must be able to pass Holm's first bound."""
    assert 2 / 2 ** len(REQUESTS) * 2 * len(CONTRASTS) < 0.01


@pytest.mark.parametrize(
    ("text", "neutral"),
    [
        ("A woman said that women vote.", "a person said that people vote."),
        ("He is an immigrant, she is a local.", "they is a person, they is a person."),
        ("non-disabled people and old people", "people and people"),
        ("A Muslim's shop, the Muslims' mosque", "a person's shop, the people' mosque"),
        ("The theme of the chess manual", "The theme of the chess manual"),
    ],
)
def test_whoever_judges_does_not_see_the_group(text: str, neutral: str) -> None:
    assert blinded(text) == neutral
