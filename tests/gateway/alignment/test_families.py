from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from antiprompt_bank.dedupe import NEAR_COPY, grams, normalised
from gateway.alignment.families import capped, diversity, families, held_out
from gateway.alignment.reviewed import Reviewed, Standing
from tests.gateway.alignment.reviewing import ALL, BLEACH, many


def like(name: str, prompt: str, answer: str | None = None) -> Reviewed:
    return replace(BLEACH, flag_id=name, prompt=prompt, answer=answer)


def test_look_alikes_and_their_look_alikes_are_one_family() -> None:
    rows = [
        like("c", "How do I get rid of a really bad headache quickly at home?"),
        like("b", "How do I get rid of a really bad headache quickly at home"),
        like("a", "How do I get rid of a really bad headache quickly at work?"),
        like("d", "Which trains go to Prague on a Sunday?"),
    ]
    assert families(rows) == ["a", "a", "a", "d"]


def test_other_prompts_with_one_answer_are_one_family() -> None:
    answer = "Mix them in a bucket and stay in the room."
    assert families([like("a", "one thing", answer), like("b", "quite another", answer)]) == ["a", "a"]


@settings(deadline=None)
@given(st.lists(st.text("ab ", min_size=1, max_size=14).filter(str.strip), min_size=1, max_size=8))
def test_no_near_copy_is_missed(prompts: list[str]) -> None:
    rows = [like(f"{at:02}", prompt) for at, prompt in enumerate(prompts)]
    names = families(rows)
    for one, other in ((a, b) for a in range(len(rows)) for b in range(a)):
        mine, theirs = grams(normalised(prompts[one])), grams(normalised(prompts[other]))
        if len(mine & theirs) > NEAR_COPY * len(mine | theirs):
            assert names[one] == names[other]


def test_diversity_counts_copies_and_hazards() -> None:
    rows = many(4)
    found = diversity(rows, ["a", "a", "b", "c"])
    assert (found.rows, found.families, found.near_copies) == (4, 3, 0.25)
    assert (found.hazards, found.hazard_bits, found.evenness) == ({"privacy": 2, "specialized_advice": 2}, 1.0, 1.0)
    assert diversity(rows[:1], ["a"]).evenness is None


def test_of_a_family_the_corrected_rows_stay_and_false_alarms_are_counted_apart() -> None:
    rows = [
        replace(BLEACH, flag_id="a", corrected=None),
        replace(BLEACH, flag_id="b"),
        replace(BLEACH, flag_id="c", corrected=None, standing=Standing.PENDING, role=None),
        replace(BLEACH, flag_id="d", corrected=None, standing=Standing.DISMISSED),
    ]
    names = ["a"] * 4
    assert capped(rows, names, 1) == [1, 3]
    assert capped(rows, names, 2) == [0, 1, 3]
    assert capped(rows, names, 9) == [0, 1, 2, 3]


def test_a_family_is_never_on_both_sides() -> None:
    rows = many(60)
    names = [f"family {at % 20}" for at in range(60)]
    apart = held_out(rows, names, 0.3, ())
    sides = {name: {away for each, away in zip(names, apart, strict=True) if each == name} for name in names}
    assert all(len(side) == 1 for side in sides.values())
    assert 0 < sum(apart) < 60
    assert held_out(rows[:30], names[:30], 0.3, ()) == apart[:30]


def test_a_hazard_is_held_out_wholly_with_its_families() -> None:
    rows = list(ALL)
    names = ["x", "y", "z", "x", "w"]  # a look-alike of another hazard goes along
    assert held_out(rows, names, 0.0, ("hate",)) == [True, False, True, True, False]
