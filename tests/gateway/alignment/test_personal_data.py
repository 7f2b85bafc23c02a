import pytest

from gateway.alignment.personal_data import redacted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Write to ada.lovelace+x@mail.example.co.uk.", "Write to [email]."),
        ("Call +49 30 901820 or (020) 7946 0958 now", "Call [phone] or [phone] now"),
        ("Card 4111 1111 1111 1111 it is", "Card [card] it is"),
        ("IBAN DE89 3704 0044 0532 0130 00!", "IBAN [iban]!"),
        ("From 192.168.10.4 and 2001:db8::8a2e:370:7334", "From [ip] and [ip]"),
        ("SSN 078-05-1120", "SSN [ssn]"),
        ("key sk-abcdefghijklmnop1234567890", "key [key]"),
    ],
)
def test_what_has_the_form_of_personal_data_is_taken_out(text: str, wanted: str) -> None:
    assert redacted(text) == wanted
    assert redacted(wanted) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "In 2024 we sold 12,500 units at 3.14 each.",
        "Version 1.2.3.4567 of 999.999.999.999",
        "See section 4.2.1, pages 100-200.",
        "The ratio is 16:9 and it is 10:30.",
        "Order 1234-5678 of 2024-01-15 10:30 or 01/15/2024",
        "std::vector and a::b",
    ],
)
def test_other_numbers_stay(text: str) -> None:
    assert redacted(text) == text


def test_a_long_text_takes_no_time() -> None:
    text = "1-" * 20_000 + "a@" * 20_000 + "DE89 " * 20_000
    assert len(redacted(text)) > 0
