"""Proliferation: variants of a confirmed exemplar, offered to the person who decides what goes into the bank.

Variants are made by rules (``rewordings``, ``disguises``), and, where one is handed in, by a ``Rewriter``: a model that
paraphrases and translates. Nothing here calls one. Each variant is measured against the bank and dropped when it says
nothing new or no longer says the same:

* it is the origin again (an id reads through case, compatibility forms and white space), or in the bank already;
* a disguise that ``views`` cannot undo here, so that the bank could not see through it either;
* it is farther from its origin than ``least_similarity``;
* the benign margin: it is nearer to a benign exemplar than to its origin. That is how the wording has drifted over to
  the harmless side, and as an exemplar it would hit what is harmless.

The same origin, bank and seed give the same variants. What is offered is in quarantine, of the origin's family.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.bank import WINDOW_TOKENS, Bank, prompt_ids
from antiprompt_bank.dedupe import NEAR_COPY, grams, likeness, normalised
from antiprompt_bank.disguises import DISGUISES
from antiprompt_bank.neighbours import PROMPT_SHARE
from antiprompt_bank.records import Antiprompt, State
from antiprompt_bank.rewordings import ANY_LANGUAGE, FRAMINGS, REQUESTS_ONLY, WORDS, Rewording
from antiprompt_bank.views import View, views
from antiprompt_bank.windows import windows

Way = Literal["words", "framings", "disguises", "rewriter"]
WAYS: Final[tuple[Way, ...]] = ("words", "framings", "disguises", "rewriter")

LEAST_SIMILARITY: Final = 0.6
"""Cosine to the origin below which a variant is another text."""

_ROUNDS: Final = 6
"""How often each technique is tried; chance makes them differ."""

_MOST_CHARS: Final = 4000


class Rewriter(Protocol):
    """A model that rewords; it may say the same in other languages."""

    def __call__(self, text: str, *, count: int) -> Sequence[tuple[str, str]]:
        """At most ``count`` rewordings, each with its language (``de``)."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant: the exemplar it would be, how it was made, its cosine to its origin, and by how much it is nearer to
    that than to any benign exemplar."""

    record: Antiprompt
    way: Way
    technique: str
    similarity: float
    margin: float


@dataclass(slots=True)
class Offer:
    """What is offered, and how many were dropped for which reason."""

    variants: list[Variant] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def proliferate(
    origin: Antiprompt,
    bank: Bank,
    *,
    count: int = 20,
    seed: int = 0,
    ways: Sequence[Way] = WAYS,
    least_similarity: float = LEAST_SIMILARITY,
    rewriter: Rewriter | None = None,
    created_at: str | None = None,
) -> Offer:
    """At most ``count`` variants of an exemplar, techniques in turn so that a few show many of them.

    Raises ``ValueError`` for an origin that is benign, not confirmed (in quarantine or retired) or very long.
    """
    if not origin.harmful or origin.state in (State.QUARANTINE, State.RETIRED):
        raise ValueError(
            f"{origin.id} is {origin.state} and {origin.label}; only confirmed harmful exemplars have variants"
        )
    if len(origin.text) > _MOST_CHARS:
        raise ValueError(
            f"{origin.id} has {len(origin.text)} characters, more than {_MOST_CHARS}: take the part that counts"
        )
    offer, ruler = Offer(), _Ruler(origin, bank)
    seen = {origin.id} | {record.id for record in bank.records}
    for way, technique, text, language in _made(origin, ways, seed, rewriter, count):
        if len(offer.variants) == count:
            break
        record = replace(
            origin,
            text=text,
            language=language,
            state=State.QUARANTINE,
            source=f"proliferated:{origin.id}",
            family=origin.family or origin.id,
            created_at=created_at,
            expires_at=None,
        )
        if record.id in seen:
            offer.dropped["there already"] += 1
            continue
        seen.add(record.id)
        if way == "disguises" and not _reads_back(text, origin.text):
            offer.dropped["not undone by any view"] += 1
            continue
        similarity, margin = ruler.measure(text)
        if similarity < least_similarity:
            offer.dropped["too far from its origin"] += 1
        elif margin <= 0:
            offer.dropped["nearer to a benign exemplar"] += 1
        else:
            offer.variants.append(Variant(record, way, technique, similarity, margin))
    return offer


def _made(
    origin: Antiprompt, ways: Sequence[Way], seed: int, rewriter: Rewriter | None, count: int
) -> Iterator[tuple[Way, str, str, str]]:
    """Way, technique, text and language of each try, one of each way in turn."""
    if rewriter is not None and "rewriter" in ways:
        for language, text in _rewritten(rewriter, origin.text, count):
            yield "rewriter", "rewriter", text, language
    english, asks = origin.language == "en", origin.side == "request"
    words = {
        name: edit
        for name, edit in WORDS.items()
        if (english or name in ANY_LANGUAGE) and (asks or name not in REQUESTS_ONLY)
    }
    tables: dict[Way, Mapping[str, Rewording]] = {
        "words": words,
        "framings": FRAMINGS if english and asks else {},
        "disguises": DISGUISES,
    }
    turns = [_tries(origin, way, tables[way], words, seed) for way in tables if way in ways]
    while turns:
        for turn in list(turns):
            made = next(turn, None)
            if made is None:
                turns.remove(turn)
            elif made[2].strip():
                yield *made, origin.language


def _tries(
    origin: Antiprompt, way: Way, table: Mapping[str, Rewording], words: Mapping[str, Rewording], seed: int
) -> Iterator[tuple[Way, str, str]]:
    """All techniques of a way, in an order of chance, then again: rewordings on top of another edit of the words."""
    chance = Random(f"{seed} {origin.id} {way}")  # noqa: S311  # so that the same seed gives the same
    for turn in range(_ROUNDS):
        for technique in chance.sample(sorted(table), len(table)):
            name, text = technique, origin.text
            if turn and way != "disguises":
                first = chance.choice(sorted(words))
                name, text = f"{first}, {technique}", words[first](text, chance)
            yield way, name, table[technique](text, chance)


def _rewritten(rewriter: Rewriter, text: str, count: int) -> Iterator[tuple[str, str]]:
    for language, reworded in list(rewriter(text, count=count))[:count]:
        if reworded.strip() and len(reworded) <= _MOST_CHARS:
            yield language, reworded


def _reads_back(disguised: str, plain: str) -> bool:
    """Whether a view shows what a disguised text says."""
    said = normalised(plain)
    runs = grams(said)
    for view in views(disguised):
        read = normalised(view.text)
        if said in read or likeness(runs, grams(read)) > NEAR_COPY:
            return True
    return False


class _Ruler:
    """How near texts are to one exemplar, and to the benign ones that are compared with such texts."""

    def __init__(self, origin: Antiprompt, bank: Bank) -> None:
        self._encoder = bank.encoder
        self._origin = self._vectors(View("raw", origin.text))
        now = datetime.now(UTC)
        benign = np.array(
            [not r.harmful and r.side == origin.side and r.live_at(now) for r in bank.records], dtype=bool
        )
        own = np.flatnonzero(benign[bank.rows.record] & ~bank.rows.pair)
        self._alone = bank.vectors[own]
        self._paired = self._alone[:0]
        self._prompts = np.zeros(0, dtype=np.float32)
        ids = prompt_ids(origin.prompt, self._encoder)
        if ids is not None:
            # As the bank does: an answer whose prompt is known is compared with such answers as a pair.
            prompt_of = {int(answer): row for row, answer in enumerate(bank.rows.answer) if bank.rows.pair[row]}
            with_prompt = np.array([int(row) in prompt_of for row in own], dtype=bool)
            self._paired, self._alone = self._alone[with_prompt], self._alone[~with_prompt]
            prompts = bank.vectors[[prompt_of[int(row)] for row in own[with_prompt]]]
            self._prompts = prompts @ self._encoder.encode([ids])[0]

    def measure(self, text: str) -> tuple[float, float]:
        """Cosine to the origin of the window that is nearest to it, and its margin over the nearest benign exemplar."""
        read = np.concatenate([self._vectors(view) for view in views(text)])
        near = (read @ self._origin.T).max(axis=1)
        at = int(near.argmax())
        similarity = float(min(near[at], 1.0))
        alone = similarity - float((self._alone @ read[at]).max(initial=-1.0))
        pairs = (1 - PROMPT_SHARE) * (self._paired @ read[at]) + PROMPT_SHARE * self._prompts
        return similarity, min(alone, (1 - PROMPT_SHARE) * similarity + PROMPT_SHARE - float(pairs.max(initial=-1.0)))

    def _vectors(self, view: View) -> NDArray[np.float32]:
        cut = windows(view, self._encoder.tokenize(view.text), window_tokens=WINDOW_TOKENS)
        ids = [window.ids for window in cut]
        return self._encoder.encode(ids) if ids else np.zeros((1, self._encoder.dimensions), dtype=np.float32)
