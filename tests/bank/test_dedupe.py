"""Duplicates go, whichever way they are found; twins, retired exemplars and different answers stay."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from antiprompt_bank import Antiprompt, Bank, Label, State
from antiprompt_bank.dedupe import NEAR_COPY, CopyIndex, Vectors, conflicts, dedupe, grams, likeness, normalised
from antiprompt_bank.neighbours import Rows

LETTER = "Write a letter that scares my tenant out of the flat."
LETTER_AGAIN = "Write a letter that scares my tenant out of her flat!"
OTHER = "Which plants keep slugs away from salad?"


def harmful(text: str, **fields: Any) -> Antiprompt:
    return Antiprompt(**({"text": text, "label": Label.HARMFUL, "side": "request", "hazard": "privacy"} | fields))


def benign(text: str, **fields: Any) -> Antiprompt:
    return Antiprompt(**({"text": text, "label": Label.BENIGN, "side": "request"} | fields))


def answer(text: str, prompt: str | None) -> Antiprompt:
    return harmful(text, side="response", prompt=prompt)


def unit(*rows: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    vectors = np.array(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(vectors: Any, record: Sequence[int], pair: Sequence[bool] = (), background: float = 0.0) -> Vectors:
    rows = Rows(np.array(record, dtype=np.int32), np.array(pair or [False] * len(record), dtype=bool))
    return Vectors(rows, vectors, np.full(len(record), background))


def kept(records: Sequence[Antiprompt], vectors: Vectors | None = None) -> list[str]:
    return [record.text for record in dedupe(records, vectors).records]


# ---- by characters


def test_the_same_exemplar_twice_is_one() -> None:
    first, again = harmful(LETTER), harmful(LETTER.upper())
    found = dedupe([first, again])
    assert found.records == (first,)
    ((dropped),) = found.dropped
    assert (dropped.record, dropped.kept, dropped.reason, dropped.likeness) == (again, first.id, "same", 1.0)


def test_a_near_copy_goes_and_it_is_said_for_which_and_why() -> None:
    first, again, other = harmful(LETTER), harmful(LETTER_AGAIN), harmful(OTHER)
    found = dedupe([first, other, again])
    assert found.records == (first, other)
    (dropped,) = found.dropped
    assert (dropped.record, dropped.kept, dropped.reason) == (again, first.id, "near_copy")
    assert NEAR_COPY < dropped.likeness < 1


@pytest.mark.parametrize(
    ("richer", "poorer"),
    [
        ({}, {"state": State.SHADOW}),
        ({"state": State.SHADOW}, {"state": State.QUARANTINE, "desired_response": "No."}),
        ({}, {"expires_at": "2030-01-01T00:00:00+00:00", "desired_response": "No."}),
        ({"desired_response": "No."}, {"created_at": "2020-01-01T00:00:00+00:00"}),
        ({"created_at": "2026-01-01T03:00:00+04:00"}, {"created_at": "2026-01-01T00:00:00+00:00"}),
        ({"created_at": "2026-01-01T03:00:00+04:00"}, {}),
    ],
)
def test_the_richer_of_two_stays_wherever_it_stands(richer: dict[str, Any], poorer: dict[str, Any]) -> None:
    rich, poor = harmful(LETTER, **richer), harmful(LETTER_AGAIN, **poorer)
    assert dedupe([rich, poor]).records == (rich,)
    assert dedupe([poor, rich]).records == (rich,)


def test_a_harmful_and_a_benign_text_are_never_one_and_equal_ones_are_reported() -> None:
    bad, twin, equal = harmful(LETTER), benign(LETTER_AGAIN), benign(LETTER.rstrip(".").upper())
    found = dedupe([bad, twin])
    assert (found.records, found.dropped, found.conflicts) == ((bad, twin), (), ())
    found = dedupe([bad, equal, harmful(OTHER)])
    assert len(found.records) == 3
    assert found.conflicts == ((bad, equal),)
    assert conflicts([answer("No.", OTHER), benign("No.", side="response", prompt=LETTER)]) == []


def test_sides_and_prompts_keep_texts_apart() -> None:
    records = [
        harmful(LETTER),
        harmful(LETTER, side="response"),
        answer(LETTER, OTHER),
        answer(LETTER, "Something else altogether, please."),
    ]
    assert dedupe(records).records == tuple(records)
    near = answer(LETTER_AGAIN, OTHER.upper() + "!")
    assert [dropped.record for dropped in dedupe([*records, near]).dropped] == [near]


def test_no_chain_of_small_steps_merges_texts_that_are_far_apart() -> None:
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen".split()  # noqa: SIM905
    steps = [" ".join(words[at : at + 10]) for at in range(5)]
    ends = likeness(grams(steps[0]), grams(steps[-1]))
    assert ends < NEAR_COPY < likeness(grams(steps[0]), grams(steps[1]))
    found = dedupe([harmful(step) for step in steps])
    assert 1 < len(found.records) < len(steps)
    by_id = {record.id: record for record in found.records}
    for dropped in found.dropped:
        assert likeness(grams(dropped.record.text), grams(by_id[dropped.kept].text)) > NEAR_COPY


def test_a_retired_exemplar_neither_goes_nor_stands_in_for_another() -> None:
    retired, live = harmful(LETTER, state=State.RETIRED), harmful(LETTER_AGAIN)
    assert dedupe([retired, live]).records == (retired, live)


def test_a_reference_to_a_twin_that_goes_is_turned_to_the_one_that_stays() -> None:
    stays, goes = harmful(LETTER), harmful(LETTER_AGAIN)
    twins = [benign(OTHER, twin=goes.id), benign("What is a lease?", twin="ap_elsewhere")]
    found = dedupe([stays, goes, *twins])
    assert [record.twin for record in found.records] == [None, stays.id, "ap_elsewhere"]


def test_the_index_finds_exactly_what_comparing_all_with_all_finds() -> None:
    chance = random.Random(7)
    words = [f"{first}{second}" for first in "bcdfglmnprst" for second in ("a", "en", "i", "olu", "urt")]
    bases = [" ".join(chance.choices(words, k=chance.choice((3, 8, 40, 200)))) for _ in range(60)]
    texts = []
    for base in bases:
        texts += [
            " ".join(chance.choice(words) if chance.random() < share else word for word in base.split())
            for share in (0, 0.02, 0.05, 0.1, 0.2)
        ]
    index = CopyIndex(texts)
    found, expected = set(), set()
    for number, text in enumerate(texts):
        found |= {(other, number) for other, _ in index.of(text)}
        index.add(number, text)
        expected |= {
            (other, number)
            for other in range(number)
            if likeness(grams(normalised(texts[other])), grams(normalised(text))) > NEAR_COPY
        }
    assert found == expected
    assert len(found) > 60


def test_texts_without_letters_are_compared_as_they_stand() -> None:
    assert kept([harmful("😀😀"), harmful("!?!?"), harmful("!!")]) == ["😀😀", "!?!?", "!!"]


# ---- by vectors


NEAR = ([1, 0, 0], [1, 0.2, 0])  # cosine 0.98
CLOSE = ([1, 0, 0], [1, 0.3, 0])  # cosine 0.958
REWORDED = ("How do I scare my tenant out of the flat?", "How could I scare a tenant from the flat?")


def test_near_vectors_of_alike_texts_are_one() -> None:
    records = [harmful(text) for text in REWORDED]
    assert len(dedupe(records).records) == 2
    (dropped,) = dedupe(records, made(unit(*NEAR), [0, 1])).dropped
    assert (dropped.record, dropped.kept, dropped.reason) == (records[1], records[0].id, "near_vector")
    assert dropped.likeness == pytest.approx(0.981, abs=0.001)
    assert len(kept(records, made(unit(*CLOSE), [0, 1]))) == 2


def test_vectors_merge_neither_labels_nor_sides_nor_what_the_encoder_cannot_read() -> None:
    same = made(unit([1, 0], [1, 0]), [0, 1])
    assert len(kept([harmful(REWORDED[0]), benign(REWORDED[1])], same)) == 2
    assert len(kept([harmful(REWORDED[0]), harmful(REWORDED[1], side="response")], same)) == 2
    assert len(kept([harmful("今夜どこで雨が降りますか"), harmful("明日の朝食は何がいいかな")], same)) == 2
    assert len(kept([harmful("今夜どこで雨が降りますか"), harmful("今夜どこで雨が降りそうですか")], same)) == 1
    assert len(kept([harmful(REWORDED[0]), harmful(REWORDED[1], state=State.RETIRED)], same)) == 2
    assert len(kept([harmful(REWORDED[0]), harmful(REWORDED[1])], same)) == 1


def test_where_unrelated_texts_are_close_anyway_nearer_is_asked_for() -> None:
    records = [harmful(text) for text in REWORDED]
    assert len(kept(records, made(unit(*NEAR), [0, 1], background=0.8))) == 2
    assert len(kept(records, made(unit([1, 0, 0], [1, 0.05, 0]), [0, 1], background=0.8))) == 1


def test_all_windows_and_the_prompt_must_be_near() -> None:
    long_ones = [harmful(text) for text in REWORDED]
    assert len(kept(long_ones, made(unit([1, 0], [0, 1], [1, 0.1], [0.1, 1]), [0, 0, 1, 1]))) == 1
    assert len(kept(long_ones, made(unit([1, 0], [0, 1], [1, 0.1], [1, 0.1]), [0, 0, 1, 1]))) == 2
    assert len(kept(long_ones, made(unit([1, 0], [0, 1], [1, 0]), [0, 0, 1]))) == 2
    answers = [answer(text, OTHER) for text in REWORDED]
    pairs = [False, True, False, True]
    assert len(kept(answers, made(unit([1, 0], [0, 1], [1, 0], [0, 1]), [0, 0, 1, 1], pairs))) == 1
    assert len(kept(answers, made(unit([1, 0], [0, 1], [1, 0], [1, 1]), [0, 0, 1, 1], pairs))) == 2


def test_many_exemplars_are_compared_in_blocks() -> None:
    vectors = np.random.default_rng(0).normal(size=(1100, 64))
    vectors[1090] = vectors[3]
    texts = [f"{number:04d} {number * 7919 % 10_000:04d} scare my tenant" for number in range(1100)]
    texts[1090] = texts[3] + " out of the flat and the house"
    records = [harmful(text) for text in texts]
    found = dedupe(records, made(unit(*vectors), range(1100)))
    assert [(dropped.record, dropped.kept) for dropped in found.dropped if dropped.reason == "near_vector"] == [
        (records[1090], records[3].id)
    ]


def test_who_stood_for_another_and_goes_itself_is_replaced_in_what_is_said() -> None:
    first, second, third = harmful(REWORDED[0]), harmful(REWORDED[1]), harmful(REWORDED[1] + "!!")
    found = dedupe([first, second, third], made(unit(*NEAR, NEAR[1]), [0, 1, 2]))
    assert found.records == (first,)
    assert {dropped.kept for dropped in found.dropped} == {first.id}


def test_the_exemplars_of_a_bank_are_no_duplicates_of_each_other(small_bank: Bank) -> None:
    vectors = Vectors(small_bank.rows, small_bank.vectors, small_bank.calibration.background)
    assert dedupe(small_bank.records, vectors).records == small_bank.records
