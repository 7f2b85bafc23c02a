import pytest
from scipy.stats import pearsonr, spearmanr, t

from gateway.alignment.experiments.counts import Count, interval, pearson, spearman

SOME = [0.1, 0.4, 0.4, 0.9, 1.0, 0.4]
OTHERS = [0.9, 0.7, 0.8, 0.1, 0.1, 0.3]


def test_correlations_are_scipys_with_equals_among_the_numbers() -> None:
    assert pearson(SOME, OTHERS) == pytest.approx(pearsonr(SOME, OTHERS)[0])
    assert spearman(SOME, OTHERS) == pytest.approx(spearmanr(SOME, OTHERS)[0])
    assert spearman([1, 2, 3], [1, 8, 27]) == pytest.approx(1.0)


def test_what_does_not_vary_is_related_to_nothing() -> None:
    assert pearson([1.0, 1.0], [0.0, 1.0]) == spearman([0.0, 1.0], [2.0, 2.0]) == 0.0


@pytest.mark.parametrize("seeds", [3, 4, 16])
def test_the_interval_is_students(seeds: int) -> None:
    values = [0.1 * (at % 4) for at in range(seeds)]
    low, high = t.interval(0.95, seeds - 1, loc=sum(values) / seeds, scale=_error(values))
    assert interval(values) == pytest.approx((low, high), abs=1e-4)


def test_two_seeds_have_no_interval_and_many_have_one_that_is_rather_too_wide() -> None:
    assert interval([0.5, 0.6]) is None
    values = [0.1 * (at % 4) for at in range(40)]
    low, high = t.interval(0.95, 39, loc=sum(values) / 40, scale=_error(values))
    found = interval(values)
    assert found is not None
    assert found[0] < low < high < found[1]


def test_a_share() -> None:
    assert Count(1, 4).share == 0.25


def _error(values: list[float]) -> float:
    middle = sum(values) / len(values)
    return float((sum((x - middle) ** 2 for x in values) / (len(values) - 1) / len(values)) ** 0.5)
