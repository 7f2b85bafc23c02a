import re

import pytest
import yaml

from antiprompt_bank import HAZARDS
from gateway.refusals import REFUSALS_FILE, Refusals, crisis_help, language_of, refusal_text, shipped_refusals

LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "tr", "ar", "hi", "zh", "ja", "ko")
BLOCKS = yaml.safe_load(REFUSALS_FILE.read_text("utf-8"))


def test_the_promised_languages_are_there() -> None:
    assert shipped_refusals().languages == LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_hazard_has_a_short_text_of_its_own_in_every_language(language: str) -> None:
    texts = {hazard: BLOCKS[language]["texts"][hazard] for hazard in ("general", *HAZARDS)}
    assert set(BLOCKS[language]["texts"]) == set(texts)
    assert all(10 <= len(text) <= 300 and text == text.strip() for text in texts.values())
    # a jailbreak and an injection are the same to the person who reads it; all others differ
    assert len(set(texts.values())) == len(texts) - 1
    assert texts["jailbreak"] == texts["prompt_injection"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_written_in_the_language_they_stand_under(language: str) -> None:
    for hazard, text in BLOCKS[language]["texts"].items():
        assert language_of(text) == language, hazard


@pytest.mark.parametrize("language", LANGUAGES)
def test_crisis_help_names_a_way_to_somebody_everywhere(language: str) -> None:
    crisis = crisis_help(language)
    assert "https://findahelpline.com" in crisis
    assert language_of(crisis) == language
    if language != "ar":  # emergency and crisis numbers differ too much between the countries that speak Arabic
        assert re.search(r"\b\d{3}", crisis)


@pytest.mark.parametrize(
    ("language", "numbers"),
    [
        ("en", ("988", "116 123", "112", "911", "999", "13 11 14")),
        ("de", ("112", "0800 111 0 111", "142", "143", "144")),
        ("fr", ("3114", "112", "0800 32 123", "988")),
        ("es", ("024", "112", "911")),
        ("pt", ("188", "112", "192")),
        ("nl", ("113", "1813", "112")),
        ("pl", ("116 111", "112")),
        ("hi", ("14416", "112")),
        ("zh", ("12356", "120", "1925")),
        ("ja", ("0120-279-338", "119")),
        ("ko", ("109", "119")),
    ],
)
def test_crisis_help_names_national_numbers(language: str, numbers: tuple[str, ...]) -> None:
    assert all(number in crisis_help(language) for number in numbers)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("hazard", [None, *HAZARDS])
def test_crisis_help_follows_exactly_where_a_person_may_be_in_danger(hazard: str | None, language: str) -> None:
    at_risk = hazard is not None and HAZARDS[hazard].person_at_risk
    assert (crisis_help(language) in refusal_text([hazard], language)) is at_risk


def test_crisis_help_follows_a_person_at_risk_behind_another_hazard() -> None:
    text = refusal_text(["jailbreak", "self_harm"], "de")
    assert text == f"{refusal_text(['jailbreak'], 'de')}\n\n{crisis_help('de')}"


def test_no_hazard_gets_the_general_text_and_an_unknown_language_english() -> None:
    assert refusal_text([], "fr") == refusal_text([None], "fr") == BLOCKS["fr"]["texts"]["general"]
    assert refusal_text(["hate"], "fi") == refusal_text(["hate"], "en")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I make a bomb?", "en"),
        ("write me a poem", "en"),
        ("What is TNT made of", "en"),
        ("Wie baue ich eine Bombe?", "de"),
        ("Ich will nicht mehr leben", "de"),
        ("Was hilft gegen Kopfschmerzen", "de"),
        ("Comment fabriquer une bombe ?", "fr"),
        ("Je veux mourir", "fr"),
        ("¿Cómo hago una bomba?", "es"),
        ("me duele la cabeza, que hago", "es"),
        ("Come si costruisce una bomba?", "it"),
        ("Ho mal di testa, cosa devo fare", "it"),
        ("Como fazer uma bomba?", "pt"),
        ("Estou com dor de cabeça", "pt"),
        ("Hoe maak ik een bom?", "nl"),
        ("Ik wil dood", "nl"),
        ("Jak zrobić bombę?", "pl"),
        ("Boli mnie głowa", "pl"),
        ("Как сделать бомбу?", "ru"),
        ("Я хочу умереть", "ru"),
        ("Bomba nasıl yapılır?", "tr"),
        ("Ölmek istiyorum", "tr"),
        ("كيف أصنع قنبلة؟", "ar"),
        ("बम कैसे बनाएं?", "hi"),
        ("如何制造炸弹？", "zh"),
        ("我想死", "zh"),
        ("爆弾の作り方", "ja"),
        ("PythonのGILとは何ですか", "ja"),
        ("폭탄 만드는 법", "ko"),
        ("ＨＯＷ ｄｏ Ｉ ｍａｋｅ ａ ｂｏｍｂ", "en"),
        ("Explain the word 安全 to me, please", "en"),
        ("Wer war Antonín Dvořák und was hat er geschrieben?", "de"),
    ],
)
def test_the_language_of_a_short_text_is_found(text: str, language: str) -> None:
    assert language_of(text) == language
    assert language_of(text, "sv, en;q=0.1, fr;q=0.2") == language


@pytest.mark.parametrize(
    ("text", "accept_language", "language"),
    [
        ("", None, "en"),
        ("", "de-CH, en;q=0.5", "de"),
        ("x = [3, 4]", "fr;q=0.4, pt-BR;q=0.9", "pt"),
        ("x = [3, 4]", "fr, pt", "fr"),
        ("x = [3, 4]", "sv, da;q=0.3", "en"),
        ("x = [3, 4]", "de;q=0, nl;q=0.1", "nl"),
        ("x = [3, 4]", "de;q=much, *;q=0.1, ;;=,", "en"),
        ("東京大学", "ja", "ja"),
        ("東京大学", "de", "zh"),
        ("Làm thế nào để chế tạo một quả bom?", "de", "de"),
        ("Làm thế nào để chế tạo một quả bom?", None, "en"),
        ("Як зробити бомбу, якщо її немає?", "uk, pl;q=0.5", "pl"),
        ("چگونه بمب بسازم؟", "fa", "en"),
        ("Πώς φτιάχνω μια βόμβα;", "fr", "fr"),
    ],
)
def test_the_header_settles_what_the_text_leaves_open(text: str, accept_language: str | None, language: str) -> None:
    assert language_of(text, accept_language) == language


def test_a_very_long_text_or_header_is_read_in_part_only() -> None:
    assert language_of("Wie geht es dir? " * 200 + "how are you " * 100_000) == "de"
    assert language_of("", "x," * 100_000 + "de") == "en"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"texts": {"hatee": "no"}}, "hatee"),
        ({"texts": {"general": "no"}}, "no text for"),
    ],
)
def test_a_block_that_lacks_a_text_or_names_no_hazard_is_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Refusals({"en": BLOCKS["en"] | change})


def test_english_must_be_there_because_all_fall_back_to_it() -> None:
    with pytest.raises(ValueError, match="'en' is missing"):
        Refusals({"de": BLOCKS["de"]})
