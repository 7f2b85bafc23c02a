import pytest
from scipy.stats import binomtest

from antiprompt_bank import Antiprompt, Bank, Label, build_bank
from gateway.retraining_gate import GateReport, Material, at_least, compare
from tests.bank.words import WordEncoder
from tests.gateway.banks import BENIGN, exemplar

NOUNS = ("apple", "bridge", "candle", "dragon", "engine", "forest", "guitar", "harbour", "island", "jacket")


def sentence(number: int) -> str:
    """Sentences that have few words in common."""
    return " ".join(f"{NOUNS[(number * step) % 10]}{number}{step}" for step in range(1, 7))


def harmful(count: int, first: int = 0) -> list[Antiprompt]:
    return [exemplar(sentence(first + number)) for number in range(count)]


def harmless(count: int, first: int = 0) -> list[Antiprompt]:
    return [exemplar(sentence(1000 + first + number), Label.BENIGN) for number in range(count)]


def bank(*records: Antiprompt) -> Bank:
    return build_bank([*records, exemplar(BENIGN, Label.BENIGN)], WordEncoder())


def judge(before: Bank, after: Bank, material: Material, promise: float = 0.01) -> GateReport:
    return compare(before, before, after, material, promise=promise, tell=lambda what, done, total: None)


def test_a_candidate_that_finds_more_and_hits_nothing_harmless_passes() -> None:
    material = Material(harmful(10), harmless(10), harmful(2))
    report = judge(bank(*harmful(5)), bank(*harmful(10)), material)
    assert (report.passed, report.recall.before, report.recall.after, report.recall.gained) == (True, 5, 10, 5)
    assert report.false_positives.after == 0
    assert report.confirmed_lost == ()


@pytest.mark.parametrize(("lost", "passes"), [(4, True), (5, False)])
def test_recall_may_be_lost_by_chance_only(lost: int, passes: bool) -> None:
    report = judge(bank(*harmful(20)), bank(*harmful(20 - lost)), Material(harmful(20), [], []))
    assert (report.recall.lost, report.passed) == (lost, passes)
    if not passes:
        assert "recall is lost" in report.refused[0]


def test_what_is_lost_can_be_made_up_for_by_what_is_gained() -> None:
    report = judge(bank(*harmful(6)), bank(*harmful(6, first=6)), Material(harmful(12), [], []))
    assert (report.recall.lost, report.recall.gained, report.passed) == (6, 6, True)


def test_the_promise_on_false_positives_is_kept_whatever_was_before() -> None:
    bad = [exemplar(record.text) for record in harmless(3)]
    material = Material([], harmless(100), [])
    report = judge(bank(*harmful(2), *bad), bank(*harmful(2), *bad), material)
    assert report.false_positives.after == report.false_positives.before >= 3
    assert "promise" in report.refused[0]
    assert judge(bank(*harmful(2), *bad), bank(*harmful(2), *bad), material, promise=0.1).passed


def test_more_false_positives_than_before_are_refused_even_within_the_promise() -> None:
    bad = [exemplar(record.text) for record in harmless(5)]
    report = judge(bank(*harmful(2)), bank(*harmful(2), *bad), Material([], harmless(100), []), promise=0.5)
    assert report.refused[0].startswith("more harmless texts are hit: 5 of 100")


def test_a_thousand_approved_exemplars_that_are_harmless_texts_are_stopped() -> None:
    poison = [exemplar(record.text) for record in harmless(1000)]
    report = judge(bank(*harmful(2)), bank(*harmful(2), *poison), Material(harmful(2), harmless(200), poison[:10]))
    assert not report.passed
    assert report.false_positives.after == 200


def test_one_confirmed_exemplar_that_is_no_longer_found_is_too_many() -> None:
    report = judge(bank(*harmful(20)), bank(*harmful(19)), Material([], [], harmful(20)))
    assert report.confirmed_lost == (harmful(20)[-1].id,)
    assert "people confirmed" in report.refused[0]


def test_what_the_bank_in_force_did_not_find_either_is_not_lost() -> None:
    report = judge(bank(*harmful(5)), bank(*harmful(5)), Material([], [], harmful(6)))
    assert report.passed


def test_texts_of_both_sides_are_asked_and_the_report_is_told_along() -> None:
    answer = Antiprompt(
        text=sentence(7), label=Label.HARMFUL, side="response", hazard="hate", prompt="what is this about"
    )
    told: list[tuple[str, int, int]] = []
    base, better = bank(*harmful(3)), bank(*harmful(3), answer)
    report = compare(
        base,
        base,
        better,
        Material([answer, *harmful(2)], harmless(1), []),
        promise=0.01,
        tell=lambda *progress: told.append(progress),
    )
    assert (report.recall.before, report.recall.after) == (2, 3)
    assert ("harmful held-out texts, after", 3, 3) in told
    row = report.to_json()
    assert (row["recall"]["gained"], row["false_positives"]["texts"], row["refused"]) == (1, 1, [])


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (5, 5), (4, 5), (10, 30), (0, 7)])
def test_the_test_is_the_binomial_one(hits: int, trials: int) -> None:
    expected = binomtest(hits, trials, alternative="greater").pvalue if trials else 1.0
    assert at_least(hits, trials) == pytest.approx(expected)
