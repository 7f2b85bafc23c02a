from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from antiprompt_bank import Antiprompt, Label
from antiprompt_bank.neighbours import FARTHEST, PROMPT_SHARE, Neighbours, Rows, Shelves, paired


def unit(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def requests(count: int) -> list[Antiprompt]:
    return [Antiprompt(text=f"text {n}", label=Label.HARMFUL, side="request", hazard="hate") for n in range(count)]


def answer(text: str, prompt: str | None) -> Antiprompt:
    return Antiprompt(text=text, label=Label.HARMFUL, side="response", hazard="hate", prompt=prompt)


def rows(record: list[int], pair: list[bool]) -> Rows:
    return Rows(np.array(record, dtype=np.int32), np.array(pair, dtype=bool))


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_neighbours_are_ranked_by_how_far_they_stand_out_from_their_background(seed: int, count: int) -> None:
    stored, asked = unit(seed, count), unit(seed + 1, 3)
    background = np.random.default_rng(seed).uniform(0, 0.9, count)
    shelves = Shelves(
        requests(count), rows(list(range(count)), [False] * count), stored, background, np.ones(count, dtype=bool)
    )
    found, none = shelves.find("request", asked, count=4)
    similarity = asked @ stored.T
    closeness = np.clip((similarity - background) / (1 - background), FARTHEST, 1.0)
    for window in range(3):
        known = found.record[window] >= 0
        at = found.record[window][known]
        np.testing.assert_allclose(found.closeness[window][known], closeness[window][at], atol=1e-4)
        assert known.sum() == min(4, count)
        assert np.sort(closeness[window])[::-1][: known.sum()].sum() <= closeness[window][at].sum() + 1e-4
        raw = closeness[window][at] > FARTHEST
        np.testing.assert_allclose(found.similarity[window][known][raw], similarity[window][at][raw], atol=1e-4)
    assert (none.record == -1).all()


def test_a_record_of_several_windows_is_one_neighbour() -> None:
    stored = unit(0, 4)
    shelves = Shelves(requests(2), rows([0, 0, 0, 1], [False] * 4), stored, np.zeros(4), np.array([True, True]))
    found, _ = shelves.find("request", stored[:1], count=3)
    assert sorted(found.record[0].tolist()) == [-1, 0, 1]
    assert found.record[0, 0] == 0
    assert found.similarity[0, 0] > 0.999


def test_records_that_do_not_decide_are_not_found() -> None:
    stored = unit(0, 2)
    shelves = Shelves(requests(2), rows([0, 1], [False] * 2), stored, np.zeros(2), np.array([False, True]))
    found, _ = shelves.find("request", stored[:1], count=2)
    assert found.record.tolist() == [[1, -1]]
    assert found.similarity[0, 1] == -1.0


def test_each_exemplar_is_compared_in_the_form_in_which_it_was_stored() -> None:
    records = [answer("with", "prompt"), answer("without", None)]
    stored = unit(0, 3)  # the answer of record 0, its prompt, the answer of record 1
    shelves = Shelves(records, rows([0, 0, 1], [False, True, False]), stored, np.zeros(3), np.array([True, True]))

    alone, _ = shelves.find("response", stored[:1], count=2)
    assert alone.similarity[0, 0] > 0.999
    assert alone.record[0, 0] == 0

    # With a prompt, an exemplar that has one is never compared alone: the same answer to another question is less near.
    known, _ = shelves.find("response_with_prompt", stored[:1], paired(stored[2:3], stored[:1]), count=2)
    assert known.similarity.max() < 0.99
    same, _ = shelves.find("response_with_prompt", stored[:1], paired(stored[1:2], stored[:1]), count=2)
    assert same.record[0, 0] == 0
    np.testing.assert_allclose(same.similarity[0, 0], 1.0, atol=1e-5)
    without, _ = shelves.find("response_with_prompt", stored[2:3], paired(stored[1:2], stored[2:3]), count=2)
    assert without.record[0, 0] == 1
    np.testing.assert_allclose(without.similarity[0, 0], 1.0, atol=1e-5)


def test_a_pair_mixes_the_likeness_of_prompts_and_of_answers() -> None:
    first, second = unit(1, 4), unit(2, 4)
    mixed = paired(first[:2], second[:2]) @ paired(first[2:], second[2:]).T
    expected = PROMPT_SHARE * (first[:2] @ first[2:].T) + (1 - PROMPT_SHARE) * (second[:2] @ second[2:].T)
    np.testing.assert_allclose(mixed, expected, atol=1e-5)


def test_a_prompts_row_knows_the_answers_window_that_it_belongs_to() -> None:
    # A record of two windows without a prompt, one of two with a prompt, one of one with a prompt.
    made = rows([0, 0, 1, 1, 1, 1, 2, 2], [False, False, False, False, True, True, False, True])
    assert made.answer.tolist() == [0, 1, 2, 3, 2, 3, 6, 6]


def test_those_left_out_make_room_for_the_next() -> None:
    found = Neighbours(np.array([[0.9, 0.8, 0.7]]), np.array([[0.9, 0.8, 0.7]]), np.array([[5, 6, 7]]), np.array([0.6]))
    best = found.best(2, without=np.array([[True, False, False]]))
    assert best.record.tolist() == [[6, 7]]
    assert best.closeness.tolist() == [[0.8, 0.7]]


def test_a_long_exemplar_does_not_make_the_others_far() -> None:
    """Six windows of one record are nearest: the places they leave empty are as near as the last of them at most."""
    found = Neighbours(
        np.array([[0.9, 0.88, 0.86, 0.84]]),
        np.array([[0.9, 0.88, 0.86, 0.84]]),
        np.array([[5, 5, 5, 6]]),
        np.array([0.84]),
    )
    best = found.best(4)
    assert best.record.tolist() == [[5, 6, -1, -1]]
    assert best.closeness.tolist() == [[0.9, 0.84, 0.84, 0.84]]
    assert best.similarity.tolist() == [[0.9, 0.84, -1.0, -1.0]]
    assert found.best(1).beyond.tolist() == [0.84]


def test_where_there_is_nothing_more_nothing_is_near() -> None:
    found = Neighbours(np.array([[0.9, 0.8]]), np.array([[0.9, 0.8]]), np.array([[5, 5]]), np.array([FARTHEST]))
    assert found.best(2).closeness.tolist() == [[0.9, FARTHEST]]
