"""Which language a text is in, as far as its letters and its commonest words tell; for sorting, not for deciding."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Final

_READ_CHARS: Final = 2000
_LEAST_WORDS: Final = 2
"""Common words of one language that a text needs, more than of any other, before it is said to be in it."""

_SCRIPTS: Final = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
    "HANGUL": "ko",
    "ARABIC": "ar",
    "HEBREW": "he",
    "GREEK": "el",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "THAI": "th",
    "CYRILLIC": "ru",
}
"""By the first word of a letter's name; of languages that share a script, the one that most people write."""

_WORDS: Final = {
    "en": "the and of to is that it for you with this are what how not from your have my do can me i a in on be an if",
    "de": "der die das und ist nicht ich du ein eine wie mit für auf zu den von es sich im was kann man mir dem wenn",
    "fr": "le la les et est une des du je vous pas que pour qui dans comment sur avec ce il elle mon ma un en au si",
    "es": "el la los las y es una que de por para cómo con no en mi se del un lo su al más qué si como está puedo",
    "it": "il lo la gli e è una che di per come con non in mi si del un della sono cosa questo più al se posso da",
    "pt": "o os as e é uma que de para como com não em meu se do da um por no na mais isso você posso ao eu",
    "nl": "de het een en is niet ik je hoe met voor op te van dat die kan mijn wat zijn aan er als om naar in",
    "sv": "och att det är en ett som jag inte hur med för på av den du kan min till om har vad i så",
    "pl": "i w na nie jest się to jak z do że co o ja mi za po czy dla od jestem można ten być mój",
    "tr": "ve bir bu için ne nasıl ile mi mı çok ben da de var yok gibi olarak daha benim kadar ama o şu",
    "id": "dan yang di untuk itu ini tidak dengan saya bagaimana cara ke dari apa adalah bisa kamu pada akan ada",
    "vi": "và là của không tôi cho có một những để với làm thế nào được này trong khi người bạn cách",
}
_LANGUAGES_OF: Final[dict[str, list[str]]] = {}
for _language, _words in _WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_language)


def language_of(text: str) -> str | None:
    """The language of a text's first 2,000 characters (ISO 639-1), or None where nothing speaks clearly for one."""
    start = unicodedata.normalize("NFC", text[:_READ_CHARS])
    letters = [letter for letter in start if letter.isalpha()]
    scripts = Counter(unicodedata.name(letter, "").split(" ")[0] for letter in letters)
    if not letters:
        return None
    script, count = scripts.most_common(1)[0]
    if script != "LATIN":
        if script == "CJK" and scripts["HIRAGANA"] + scripts["KATAKANA"] > 0:  # Chinese is never written with kana
            return "ja"
        return _SCRIPTS.get(script) if count > len(letters) / 2 else None
    votes: Counter[str] = Counter()
    for word in re.findall(r"[^\W\d_]+", start.lower()):
        for language in _LANGUAGES_OF.get(word, ()):
            votes[language] += 1
    (first, most), (_, next_most), *_ = [*votes.most_common(2), ("", 0), ("", 0)]
    return first if most >= _LEAST_WORDS and most > next_most else None
