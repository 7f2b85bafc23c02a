"""Windows hold every token, overlap, begin at words and are full; further ones hold a long text's sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from antiprompt_bank.views import View
from antiprompt_bank.windows import Window, windows


@dataclass(frozen=True)
class Spans:
    ids: list[int]
    offsets: list[tuple[int, int]]


def pieces(text: str, length: int = 3) -> Spans:
    """Tokens of at most ``length`` letters, as a subword tokenizer makes them: no token spans two words."""
    offsets = [
        (start, min(start + length, word.end()))
        for word in re.finditer(r"\S+", text)
        for start in range(word.start(), word.end(), length)
    ]
    return Spans([1000 + number for number in range(len(offsets))], offsets)


def sentences(text: str, **settings: float) -> list[Window]:
    """The windows that ``sentences`` adds."""
    spans = pieces(text)
    plain = windows(View("raw", text), spans, **settings)  # type: ignore[arg-type]
    both = windows(View("raw", text), spans, sentences=True, **settings)  # type: ignore[arg-type]
    assert both[: len(plain)] == plain
    return both[len(plain) :]


def cut(text: str, **settings: float) -> tuple[Spans, list[Window]]:
    spans = pieces(text)
    return spans, windows(View("raw", text), spans, **settings)  # type: ignore[arg-type]


LONG = " ".join(f"word{number} and another" for number in range(60))


def test_a_text_that_fits_gives_one_window_with_everything() -> None:
    spans, (only,) = cut("three short words")
    assert only == Window(view="raw", start=0, end=17, token_start=0, ids=tuple(spans.ids))


def test_a_text_of_exactly_one_window_gives_one() -> None:
    spans, found = cut("ab " * 64)
    assert len(spans.ids) == 64
    assert len(found) == 1


def test_one_token_more_gives_two_full_windows() -> None:
    _, found = cut("ab " * 65)
    assert [(window.token_start, len(window.ids)) for window in found] == [(0, 64), (1, 64)]


def test_a_text_without_tokens_gives_no_window() -> None:
    assert windows(View("raw", " \n "), Spans([], [])) == []


def test_windows_name_their_view_and_their_characters() -> None:
    text = LONG
    spans = pieces(text)
    for window in windows(View("base64", text), spans):
        assert window.view == "base64"
        first, last = window.token_start, window.token_start + len(window.ids) - 1
        assert (window.start, window.end) == (spans.offsets[first][0], spans.offsets[last][1])
        assert window.ids == tuple(spans.ids[first : last + 1])


def test_windows_begin_at_words_but_the_last_which_reaches_back() -> None:
    _, found = cut(LONG)
    assert len(found) > 3
    assert all(window.start == 0 or LONG[window.start - 1] == " " for window in found[:-1])
    assert found[-1].end == len(LONG)
    assert len(found[-1].ids) == 64


def test_tokens_that_carry_the_space_before_them_begin_words_too() -> None:
    text = "alpha beta gamma delta epsilon zeta eta theta"
    offsets = [(match.start(), match.end()) for match in re.finditer(r" ?[^ ]{1,2}", text)]
    found = windows(View("raw", text), Spans(list(range(len(offsets))), offsets), window_tokens=8)
    assert all(text[window.start] == " " for window in found[1:-1])


def test_text_without_spaces_is_cut_where_the_step_falls() -> None:
    spans = Spans(list(range(200)), [(number, number + 1) for number in range(200)])
    found = windows(View("raw", "x" * 200), spans)
    assert [window.token_start for window in found] == [0, 48, 96, 136]


def test_the_encoding_of_a_real_tokenizer_will_do() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    text = "word " * 100
    found = windows(View("raw", text), tokenizer.encode(text, add_special_tokens=False))
    assert [(window.start, window.end) for window in found] == [(0, 319), (180, 499)]
    assert {token for window in found for token in window.ids} == {1}


@pytest.mark.parametrize("settings", [{"window_tokens": 0}, {"overlap": -0.1}, {"overlap": 0.6}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not"):
        cut("some text", **settings)


@given(
    words=st.lists(st.text("abc", min_size=1, max_size=40), max_size=120),
    window_tokens=st.integers(1, 40),
    overlap=st.floats(0, 0.5),
)
def test_windows_cover_all_tokens_in_order_and_overlap(words: list[str], window_tokens: int, overlap: float) -> None:
    spans, found = cut(" ".join(words), window_tokens=window_tokens, overlap=overlap)
    starts = [window.token_start for window in found]
    covered = {start + step for start, window in zip(starts, found, strict=True) for step in range(len(window.ids))}
    assert covered == set(range(len(spans.ids)))
    assert starts == sorted(set(starts))
    if len(found) > 1:
        assert all(len(window.ids) == window_tokens for window in found)
        shared = round(window_tokens * overlap)
        assert all(later - earlier <= window_tokens - shared for earlier, later in pairwise(starts))


PASSAGE = (
    "The harbour was calm that day. Boats of three sizes lay along the wooden pier! Did anyone count the gulls that "
    "morning? Nobody did. The baker opened at seven, as he had done every day for thirty years. A van stopped; two men "
    "got out. They carried crates of apples into the yard behind the old customs house. Then it rained until evening."
)


def test_a_long_text_gives_its_sentences_beside_the_windows_of_today() -> None:
    assert [PASSAGE[window.start : window.end] for window in sentences(PASSAGE)] == [
        "The harbour was calm that day.",
        "Boats of three sizes lay along the wooden pier!",
        "Did anyone count the gulls that morning?",
        # Too short alone: it goes with what follows.
        "Nobody did. The baker opened at seven, as he had done every day for thirty years.",
        "A van stopped; two men got out.",
        "They carried crates of apples into the yard behind the old customs house.",
        "Then it rained until evening.",
    ]


def test_a_window_of_sentences_says_where_it_stands() -> None:
    spans = pieces(PASSAGE)
    for window in sentences(PASSAGE):
        first, last = window.token_start, window.token_start + len(window.ids) - 1
        assert (window.start, window.end) == (spans.offsets[first][0], spans.offsets[last][1])
        assert window.ids == tuple(spans.ids[first : last + 1])


def test_a_text_that_fits_has_one_window_with_sentences_too() -> None:
    for text in ("One. Two. Three and four. Five?", "ab. " * 32):
        assert len(pieces(text).ids) <= 64
        assert sentences(text) == []
        assert len(windows(View("raw", text), pieces(text), sentences=True)) == 1


@pytest.mark.parametrize(
    ("language", "ends"),
    [
        ("Chinese", "。"),
        ("Chinese, asking", "？"),
        ("Japanese", "！」"),
        ("Hindi", " ।"),
        ("Arabic", " ؟"),
        ("Urdu", "۔"),
        ("Khmer", "។"),
        ("English", '!" '),
        ("English, trailing off", "... "),
        ("a list", "\n- "),
        ("Windows lines", "\r\n"),
    ],
)
def test_sentences_end_with_the_marks_of_many_scripts(language: str, ends: str) -> None:
    text = ends.join(f"{chr(0x4E00 + number) * 20}" for number in range(8))
    spans = Spans(list(range(len(text))), [(at, at + 1) for at in range(len(text))])
    found = windows(View("raw", text), spans, sentences=True)[len(windows(View("raw", text), spans)) :]
    assert len(found) == 8
    assert all(len({*text[window.start : window.end]} - {*ends}) == 1 for window in found)
    if not ends[-1].isspace() and "\n" not in ends:
        assert all(text[window.start : window.end].endswith(ends) for window in found[:-1])


def test_a_point_within_a_number_a_name_or_an_address_ends_nothing() -> None:
    text = "Version 3.5.1 of www.example.com costs 2.50 a month says my friend " * 3 + "and that was all."
    assert sentences(text) == []


def test_a_sentence_longer_than_a_window_has_no_window_of_its_own() -> None:
    long = "word " * 70
    assert [
        window.start for window in sentences(f"A first sentence of eight tokens. {long}. And then a last one too.")
    ] == [
        0,
        386,
    ]


def test_a_short_sentence_that_has_no_room_behind_it_goes_with_the_one_before() -> None:
    text = "A first sentence of some more tokens than eight. Oh no! " + "abc " * 62 + ". Then the end of it all came."
    first, *_ = sentences(text)
    assert text[first.start : first.end].endswith("eight. Oh no!")


def test_very_many_short_sentences_are_joined_until_they_are_few() -> None:
    found = sentences("Do it now. " * 300)
    tokens = 4 * 300
    assert len(found) <= 1 + tokens // 16
    assert {len(window.ids) for window in found[:-1]} == {16}


def test_sentences_never_cost_more_than_the_windows_beside_them() -> None:
    for text in ("Do it now. " * 300, PASSAGE * 9, "abc " * 40 + ". " + ("a. " * 9 + "abc " * 58 + ". ") * 20):
        _, plain = cut(text)
        assert sum(len(window.ids) + 4 for window in sentences(text)) <= sum(len(window.ids) + 4 for window in plain)


@pytest.mark.parametrize("unit", [".", "!?", ".)", '."', "\n", "。", "。」", "a. ", "a.b"], ids=ascii)
def test_no_text_takes_more_than_linear_work(unit: str) -> None:
    text = unit * 400_000 + "x"
    spans = Spans(list(range(100)), [(at * len(unit), at * len(unit) + 1) for at in range(100)])
    # If the pattern were quadratic, this would hang.
    assert len(windows(View("raw", text), spans, sentences=True)) <= 2 + 1 + 100 // 16


@given(
    words=st.lists(st.text("ab.!?。\n", min_size=1, max_size=12), max_size=150),
    window_tokens=st.integers(1, 40),
    overlap=st.floats(0, 0.5),
)
def test_sentences_are_few_apart_and_no_longer_than_a_window(
    words: list[str], window_tokens: int, overlap: float
) -> None:
    text = " ".join(words)
    found = sentences(text, window_tokens=window_tokens, overlap=overlap)
    tokens = len(pieces(text).ids)
    assert all(1 <= len(window.ids) <= window_tokens for window in found)
    assert all(one.token_start + len(one.ids) <= other.token_start for one, other in pairwise(found))
    assert len(found) <= 1 + tokens // min(16, max(1, window_tokens // 4))
    both = [*cut(text, window_tokens=window_tokens, overlap=overlap)[1], *found]
    assert len({(window.token_start, len(window.ids)) for window in both}) == len(both)
