"""The stream of the responses API: which text each event brings, and how to end a stream that was cut.

The API says the same text up to five times: in fragments (``*.delta``), whole (``*.done``), in its part, in its item,
and in the response that the last event embeds. Fragments and repetitions go to one channel, the path of the text in
the response: ``("output", 0, "content", 0, "text")``. Text that never comes in fragments (titles, queries, search
results, tool lists) goes to one channel for each speaker, ``("rest", "assistant")``, and only the first time it is
seen: events leave in order, so what an earlier event brought has been screened when a later one repeats it. An event
of an unknown type is taken for a fragment, with channels of its own: ``("event", type, ...)``.

Source of the formats: the ``openai`` package, ``types/responses/response_stream_event.py``, version 3.52.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from gateway.streaming import Delta, JsonText
from gateway.wire.places import expected
from gateway.wire.response_items import Reading
from gateway.wire.responses_reply import blank_response, read_response, wants_structure
from gateway.wire.surface import Json, Named, Place, Role, Text, Unreadable

_FRAGMENTS: Final[dict[str, tuple[str, tuple[str, ...], bool]]] = {}
"""Event type -> the field that holds text, the path of that text in its item, whether it is the full text."""

for _name, _path, _full in (
    ("output_text", ("content", "content_index", "text"), "text"),
    ("refusal", ("content", "content_index", "refusal"), "refusal"),
    ("reasoning_text", ("content", "content_index", "text"), "text"),
    ("reasoning_summary_text", ("summary", "summary_index", "text"), "text"),
    ("function_call_arguments", ("arguments",), "arguments"),
    ("mcp_call_arguments", ("arguments",), "arguments"),
    ("custom_tool_call_input", ("input",), "input"),
    ("code_interpreter_call_code", ("code",), "code"),
    ("shell_call_command", ("action", "commands", "command_index"), "command"),
):
    _FRAGMENTS[f"response.{_name}.delta"] = ("delta", _path, False)
    _FRAGMENTS[f"response.{_name}.done"] = (_full, _path, True)
_FRAGMENTS["response.shell_call_command.added"] = ("command", ("action", "commands", "command_index"), True)
_FRAGMENTS["response.audio.transcript.delta"] = ("delta", ("transcript",), False)

_SPOKEN: Final = ("response.output_text.delta", "response.output_text.done")
_ITEMS: Final = ("response.output_item.added", "response.output_item.done")
_PARTS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "response.content_part.added": ("part", ("content", "content_index")),
    "response.content_part.done": ("part", ("content", "content_index")),
    "response.reasoning_summary_part.added": ("part", ("summary", "summary_index")),
    "response.reasoning_summary_part.done": ("part", ("summary", "summary_index")),
    "response.output_text.annotation.added": (
        "annotation",
        ("content", "content_index", "annotations", "annotation_index"),
    ),
}
_SHELL_OUTPUT: Final = "response.shell_call_output_content."
_MEDIA: Final[dict[str, tuple[str, Literal["audio", "image"]]]] = {
    "response.audio.delta": ("delta", "audio"),
    "response.image_generation_call.partial_image": ("partial_image_b64", "image"),
}
_LAST: Final = ("response.completed", "response.incomplete", "response.failed", "response.cancelled", "error")

_FRAME: Final = frozenset(
    """type sequence_number item_id output_index content_index summary_index command_index annotation_index
    partial_image_index obfuscation logprobs""".split()  # noqa: SIM905 - a block of words reads better
)
"""Fields of known events that hold no text: positions, padding, and log probabilities, which spell out the text of
their own event once more."""


class ResponsesStream:
    """Reads one streamed reply (a ``ReplyStream``).

    ``unreadable`` lists the images and sounds that came in it, beside the texts.
    """

    __slots__ = (
        "_encoded",
        "_json_answer",
        "_opened",
        "_request",
        "_seen",
        "_sequence",
        "_spoken",
        "ended",
        "unreadable",
    )

    def __init__(self, request: Json) -> None:
        self._request = request
        self._opened: Json | None = None  # the response as its first event showed it, before any text
        self._sequence = -1
        self._seen: set[str] = set()
        self._json_answer = wants_structure(request)
        self._encoded: dict[Place, JsonText] = {}
        self._spoken: dict[Place, int] = {}
        self.ended = False
        self.unreadable: list[Unreadable] = []

    def read(self, name: str | None, payload: Json) -> Sequence[Delta]:
        """The texts that this event brings, by channel. Raises ``ValueError`` where it cannot be read."""
        kind = expected(payload.get("type", name), str, ("type",))
        sequence = payload.get("sequence_number")
        if isinstance(sequence, int):
            self._sequence = max(self._sequence, sequence)
        deltas, field = self._known(kind, payload)
        rest = payload.keys() - _FRAME - {field} if field else payload.keys()
        if rest:
            found = self._found({key: value for key, value in payload.items() if key in rest})
            if field:
                deltas += self._all_whole(found)
            else:
                deltas += [Delta(("event", kind, *text.place), text.text) for text in found]
        if kind == "response.created" and field and not deltas:
            self._opened = payload[field]
        self.ended = self.ended or kind in _LAST
        return deltas

    def spoken(self, channel: Place) -> int | None:
        """Which message's words the channel carries, by number; None for an answer in JSON, reasoning, tool calls."""
        return self._spoken.get(channel)

    def close(self, held: Sequence[Json] = ()) -> Sequence[Named]:
        """One ``response.incomplete`` event for the reason ``content_filter``.

        What of the text was released is known to whoever released it, not here, so the response that the event embeds
        has no output: a client keeps what was streamed to it. That the reply's own last event was read changes
        nothing, since it is held. ``response.created`` comes first where it was not read, or brought text and so may
        be held; a reply of which nothing at all was sent is better answered with ``answer_events``.
        """
        model = self._request.get("model")
        opened = self._opened or blank_response(
            self._request, reply_id="resp_unopened", model=model if isinstance(model, str) else "", created_at=0
        )
        events: list[Json] = [] if self._opened else [{"type": "response.created", "response": opened}]
        cut = {
            **opened,
            "status": "incomplete",
            "incomplete_details": {"reason": "content_filter"},
            "error": None,
            "output": [],
        }
        events.append({"type": "response.incomplete", "response": cut})
        return [
            (event["type"], {**event, "sequence_number": number})
            for number, event in enumerate(events, self._sequence + 1)
        ]

    def _known(self, kind: str, payload: Json) -> tuple[list[Delta], str]:
        """The texts of the field that this type of event is about, and the name of that field."""
        if kind in _FRAGMENTS:
            field, path, whole = _FRAGMENTS[kind]
            deltas = self._fragment(payload, field, path, whole=whole)
            if kind in _SPOKEN and deltas and not self._json_answer:
                self._spoken.setdefault(deltas[0].channel, len(self._spoken))
            return deltas, field
        reading = Reading(decode=False, of_reply=True)
        output = ("output", _index(payload, "output_index"))
        field = ""
        if kind in _ITEMS:
            field = "item"
            if payload.get(field) is not None:
                reading.item(payload[field], output, turn=-1, stranger=Role.ASSISTANT)
        elif kind in _PARTS:
            field, path = _PARTS[kind]
            reading.value(payload.get(field), (*output, *_steps(payload, path)), Role.ASSISTANT, turn=-1)
        elif kind in _MEDIA:
            field, sort = _MEDIA[kind]
            self._note([Unreadable((*output, field), sort)])
        elif kind.startswith(_SHELL_OUTPUT):
            field = "delta" if kind.endswith("delta") else "output"
            return self._shell_output(payload, field, output), field
        elif isinstance(payload.get("response"), dict):
            field = "response"
            read_response(payload[field], reading)
        self._note(reading.unreadable)
        return self._all_whole(reading.texts), field

    def _found(self, fields: Json) -> Sequence[Text]:
        """The texts of fields that the format does not have."""
        reading = Reading(decode=False, of_reply=True)
        reading.value(fields, (), Role.ASSISTANT, turn=-1)
        self._note(reading.unreadable)
        return reading.texts

    def _note(self, parts: Iterable[Unreadable]) -> None:
        self.unreadable += [part for part in parts if part not in self.unreadable]

    def _fragment(self, payload: Json, field: str, path: tuple[str, ...], *, whole: bool) -> list[Delta]:
        text = expected(payload.get(field), str, (field,))
        channel = ("output", _index(payload, "output_index"), *_steps(payload, path))
        if self._is_encoded(path):
            text = _decoded(text) if whole else self._encoded.setdefault(channel, JsonText()).feed(text)
        return [Delta(channel, text, whole)] if text else []

    def _is_encoded(self, path: Place) -> bool:
        """Whether the text at this path of an item is JSON, whose escapes are undone before anybody reads it."""
        return path == ("arguments",) or (self._json_answer and path[0] == "content" and path[-1] == "text")

    def _shell_output(self, payload: Json, field: str, output: Place) -> list[Delta]:
        """What a shell printed: a fragment of each stream, or all of it in several outputs."""
        said = payload.get(field)
        parts = [expected(part, dict, (field,)) for part in (said if isinstance(said, list) else [said])]
        deltas = []
        for stream in ("stdout", "stderr"):
            text = "".join(part[stream] for part in parts if isinstance(part.get(stream), str))
            if text:
                channel = (*output, "output", _index(payload, "command_index"), stream)
                deltas.append(Delta(channel, text, field == "output"))
        rest = [{key: value for key, value in part.items() if key not in ("stdout", "stderr")} for part in parts]
        return deltas + self._all_whole(self._found({field: rest}))

    def _all_whole(self, texts: Iterable[Text]) -> list[Delta]:
        return [delta for text in texts for delta in self._whole(text)]

    def _whole(self, found: Text) -> list[Delta]:
        """A text that an event shows in full: on its own channel if it comes in fragments too, else with the rest."""
        place = found.place
        path = place[2:] if place[0] == "output" else ()
        match path:
            case (
                ("content", int(), "text" | "refusal")
                | ("summary", int(), "text")
                | ("arguments" | "input" | "code",)
                | ("action", "commands", int())
                | ("output", int(), "stdout" | "stderr")
            ):
                return [Delta(place, _decoded(found.text) if self._is_encoded(path) else found.text, True)]
        if found.text in self._seen:
            return []
        self._seen.add(found.text)
        return [Delta(("rest", str(found.role)), found.text + "\n")]


def _index(payload: Json, name: str) -> int:
    """A position that the event states; -1 where it does not, which only puts its text into a channel of its own."""
    value = payload.get(name)
    return value if isinstance(value, int) else -1


def _steps(payload: Json, path: tuple[str, ...]) -> Place:
    return tuple([_index(payload, step) if step.endswith("_index") else step for step in path])


def _decoded(encoded: str) -> str:
    """What ``JsonText`` makes of the same JSON in fragments."""
    return JsonText().feed(encoded)
