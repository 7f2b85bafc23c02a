"""Long encoded-looking passages that no view could read are told, with their place; everyday text is left alone."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiprompt_bank.blobs import Blob, blobs
from antiprompt_bank.views import View, views
from tests.bank.test_views import BLOW_UPS, HACKETT, OTHERS, PLAIN

PROSE = (
    "The harbour was calm that day, and the boats lay along the wooden pier. Nobody counted the gulls. The baker "
    "opened at seven, as he had done every day for thirty years, and two men carried apples into the yard. "
)


def noise(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def wrapped(text: str, columns: int) -> str:
    return "\n".join(text[start : start + columns] for start in range(0, len(text), columns))


def letters(count: int, alphabet: str = string.ascii_lowercase, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=count))


def vigenere(text: str, key: str) -> str:
    shifts = [string.ascii_lowercase.index(char) for char in key]
    return "".join(
        string.ascii_lowercase[(string.ascii_lowercase.index(char) + shifts[at % len(key)]) % 26]
        if char in string.ascii_lowercase
        else char
        for at, char in enumerate(text.lower())
    )


def substituted(text: str) -> str:
    alphabet = list(string.ascii_lowercase)
    random.Random(4).shuffle(alphabet)
    return text.lower().translate(str.maketrans(string.ascii_lowercase, "".join(alphabet)))


def found(text: str) -> list[Blob]:
    return blobs(text, views(text))


UNREADABLE = {
    "base64 of encrypted bytes": b64(noise(90)),
    "base64 of packed text": b64(zlib.compress((PROSE * 3).encode(), 9)),
    "base64 for addresses": base64.urlsafe_b64encode(noise(120)).decode().rstrip("="),
    "base64, wrapped at 76": wrapped(b64(noise(400)), 76),
    "base64, wrapped at 64": wrapped(b64(noise(200)), 64),
    "hex of encrypted bytes": noise(80).hex(),
    "hex, upper case": noise(80).hex().upper(),
    "hex, wrapped": wrapped(noise(200).hex(), 60),
    "hex in pairs": noise(80).hex(" "),
    "base32 of encrypted bytes": base64.b32encode(noise(100)).decode(),
    "base64 in base64": b64(b64(noise(100)).encode()),
    "random letters": letters(120),
    "random words": " ".join(letters(size, seed=size) for size in (5, 7, 6, 9, 4, 8, 7, 5, 6, 10, 8, 7)),
    "groups of five": " ".join(letters(5, string.ascii_uppercase, seed) for seed in range(20)),
    "vigenere": vigenere(PROSE, "lemonade"),
    "another alphabet": substituted(PROSE),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_no_view_can_read_is_told_with_its_place(kind: str) -> None:
    blob = UNREADABLE[kind].strip()
    before, after = "Please work on what follows.\n", "\nThen answer in one sentence, please."
    (only,) = found(before + blob + after)
    assert abs(only.start - len(before)) <= 12
    assert abs(only.end - len(before) - len(blob)) <= (76 if "wrapped" in kind else 12)  # a last line may be left out
    assert 0 < only.score < 1


@pytest.mark.parametrize("technique", [*HACKETT, *OTHERS])
@pytest.mark.parametrize("times", [1, 3])
def test_what_a_view_has_read_is_none(technique: str, times: int) -> None:
    assert found((HACKETT | OTHERS)[technique](PROSE * times)) == []


@pytest.mark.parametrize("outer", ["base64", "hex"])
@pytest.mark.parametrize("inner", ["base64", "hex", "rot13", "reversed"])
def test_what_was_read_twice_is_none(outer: str, inner: str) -> None:
    assert found(OTHERS[outer](OTHERS[inner](PROSE))) == []


def test_of_two_passages_the_one_that_was_read_is_left_out() -> None:
    readable, not_readable = b64(PROSE.encode()), b64(noise(150))
    text = f"First {readable} and then {not_readable} as well."
    (only,) = found(text)
    assert text[only.start : only.end] == not_readable


def test_a_name_of_a_key_must_name_it() -> None:
    blob = b64(noise(150))
    assert len(found(f"The author of this monkey design {blob}")) == 1
    assert found(f"api_key = '{blob}'") == []
    assert len(found(f"api_key = '{b64(noise(3000))}'")) == 1


def test_the_score_grows_with_the_length_and_is_a_half_for_256_characters() -> None:
    scores = [found(b64(noise(size)))[0].score for size in (90, 192, 900, 9000)]
    assert scores == sorted(scores)
    assert scores[1] == 0.5
    assert scores[0] < 0.35
    assert scores[-1] > 0.95


JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (json.dumps({"alg": "RS256"}).encode(), json.dumps({"sub": "me", "exp": 1}).encode(), noise(256))
)
EVERYDAY = {
    "a uuid": "Request 123e4567-e89b-12d3-a456-426614174000 failed, then 9b2f0e5c-7d41-4c7b-8a1e-0f3d5b6c7a89 did.",
    "uuids, one a line": "\n".join(f"123e4567-e89b-12d3-a456-42661417{at:04d}" for at in range(9)),
    "a git log": "\n".join(f"commit {hashlib.sha1(bytes([at])).hexdigest()}\n    Mend the gate" for at in range(9)),
    "SHA-512 alone": f"It is {noise(64).hex()}, isn't it?",
    "hashes": "\n".join(hashlib.sha256(bytes([at])).hexdigest() for at in range(9)),
    "checksums of files": "\n".join(f"{hashlib.sha512(bytes([at])).hexdigest()}  file{at}.tar.gz" for at in range(9)),
    "a digest": f"docker pull registry.example.com/team/image@sha256:{noise(32).hex()}",
    "a lock file": f'"node_modules/left-pad": {{"version": "1.3.0", "integrity": "sha512-{b64(noise(64))}"}}',
    "a script's hash": f'<script src="https://x.org/a.js" integrity="sha384-{b64(noise(48))}" crossorigin></script>',
    "a token in a log": f"2026-11-20 12:00:01 INFO auth ok Authorization: Bearer {JWT} status=200",
    "a token alone": JWT,
    "a token in JSON": json.dumps({"access_token": b64(noise(300)), "expires_in": 3600}),
    "an API key": f"OPENAI_API_KEY=sk-proj-{b64(noise(117)).replace('+', 'x').replace('/', 'y')}",
    "a key by its prefix": f"I pasted github_pat_{letters(90, string.ascii_letters + string.digits)} by mistake.",
    "an SSH key": f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{b64(noise(40))} me\nssh-rsa AAAAB3NzaC1{b64(noise(270))} me",
    "a certificate": "-----BEGIN CERTIFICATE-----\n" + wrapped(b64(noise(900)), 64) + "\n-----END CERTIFICATE-----",
    "a private key": "-----BEGIN PRIVATE KEY-----\n" + wrapped(b64(noise(1200)), 64) + "\n-----END PRIVATE KEY-----",
    "a picture": f'<img src="data:image/png;base64,{b64(noise(600))}" alt="a boat">',
    "a picture in JSON": json.dumps({"image": b64(b"\x89PNG\r\n\x1a\n" + noise(600))}),
    "an address with a query": f"See https://shop.example.com/p/1?utm={b64(noise(90))}&sig={noise(64).hex()} for it.",
    "a signed address": f"https://bucket.s3.amazonaws.com/a.pdf?X-Amz-Signature={noise(32).hex()}&X-T={letters(300)}",
    "a path": "/usr/local/lib/python3.11/site-packages/some_package/internal_module/another_level/deeper/f.py",
    "a Windows path": "C:\\Users\\someone\\AppData\\Local\\Python311\\Lib\\site-packages\\a\\b\\c\\d\\e.py",
    "a slug": "how-to-bake-a-sourdough-bread-without-any-special-equipment-at-home-in-seven-days-and-why-it-is",
    "an identifier": "AbstractSingletonProxyFactoryBeanWithTransactionalInterceptorAndTimeoutHandlerImplementation",
    "German compounds": "Das Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz und die "
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft sind lange Wörter.",
    "a Welsh village": "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch is a village; we went by train.",
    "a gene": ">NM_000546 TP53\n" + wrapped(letters(700, "ACGT"), 70),
    "a protein": ">sp|P04637|P53_HUMAN\n" + wrapped(letters(393, "ACDEFGHIKLMNPQRSTVWY"), 60),
    "a protein in tens": " ".join(letters(10, "ACDEFGHIKLMNPQRSTVWY", seed) for seed in range(20)),
    "minified JavaScript": '!function(e,t){"object"==typeof exports&&"undefined"!=typeof module?module.exports=t():'
    '"function"==typeof define&&define.amd?define(t):(e=e||self).Vue=t()}(this,function(){"use strict";var e={};'
    "function t(e){return null==e}function n(e){return null!=e}function r(e){return!0===e}function i(e){return"
    '"string"==typeof e||"number"==typeof e||"symbol"==typeof e||"boolean"==typeof e}function o(e){return null!==e&&'
    '"object"==typeof e}var a=Object.prototype.toString;function s(e){return"[object Object]"===a.call(e)}});',
    "a regular expression": r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$|^([0-9a-fA-F]{1,4}:){7}[0-9a-f]{1,4}$",
    "digits of pi": "3." + letters(300, string.digits),
    "bits": letters(400, "01"),
    "rules": "=" * 90 + "\n" + "-" * 200 + "\n" + "_" * 100 + "\n" + "ha" * 60 + "\n" + "a" * 150,
    "acronyms": "NATO, the EU, UNESCO, UNICEF, the WHO, the IMF and the OECD met; NASA, ESA, JAXA and CNES did not.",
    "a table": "| id | name |\n|----|------|\n" + "\n".join(f"| {at} | name{at} |" for at in range(30)),
    "Finnish": "Hyvää päivää, haluaisin tietää milloin seuraava juna lähtee Helsinkiin ja paljonko lippu maksaa.",
    "Hungarian": "Szeretnék megtudni, hogy mikor indul a következő vonat Budapestre, és mennyibe kerül a jegy.",
    "Welsh": "Hoffwn wybod pryd mae'r trên nesaf yn gadael am Gaerdydd, a faint mae'r tocyn yn ei gostio heddiw.",
    "Swahili": "Ningependa kujua treni inayofuata inaondoka lini kwenda Nairobi na tiketi inagharimu kiasi gani leo.",
    "Zulu": "Ngingathanda ukwazi ukuthi isitimela esilandelayo sihamba nini siye eGoli futhi ithikithi libiza malini.",
    "Polish without accents": "Chcialbym sie dowiedziec, kiedy odjezdza nastepny pociag do Krakowa i ile kosztuje.",
    "Pinyin": "Qing wen, qu huo che zhan zen me zou? Wo xiang zai xia wu wu dian zhi qian mai yi zhang qu Shanghai.",
    "Icelandic": "Mig langar til að vita hvenær næsta lest fer til Reykjavíkur og hvað miðinn kostar um þessar mundir.",
    "Basque": "Jakin nahi nuke noiz irteten den hurrengo trena Bilbora eta zenbat balio duen txartelak gaur egun.",
    "nonsense": "Twas brillig, and the slithy toves did gyre and gimble in the wabe; all mimsy were the borogoves.",
}  # fmt: skip


@pytest.mark.parametrize("kind", EVERYDAY)
def test_everyday_text_that_looks_like_it_is_left_alone(kind: str) -> None:
    assert found(EVERYDAY[kind]) == []
    assert found(PROSE + EVERYDAY[kind] + "\n" + PROSE) == []


@pytest.mark.parametrize("language", PLAIN)
def test_languages_are_left_alone_with_and_without_spaces(language: str) -> None:
    assert found(PLAIN[language] * 4) == []
    assert found(PLAIN[language].replace(" ", "") * 4) == []


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(), max_size=300) | st.lists(st.sampled_from(BLOW_UPS), max_size=90).map("".join))
def test_blobs_are_in_order_apart_and_within_the_text(text: str) -> None:
    last = 0
    for blob in blobs(text, (View("raw", text),)):
        assert last <= blob.start < blob.end <= len(text)
        assert 0 < blob.score < 1
        last = blob.end


@settings(deadline=None)
@given(size=st.integers(90, 600), seed=st.integers(0, 10_000))
def test_random_bytes_in_base64_and_hex_are_found(size: int, seed: int) -> None:
    for text in (b64(noise(size, seed)), noise(size, seed).hex()):
        assert blobs(f"Read {text} now.") == [Blob(5, 5 + len(text), len(text) / (len(text) + 256))]


@pytest.mark.parametrize(
    "unit", [*BLOW_UPS, "Ab1", "A" * 61 + "\n", "ab ", "4f ", "a/", "key=", "eyJ.", "qz xk "], ids=ascii
)
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    # If any pattern were quadratic, this would hang.
    assert blobs(unit * 15_000 + "z") is not None


def test_of_very_many_passages_the_longest_are_told_at_bounded_cost() -> None:
    text = " ".join(b64(noise(75 + 3 * (number % 2), number)) for number in range(600))
    found = blobs(text, (View("raw", text), View("base64", text + "."), View("hex", text + "..")))
    assert len(found) == 256
    assert {blob.end - blob.start for blob in found} == {104}


def test_bytes_that_are_set_apart_by_dashes_are_one_passage() -> None:
    text = noise(90).hex("-")
    assert [(blob.start, blob.end) for blob in blobs(text)] == [(0, len(text))]
