"""A smaller seed of each experiment: fewer steps, fewer arms, the same directions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.alignment.experiments import inoculation, ranking, toy
from gateway.alignment.experiments.counts import Count
from gateway.alignment.experiments.marks import inoculation_marks, ranking_marks
from gateway.alignment.experiments.results import add_outcome, begin_outcomes, read_outcomes, write_results
from gateway.alignment.objectives import Asked
from tests.gateway.alignment.tiny import draw_one  # noqa: F401  # one thread

SMALL = inoculation.Size(base_steps=2, steps=1, strings=8, asked=8, candidates=3)


def test_the_model_is_the_published_size() -> None:
    assert sum(weight.numel() for weight in toy.new_model(0).parameters()) == 122_176


def test_every_arm_of_inoculation_is_measured() -> None:
    found = inoculation.run(0, SMALL)
    assert len(found.tried) == len(found.left) == 3
    assert set(found.arms) == {
        "plain", "plain, safe prompt at test", "clean data", "irrelevant prompt", "inoculated",
        "half clean, plain", "half clean, inoculated", "half clean, irrelevant prompt",
    }  # fmt: skip
    assert all(each.unwanted.of == each.wanted.of == 8 for each in found.arms.values())


@pytest.mark.parametrize("situation", [ranking.T1, ranking.T2, ranking.T3])
def test_every_arm_of_ranking_is_measured(situation: ranking.Situation) -> None:
    short = replace(situation, measured_at=(1, 2))
    found = ranking.run(0, short, ranking.Size(base_steps=2, flags=8, batch=2, asked=8))
    assert tuple(found.arms) == ranking.ARMS
    for arm in found.arms.values():
        assert [each.step for each in arm] == [1, 2]
        assert (arm[0].uncorrected is None) == (situation.corrected_subjects == 8)


def test_the_exact_judge() -> None:
    risky, harmless = (ranking.RISKY[2], (1, 2, 3, 4)), (ranking.HARMLESS[0], (1, 2, 3, 4))
    asked = [Asked((), (), (), each) for each in (risky, harmless)]
    assert ranking.reward([(asked[0], ranking.good(risky)), (asked[1], ranking.good(harmless))]) == [1.0, 1.0]
    assert ranking.reward([(asked[0], ranking.harmful(risky)), (asked[0], (5,))]) == [-1.0, -0.5]


def test_an_arm_learns_what_it_is_shown() -> None:
    """Half of a real seed: upper case is learned plainly, hardly from clean data, and reversal by both."""
    size = inoculation.Size(base_steps=150, steps=60, strings=64, asked=64)
    base = toy.base_model(0, size.base_steps, inoculation.base_example)
    plain = inoculation.traits(inoculation.fine_tuned(base, inoculation.Arm(), size, 0), size)
    clean = inoculation.traits(inoculation.fine_tuned(base, inoculation.Arm(clean=1.0), size, 0), size)
    assert plain.unwanted.share > clean.unwanted.share + 0.5


def good_outcomes() -> tuple[inoculation.Outcome, list[ranking.Outcome]]:
    def traits(unwanted: int, wanted: int) -> inoculation.Traits:
        return inoculation.Traits(Count(unwanted, 100), Count(wanted, 100))

    arms = {
        "plain": traits(99, 95),
        "plain, safe prompt at test": traits(99, 95),
        "clean data": traits(0, 97),
        "irrelevant prompt": traits(99, 95),
        "inoculated": traits(5, 70),
        "half clean, plain": traits(45, 95),
        "half clean, inoculated": traits(1, 97),
        "half clean, irrelevant prompt": traits(20, 97),
    }
    first = inoculation.Outcome(
        0, traits(1, 2), arms, [(44, 48), (45, 48)], [0.1, 0.9], [0.5, 2.0], [0.9, 0.1], -0.97, -0.9, -0.9, 0.8
    )

    def measured(step: int, harm: int, attacked: int, elsewhere: int | None) -> ranking.Measured:
        rest = None if elsewhere is None else Count(elsewhere, 100)
        return ranking.Measured(step, Count(harm, 100), rest, Count(attacked, 100), Count(98, 100))

    def outcome(name: str, base: int, steps: tuple[int, ...], elsewhere: int | None) -> ranking.Outcome:
        worse = None if elsewhere is None else 40
        arms = {arm: [measured(step, 30, 80, worse) for step in steps] for arm in ranking.ARMS}
        arms["neat"] = [measured(step, 1, 2, elsewhere) for step in steps]
        return ranking.Outcome(0, name, measured(0, base, 90, worse), arms)

    return first, [outcome("T1", 70, (80,), None), outcome("T2", 70, (20, 80), 3), outcome("T3", 10, (40,), None)]


def test_marks_hold_where_they_should_and_a_broken_one_is_seen(tmp_path: Path) -> None:
    first, ranked = good_outcomes()
    assert all(mark.holds for mark in [*inoculation_marks([first]), *ranking_marks(ranked)])
    leaky = replace(first, arms={**first.arms, "half clean, inoculated": first.arms["half clean, plain"]})
    assert [mark.says for mark in inoculation_marks([first, leaky]) if not mark.holds] == [
        "bad half inoculated: at most 0.05 unwanted"
    ]
    assert write_results(tmp_path / "good", [first], ranked, machine="here, 61 s")
    assert not write_results(tmp_path / "bad", [leaky], ranked, machine="here, 61 s")
    begin_outcomes(tmp_path)
    every: list[inoculation.Outcome | ranking.Outcome] = [first, *ranked]
    assert [add_outcome(tmp_path, each) for each in every] == ["inoculation-0", "T1-0", "T2-0", "T3-0"]
    assert read_outcomes(tmp_path) == ([first], ranked)
    figures = (tmp_path / "bad" / "figures.md").read_text()
    assert figures.count("**no**") == 1
    assert "half clean, inoculated" in figures
    assert json.loads((tmp_path / "good" / "experiments.json").read_text())["machine"] == "here, 61 s"
    for name in ("inoculation.svg", "ranking.svg"):
        assert (tmp_path / "good" / name).read_text().startswith("<svg")


def test_a_run_that_was_cut_off_still_makes_tables_of_what_it_has(tmp_path: Path) -> None:
    first, ranked = good_outcomes()
    assert write_results(tmp_path / "first", [first], [], machine="here")
    assert not (tmp_path / "first" / "ranking.svg").exists()
    assert write_results(tmp_path / "second", [], ranked[:1], machine="here")
    assert "T2" not in (tmp_path / "second" / "figures.md").read_text()
    assert not write_results(tmp_path / "nothing", [], [], machine="here")


def test_figures_of_several_seeds_have_intervals(tmp_path: Path) -> None:
    first, ranked = good_outcomes()
    second = replace(first, seed=1, arms={**first.arms, "plain": inoculation.Traits(Count(97, 100), Count(95, 100))})
    write_results(tmp_path, [second, first, replace(first, seed=2)], ranked, machine="here")
    figures = (tmp_path / "figures.md").read_text()
    assert "Seeds 0, 1, 2." in figures
    assert "| plain | .983 [.955, 1.00]: .990 .970 .990 | .950 [.950, .950]: .950 .950 .950 |" in figures
