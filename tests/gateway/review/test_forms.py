from __future__ import annotations

import pytest

from gateway.errors import BadRequest
from gateway.review.forms import Form


def form(**fields: str) -> Form:
    return Form({name: [value] for name, value in fields.items()})


def test_a_text_comes_without_the_white_space_around_it() -> None:
    assert form(a="  one\r\ntwo \n").text("a") == "one\ntwo"
    assert form(a="   ").text("a") is None
    assert form().text("a") is None
    with pytest.raises(BadRequest, match="a is longer than 3"):
        form(a="four").text("a", most=3)
    with pytest.raises(BadRequest, match="a is missing"):
        form(a=" ").needed("a")


def test_a_password_comes_as_it_was_typed() -> None:
    assert form(a=" one \r\n").raw("a", most=100) == " one \r\n"
    assert form(a="12345").raw("a", most=3) == "123"
    assert form().raw("a", most=3) == ""


@pytest.mark.parametrize("value", ["nan", "inf", "-0.1", "1.01", "one", "1e400", "--1"])
def test_a_number_out_of_its_range_is_an_error(value: str) -> None:
    with pytest.raises(BadRequest, match="a must be"):
        form(a=value).number("a", 0, 1)


def test_a_whole_number_has_no_fraction() -> None:
    assert form(a="3").whole("a", 1, 4) == 3
    assert form().whole("a", 1, 4) is None
    with pytest.raises(BadRequest, match="whole"):
        form(a="2.5").whole("a", 1, 4)


@pytest.mark.parametrize(
    ("back", "leads"),
    [
        ("/review/queue?a=1", True),
        ("/review/flags/flag_1#comments", True),
        ("", False),
        ("/reviewer", False),
        ("//evil.test/review/", False),
        ("https://evil.test/review/", False),
        ("/review/\\\\evil.test", False),
        ("/review/\x00", False),
        ("/review/\nset-cookie: a", False),
    ],
)
def test_the_way_back_stays_on_the_dashboard(back: str, leads: bool) -> None:
    assert form(back=back).way_back("/review/queue") == (back if leads else "/review/queue")
