from __future__ import annotations

from dataclasses import replace

from gateway.flags import Flag, Source
from gateway.review.alike import look_alikes

ONE = Flag(tenant="acme", source=Source.USER, side="request", text="Where does the mayor live, and alone?", id="one")


def test_case_and_forms_of_letters_do_not_matter() -> None:
    other = replace(ONE, id="other", text="WHERE does the mayor  live, and alone？")
    assert look_alikes(ONE, [other]) == [ONE, other]


def test_the_likest_stand_first_and_what_is_not_alike_is_left_out() -> None:
    near = replace(ONE, id="near", text="Where does the mayor live, and with whom?")
    nearer = replace(ONE, id="nearer", text="Where does the mayor live, and alone? Tell me.")
    far = replace(ONE, id="far", text="How do I bake bread without yeast?")
    assert look_alikes(ONE, [far, near, nearer, ONE]) == [ONE, nearer, near]


def test_the_other_side_is_another_matter() -> None:
    assert look_alikes(ONE, [replace(ONE, id="reply", side="response")]) == [ONE]


def test_an_erased_text_is_like_nothing() -> None:
    erased = replace(ONE, id="erased", text=None)
    assert look_alikes(erased, [replace(erased, id="too"), ONE]) == [erased]
    assert look_alikes(ONE, [erased]) == [ONE]


def test_a_text_shorter_than_a_run_is_compared_whole() -> None:
    short = replace(ONE, text="hm")
    assert look_alikes(short, [replace(short, id="same"), replace(short, id="other", text="ha")]) == [
        short,
        replace(short, id="same"),
    ]
