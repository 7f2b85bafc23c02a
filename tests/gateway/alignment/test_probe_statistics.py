import pytest

from gateway.alignment.probe_statistics import holm, sign_test, tail
from tests.gateway.alignment.probing import chance


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (0, 10, 2 / 1024), (9, 1, 22 / 1024), (1, 9, 22 / 1024)],
)
def test_the_sign_test_is_exact(one: int, other: int, p: float) -> None:
    assert sign_test(one, other) == pytest.approx(p)


def test_a_tail_counts_the_count_itself() -> None:
    assert (tail(0, 0), tail(0, 3), tail(3, 3), tail(2, 3)) == (1.0, 1.0, 1 / 8, 4 / 8)


def test_many_thousand_pairs_are_no_trouble() -> None:
    assert 0 <= sign_test(6000, 5000) < 1e-10


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    assert holm([0.04, 0.001, 0.03]) == pytest.approx([0.06, 0.003, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_where_nothing_differs_an_alarm_is_as_rare_as_promised() -> None:
    """16 tests of 28 pairs each, two hundred times: an alarm at 0.01 in at most 1 % of them, up to chance."""
    alarms = 0
    for run in range(200):
        ps = []
        for test in range(16):
            pairs = [(chance(0.3, run, test, n, "a"), chance(0.3, run, test, n, "b")) for n in range(28)]
            ps.append(sign_test(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)))
        alarms += min(holm(ps)) < 0.01
    assert alarms <= 6
