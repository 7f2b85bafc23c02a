"""Moderations: ``/moderations``, answered here, by the gateway's own detector, in OpenAI's exact form."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from antiprompt_bank.hazards import HAZARDS, OPENAI_CATEGORIES
from gateway.wire.places import Malformed, expected, is_text
from gateway.wire.surface import Extracted, Json, Place, Role, Text, Unreadable


class Moderations:
    """Reads ``POST /moderations``. Nothing goes upstream, so this is no ``Surface``."""

    name = "moderations"
    path = "/moderations"

    def read_request(self, body: Json) -> Extracted:
        """The texts of ``input``; each text's ``choice`` numbers the result it belongs to. Raises ``BadRequest``.

        A string has one result, a list of strings one each; a list of parts (text, image_url) is one input and has
        one result. Parts share a turn, since they are read together; separate strings have none. Images are unreadable.
        """
        try:
            return _read(body.get("input"))
        except Malformed as error:
            raise error.as_bad_request() from None

    def result_count(self, body: Json) -> int:
        """How many results the reply to a valid request holds."""
        given = body["input"]
        return len(given) if isinstance(given, list) and isinstance(given[0], str) else 1

    def reply(
        self,
        results: Sequence[Mapping[str, float]],
        hits: Sequence[Collection[str]],
        *,
        model: str,
        reply_id: str,
        with_scores: bool,
    ) -> Json:
        """OpenAI's reply: for each input its risk by hazard (``results``, in [0, 1]) and the hazards it hit (``hits``).

        A hit switches on every category that ``antiprompt_bank.hazards`` maps its hazard to. ``flagged`` is true for
        any hit, also of a hazard for which OpenAI has no category (jailbreak, elections, ...): a caller who reads
        only ``flagged`` must not miss one. Not for a mere signal (unreadable), which is no harm. A category's score is
        the largest risk of its hazards; without ``with_scores`` it is 1.0 where the category is on and 0.0 where not,
        since scores would map the bank for an attacker. ``reply_id`` begins with ``modr-``. Raises ``KeyError`` for an
        unknown hazard, ``ValueError`` if the lengths differ.
        """
        return {
            "id": reply_id,
            "model": model,
            "results": [_result(risks, hit, with_scores) for risks, hit in zip(results, hits, strict=True)],
        }


def _result(risks: Mapping[str, float], hit: Collection[str], with_scores: bool) -> Json:
    on = {category for hazard in hit for category in HAZARDS[hazard].openai}
    scores = dict.fromkeys(OPENAI_CATEGORIES, 0.0)
    if with_scores:
        for hazard, risk in risks.items():
            for category in HAZARDS[hazard].openai:
                scores[category] = max(scores[category], float(risk))
    else:
        scores.update(dict.fromkeys(on, 1.0))
    return {
        "flagged": any(not HAZARDS[hazard].signal for hazard in hit),
        "categories": {category: category in on for category in OPENAI_CATEGORIES},
        "category_scores": scores,
        "category_applied_input_types": {category: ["text"] for category in OPENAI_CATEGORIES},
    }


def _read(given: object) -> Extracted:
    if isinstance(given, str):
        return Extracted(_text(("input",), given))
    if not isinstance(given, list) or not given:
        raise Malformed(("input",), "must be a string, or an array of strings or parts that is not empty")
    texts: list[Text] = []
    unreadable: list[Unreadable] = []
    separate = isinstance(given[0], str)
    for index, each in enumerate(given):
        place = ("input", index)
        if separate:
            texts += _text(place, expected(each, str, place), turn=-1, result=index)
            continue
        kind = expected(each, dict, place).get("type")
        if kind == "text":
            texts += _text((*place, "text"), expected(each.get("text"), str, (*place, "text")))
        elif kind == "image_url":
            unreadable.append(Unreadable(place, "image"))
        else:
            raise Malformed((*place, "type"), "must be text or image_url")
    return Extracted(tuple(texts), tuple(unreadable))


def _text(place: Place, text: str, *, turn: int = 0, result: int = 0) -> tuple[Text, ...]:
    return (Text(place, text, Role.USER, turn=turn, choice=result),) if is_text(text) else ()
