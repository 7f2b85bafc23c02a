"""The streamed reply of chat completions: which texts each chunk brings.

Every string of a choice's ``delta`` counts as text but its identifiers, so that a field this file does not know is
screened as well. The channel of a tool call's arguments is ``(0, "tool_calls", 1, "arguments")``.
"""

from __future__ import annotations

from gateway.streaming import Delta, JsonText
from gateway.wire.choices import PLAIN_OF_CHOICE, ChoiceStream, joined_text, other_texts
from gateway.wire.places import expected
from gateway.wire.surface import Json, Place

CHUNK = "chat.completion.chunk"

SOUND = frozenset(("data",))
"""What an audio reply holds besides text; what it says is in its ``transcript``."""


def chunk(head: Json, index: int, delta: Json, finish: str | None = None) -> Json:
    """One chunk for one choice; ``head`` has the chunk's own fields (``id``, ``created``, ...)."""
    return {**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]}


def token_text(logprobs: object, place: Place) -> str:
    """What log probabilities spell out. Raises ``Malformed``. Alternatives that were not taken are no text."""
    if logprobs is None:
        return ""
    lists = [expected(logprobs, dict, place).get(name) for name in ("content", "refusal")]
    tokens = [
        expected(token, dict, place).get("token") for each in lists for token in expected(each or [], list, place)
    ]
    return "".join([expected(token, str, place) for token in tokens])


class ChatStream(ChoiceStream):
    """Reads the chunks of one reply. A ``message`` in a chunk, as some servers send, repeats the whole texts."""

    kind = CHUNK
    said_in = "content"
    max_choices = 128  # the most that ``n`` may be, says the API's reference

    def __init__(self, request: Json) -> None:
        super().__init__(request)
        self._escaped: dict[Place, JsonText] = {}

    def _chunk(self, head: Json, index: int, *, finish: str) -> Json:
        return chunk(head, index, {}, finish)

    def _read_choice(self, index: int, choice: Json, place: Place) -> list[Delta]:
        found: list[Delta] = []
        delta = choice.get("delta")
        if delta is not None:
            self._read_fields(found, (index,), expected(delta, dict, (*place, "delta")), whole=False)
        if choice.get("message") is not None:
            message = expected(choice["message"], dict, (*place, "message"))
            self._read_fields(found, (index,), message, whole=True)
        if choice.get("logprobs") is not None:
            spelt = token_text(choice["logprobs"], (*place, "logprobs"))
            # Only what differs from the text beside it: tokens that cut a character, or a server that lies.
            if spelt and not any(spelt == said.text for said in found):
                found.append(Delta((index, "logprobs"), spelt))
        if not choice.keys() <= PLAIN_OF_CHOICE:
            found += other_texts((index,), choice, PLAIN_OF_CHOICE)
        return found

    def _read_fields(self, found: list[Delta], channel: Place, fields: Json, *, whole: bool) -> None:
        """All texts of a delta, or of a message that repeats the whole."""
        for field, value in fields.items():
            if not value:
                continue
            here = (*channel, field)
            if field == "content" and isinstance(value, str):
                found.append(Delta(here, value, whole))
            elif field == "content":  # parts, as some servers stream them: their texts continue one another
                found += joined_text(here, value, whole=whole, between="")
            elif field == "tool_calls":
                for position, call in enumerate(expected(value, list, here)):
                    self._read_call(found, here, position, expected(call, dict, here), whole=whole)
            elif field == "function_call":
                self._read_function(found, here, value, whole=whole)
            elif field == "audio":
                found += other_texts(here, expected(value, dict, here), SOUND, whole=whole)
            else:
                found += joined_text(here, value, whole=whole)

    def _read_call(self, found: list[Delta], channel: Place, position: int, call: Json, *, whole: bool) -> None:
        index = call.get("index")
        # Some servers send whole calls without an index.
        here = (*channel, index if type(index) is int else position)
        for field, value in call.items():
            if field in ("function", "custom"):
                self._read_function(found, here, value, whole=whole)
            else:
                found += joined_text((*here, field), value, whole=whole)

    def _read_function(self, found: list[Delta], channel: Place, function: object, *, whole: bool) -> None:
        """A name with arguments or input; the escapes of the arguments' JSON are undone."""
        if function is None:
            return
        for field, value in expected(function, dict, channel).items():
            here = (*channel, field)
            if field == "arguments" and isinstance(value, str):
                text = self._unescaped(here, value, whole=whole)
                if text:
                    found.append(Delta(here, text, whole))
            else:
                found += joined_text(here, value, whole=whole)

    def _unescaped(self, channel: Place, encoded: str, *, whole: bool) -> str:
        if whole:
            return JsonText().feed(encoded)
        reader = self._escaped.get(channel)
        if reader is None:
            reader = self._escaped[channel] = JsonText()
        return reader.feed(encoded)
