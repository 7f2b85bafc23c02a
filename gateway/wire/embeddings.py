"""Embeddings: ``/embeddings``."""

from __future__ import annotations

from gateway.wire.input_only import InputOnly, MediaStream
from gateway.wire.places import Malformed, expected, is_text
from gateway.wire.surface import Extracted, Json, ReplyStream, Role, Text, Unreadable


class Embeddings(InputOnly):
    """Reads ``POST /embeddings``: a string, strings, or token ids, which cannot be read without their tokenizer."""

    name = "embeddings"
    path = "/embeddings"
    streams = False

    def read_request(self, body: Json) -> Extracted:
        """Each string of ``input``; lists of token ids are unreadable. Raises ``BadRequest``.

        Strings have no turn: they are separate inputs, not a conversation.
        """
        try:
            return _read(body.get("input"))
        except Malformed as error:
            raise error.as_bad_request() from None

    def reply_stream(self, request: Json) -> ReplyStream:
        """A reader that expects no text; the API does not stream embeddings."""
        return MediaStream(media=("embedding",), fixed=(), last=())


def _read(given: object) -> Extracted:
    if isinstance(given, str):
        return Extracted((Text(("input",), given, Role.USER),) if is_text(given) else ())
    if not isinstance(given, list) or not given:
        raise Malformed(("input",), "must be a string, or an array of strings or token ids that is not empty")
    if _all_integers(given):
        return Extracted(unreadable=(Unreadable(("input",), "tokens"),))
    texts: list[Text] = []
    unreadable: list[Unreadable] = []
    for index, each in enumerate(given):
        place = ("input", index)
        if isinstance(each, list) and _all_integers(each):
            unreadable.append(Unreadable(place, "tokens"))
        elif is_text(expected(each, str, place)):
            texts.append(Text(place, each, Role.USER))
    return Extracted(tuple(texts), tuple(unreadable))


def _all_integers(values: list[object]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)
