from __future__ import annotations

from dataclasses import replace

import numpy as np

from antiprompt_bank import Antiprompt, Bank, Label, State, build_bank
from antiprompt_bank.building import _families
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.neighbours import NEIGHBOURS

from .conftest import DRINK, HEADACHE, MOMENT


def request(text: str, **fields: str) -> Antiprompt:
    return Antiprompt(text=text, label=Label.HARMFUL, side="request", hazard="hate", **fields)  # type: ignore[arg-type]


def test_an_answer_with_a_prompt_has_a_row_for_each_of_the_two(small_bank: Bank) -> None:
    at = next(at for at, record in enumerate(small_bank.records) if record.text == DRINK)
    mine = small_bank.rows.record == at
    assert small_bank.rows.pair[mine].tolist() == [False, True]
    encoder = small_bank.encoder
    answer, prompt = encoder.tokenize(DRINK).ids, encoder.tokenize(HEADACHE).ids
    expected = encoder.encode([answer, prompt])
    np.testing.assert_allclose(small_bank.vectors[mine], expected, atol=1e-3)


def test_the_same_exemplar_given_twice_is_one_record_and_the_first_counts(encoder: Encoder) -> None:
    bank = build_bank([request("a b", severity=4), request("A  B"), request("c")], encoder)  # type: ignore[arg-type]
    assert [(record.text, record.severity) for record in bank.records] == [("a b", 4), ("c", 2)]


def test_records_of_every_state_are_encoded_so_that_a_change_of_state_needs_no_encoder(
    exemplars: list[Antiprompt], encoder: Encoder, small_bank: Bank
) -> None:
    bank = build_bank([replace(record, state=State.SHADOW) for record in exemplars], encoder, created_at=MOMENT)
    np.testing.assert_allclose(bank.vectors, small_bank.vectors, atol=1e-3)


def test_progress_is_told_up_to_the_end(exemplars: list[Antiprompt], encoder: Encoder) -> None:
    told: list[tuple[int, int]] = []
    bank = build_bank(exemplars, encoder, progress=lambda done, total: told.append((done, total)))
    texts = len(np.unique(bank.vectors, axis=0))  # two answers to one prompt share its vector
    assert told[-1] == (texts, texts)
    assert told == sorted(told)


def test_twins_and_families_are_left_out_together() -> None:
    first, second = request("first", family="one"), request("second", family="one")
    twin = request("twin", twin=first.id)
    of_twin = request("variant of the twin", twin=twin.id)
    alone, other = request("alone"), request("other", family="two")
    numbers = _families([alone, first, second, twin, of_twin, other])
    assert len(set(numbers[1:5].tolist())) == 1
    assert len(set(numbers.tolist())) == 3


def test_no_records_make_a_bank_that_finds_nothing(encoder: Encoder) -> None:
    bank = build_bank([], encoder)
    (score,) = bank.score(["anything"], side="request")
    assert (score.risk, score.nearest, score.windows) == (0.0, (), 1)


def test_the_seed_bank_has_a_curve_for_requests_that_finds_unseen_harm(seed_bank: Bank) -> None:
    curve = seed_bank.calibration.curves["request"]
    assert curve.neighbours == NEIGHBOURS
    assert curve.recall[0] > 0.3
    assert curve.recall[1] > 0.1  # of what people post, too, which is harder to tell than requests
