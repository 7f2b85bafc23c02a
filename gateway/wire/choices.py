"""What the two formats with numbered choices share: chat completions and completions.

Both answer with ``choices``, streamed or whole, and both are read alike: a field of the reply or of a choice that is
not known to hold something else counts as text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from gateway.streaming import Delta
from gateway.wire.places import Malformed, expected, is_identifier, leaves
from gateway.wire.surface import Json, Named, Place

NO_TOKENS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
"""The usage of an answer of our own: no model ran, so nobody is to be billed."""

PLAIN_OF_REPLY = frozenset(
    """choices id object created model system_fingerprint service_tier usage metadata moderation obfuscation error
    prompt_logprobs prompt_token_ids prompt_filter_results""".split()  # noqa: SIM905 - a block of words reads better
)
"""Fields of a reply or chunk that hold no text of the model's, or are read by name."""

PLAIN_OF_CHOICE = frozenset(
    """text delta message index finish_reason native_finish_reason stop_reason logprobs prompt_logprobs token_ids
    prompt_token_ids content_filter_results""".split()  # noqa: SIM905 - a block of words reads better
)
"""The same of a choice."""

_HEAD = ("id", "created", "model", "system_fingerprint")


class ChoiceStream(ABC):
    """Reads the chunks of one reply (``surface.ReplyStream``).

    A channel is the choice's number and the path of the field: ``(0, "content")``. What stands outside the choices
    has the channel ``("reply", field)``.
    """

    kind: str  # what each chunk calls itself
    said_in: str  # the field with a choice's words
    max_choices: int  # bounds what a caller or an upstream can make the reader remember

    def __init__(self, request: Json, *, prompts: int = 1) -> None:
        model = request.get("model")
        self._open = dict.fromkeys(range(choice_count(request, prompts=prompts, most=self.max_choices)), True)
        self._head: Json = {"id": "", "created": 0, "model": model if isinstance(model, str) else ""}
        self._head["object"] = self.kind

    def read(self, name: str | None, payload: Json) -> Sequence[Delta]:
        """The texts of one chunk. Raises ``ValueError`` where it is no chunk of such a reply."""
        if not self._head["id"]:  # of the first chunk that has one: Azure sends one of blanks before the reply
            self._head.update((key, payload[key]) for key in _HEAD if key in payload)
        found: list[Delta] = []
        choices = payload.get("choices")
        if choices:
            for position, choice in enumerate(expected(choices, list, ("choices",))):
                place = ("choices", position)
                index = expected(choice, dict, place).get("index")
                if index is None:
                    index = position
                elif type(index) is not int:
                    raise Malformed((*place, "index"), "must be an integer")
                found += self._read_choice(index, choice, place)
                self._follow(index, choice, place)
        if not payload.keys() <= PLAIN_OF_REPLY:
            # Whole, because some servers repeat such a field (citations) in every chunk.
            found += other_texts(("reply",), payload, PLAIN_OF_REPLY, whole=True)
        return found

    @property
    def ended(self) -> bool:
        return not any(self._open.values())

    def spoken(self, channel: Place) -> int | None:
        """The choice, where the channel carries its words."""
        choice, *field = channel
        return choice if field == [self.said_in] and isinstance(choice, int) else None

    def close(self, held: Sequence[Json] = ()) -> Sequence[Named]:
        """For each open choice one chunk without text and with ``finish_reason: "content_filter"``.

        A choice that ends in one of the ``held`` payloads is open to the client.
        """
        ended_unseen = {index for payload in held for index in _finished(payload)}
        still_open = [index for index, open_ in self._open.items() if open_ or index in ended_unseen]
        return [(None, self._chunk(self._head, index, finish="content_filter")) for index in still_open]

    def _follow(self, index: int, choice: Json, place: Place) -> None:
        """Note whether the choice is open."""
        if choice.get("finish_reason"):
            self._open[index] = False
        elif index not in self._open:
            if len(self._open) >= self.max_choices:
                raise Malformed(place, "is one choice too many")
            self._open[index] = True

    @abstractmethod
    def _read_choice(self, index: int, choice: Json, place: Place) -> list[Delta]:
        """The texts that a chunk brings for one choice."""

    @abstractmethod
    def _chunk(self, head: Json, index: int, *, finish: str) -> Json:
        """A chunk for one choice that only ends it."""


def choice_count(request: Json, *, prompts: int = 1, most: int) -> int:
    """How many choices a request asks for, at most ``most``: what a caller writes there was checked by nobody."""
    n = request.get("n")
    return min(prompts * (n if isinstance(n, int) and n > 0 else 1), most)


def _finished(payload: Json) -> Iterator[int]:
    """The choices that a chunk ends; the chunk was read before, so it has the form of one."""
    for position, choice in enumerate(payload.get("choices") or ()):
        if choice.get("finish_reason"):
            index = choice.get("index")
            yield position if index is None else index


def choice_number(choice: object, position: int, place: Place) -> int:
    """The number of a choice in a whole reply; its position where it states none. Raises ``Malformed``."""
    index = expected(choice, dict, place).get("index")
    return position if index is None else expected(index, int, (*place, "index"))


def other_texts(channel: Place, fields: Json, but: frozenset[str], *, whole: bool = False) -> list[Delta]:
    """The texts of the fields that are not in ``but``: one piece for each field."""
    found: list[Delta] = []
    for field, value in fields.items():
        if field not in but:
            found += joined_text((*channel, field), value, whole=whole)
    return found


def joined_text(channel: Place, value: object, *, whole: bool, between: str = "\n") -> list[Delta]:
    """All texts at or below a value as one piece; none where there is nothing but identifiers."""
    if isinstance(value, str):
        return [Delta(channel, value, whole)] if value and not is_identifier(channel, value) else []
    text = between.join([text for place, text in leaves(value, channel) if not is_identifier(place, text)])
    return [Delta(channel, text, whole)] if text else []
