"""Chat completions: ``POST /chat/completions``, whole.

The rule for what counts as text: every string of a message counts, unless it is known to be an identifier or a fixed
word; of the other fields of a request, every string counts but those of OpenAI's own parameters that a model never
reads (``stop`` only ends a text, ``user`` and ``metadata`` stay with the server). So a field that this file does not
know travels unchanged and is screened. The streamed form is in ``gateway.wire.chat_stream``. Source of the format:
the ``openai`` package, ``types/chat``, version 3.52, and what vLLM, LiteLLM and OpenRouter add to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from gateway.wire.chat_stream import CHUNK, SOUND, ChatStream, chunk, token_text
from gateway.wire.choices import NO_TOKENS, PLAIN_OF_CHOICE, PLAIN_OF_REPLY, choice_count, choice_number
from gateway.wire.places import Collector, Malformed, expected, is_identifier, is_text
from gateway.wire.surface import Answer, Extracted, Json, Named, Place, References, ReplyStream, Role

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}

_NOT_READ = frozenset(
    """messages model stream stream_options n temperature top_p max_tokens max_completion_tokens stop seed logit_bias
    logprobs top_logprobs presence_penalty frequency_penalty user metadata store service_tier safety_identifier
    prompt_cache_key prompt_cache_options prompt_cache_retention parallel_tool_calls tool_choice function_call
    modalities audio moderation reasoning_effort verbosity""".split()  # noqa: SIM905 - a block of words reads better
)
"""Parameters that steer the server; the model does not read them."""

_FIELD_ROLES = {"prediction": Role.ASSISTANT, "documents": Role.TOOL, "chat_template": Role.SYSTEM}
"""Who speaks in the fields of a request that are neither messages nor definitions."""

_PART_KINDS: dict[str, Literal["image", "audio", "file", "other"]] = {
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "file": "file",
    "input_file": "file",
    "video_url": "other",
}
_TEXT_PARTS = frozenset(("text", "input_text", "output_text", "refusal"))


class Chat:
    """The surface of chat completions."""

    name = "chat"
    path = "/chat/completions"
    streams = True
    speaks = True
    has_words = True
    ends_with_done = True

    def read_request(self, body: Json) -> Extracted:
        """Definitions and what else stands beside the messages first, as a model reads them, then the messages."""
        found = Collector(Role.DEFINITION)
        try:
            messages = expected(expected(body, dict, ()).get("messages"), list, ("messages",))
            for name, value in body.items():
                if name not in _NOT_READ:
                    found.role = _FIELD_ROLES.get(name, Role.DEFINITION)
                    found.all_below((name,), value, is_identifier)
            for turn, message in enumerate(messages):
                place = ("messages", turn)
                role = expected(expected(message, dict, place).get("role"), str, (*place, "role"))
                # An unknown role is a speaker whom nobody vouches for.
                found.role, found.turn = _ROLES.get(role, Role.USER), turn
                _read_message(found, place, message)
        except Malformed as error:
            raise error.as_bad_request() from None
        return found.extracted()

    def references(self, body: Json) -> References:
        """Tools that the server itself would run, by type; ``web_search_options`` asks for ``web_search``."""
        tools = body.get("tools")
        types = [tool.get("type") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        hosted = [type_ for type_ in types if isinstance(type_, str) and type_ not in ("function", "custom")]
        if body.get("web_search_options") is not None:
            hosted.append("web_search")
        return References(hosted_tools=tuple(dict.fromkeys(hosted)))

    def read_reply(self, body: Json) -> Extracted:
        """The texts of every choice. Log probabilities count where they spell out something else than the content."""
        found = Collector(Role.ASSISTANT)
        choices = expected(expected(body, dict, ()).get("choices"), list, ("choices",))
        for position, choice in enumerate(choices):
            place = ("choices", position)
            found.choice = choice_number(choice, position, place)
            message = expected(choice.get("message"), dict, (*place, "message"))
            _read_message(found, (*place, "message"), message)
            spelt = token_text(choice.get("logprobs"), (*place, "logprobs"))
            if is_text(spelt) and spelt not in (message.get("content"), message.get("refusal")):
                found.text((*place, "logprobs"), spelt)
            found.all_below(place, {k: v for k, v in choice.items() if k not in PLAIN_OF_CHOICE}, is_identifier)
        found.choice = 0
        found.all_below((), {name: value for name, value in body.items() if name not in PLAIN_OF_REPLY}, is_identifier)
        return found.extracted()

    def wants_structure(self, body: Json) -> bool:
        """Whether ``response_format`` asks for JSON."""
        form = body.get("response_format")
        return isinstance(form, dict) and form.get("type") in ("json_object", "json_schema")

    def instruct(self, body: Json, instruction: str) -> Json:
        """A message put before all others, by the developer if the request has one, else by the system."""
        messages: list[Any] = body["messages"]
        developer = any(message.get("role") == "developer" for message in messages)
        first = {"role": "developer" if developer else "system", "content": instruction}
        return {**body, "messages": [first, *messages]}

    def choices(self, body: Json) -> int:
        """``n``."""
        return choice_count(body, most=ChatStream.max_choices)

    def answer(self, answer: Answer) -> Json:
        """A completion that says each text as content: most clients show nothing else.

        Only a refusal where the request asks for JSON is a ``refusal``, which the official client's parser leaves
        alone.
        """
        field = self._field(answer)
        return {
            "id": answer.reply_id,
            "object": "chat.completion",
            "created": answer.created_at,
            "model": answer.model,
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": None, "refusal": None, field: text},
                    "logprobs": None,
                    "finish_reason": answer.finish,
                }
                for index, text in enumerate(answer.texts)
            ],
            "usage": NO_TOKENS,
        }

    def answer_events(self, answer: Answer) -> Sequence[Named]:
        """For each choice its role, its text and its end; then the usage, if the request asks for it."""
        head = {"id": answer.reply_id, "object": CHUNK, "created": answer.created_at, "model": answer.model}
        if answer.include_usage:
            head["usage"] = None
        field = self._field(answer)
        events: list[Named] = []
        for index, text in enumerate(answer.texts):
            events += (
                (None, chunk(head, index, {"role": "assistant", "content": "", "refusal": None})),
                (None, chunk(head, index, {field: text})),
                (None, chunk(head, index, {}, answer.finish)),
            )
        if answer.include_usage:
            events.append((None, {**head, "choices": [], "usage": NO_TOKENS}))
        return events

    def reply_stream(self, request: Json) -> ReplyStream:
        return ChatStream(request)

    def _field(self, answer: Answer) -> Literal["content", "refusal"]:
        """Where a message says the text of an answer."""
        refused = answer.finish == "content_filter" and self.wants_structure(dict(answer.request))
        return "refusal" if refused else "content"


def _read_message(found: Collector, place: Place, message: Json) -> None:
    """All texts of one message, of a request or a reply."""
    for field, value in message.items():
        here = (*place, field)
        if value is None or field == "role":
            continue
        if field == "content":
            _read_content(found, here, value)
        elif field == "tool_calls":
            for index, call in enumerate(expected(value, list, here)):
                _read_call(found, (*here, index), call)
        elif field == "function_call":
            _read_function(found, here, value)
        elif field == "audio":
            found.unreadable(here, "audio")
            beside = {name: child for name, child in expected(value, dict, here).items() if name not in SOUND}
            found.all_below(here, beside, is_identifier)
        elif field == "refusal":
            found.text(here, value)
        elif field == "name":
            _read_name(found, here, value)
        else:  # reasoning_content, reasoning_details, annotations, and what no one has thought of yet
            found.all_below(here, value, is_identifier)


def _read_name(found: Collector, place: Place, name: object) -> None:
    """Who speaks. It belongs to no turn, so that it never breaks a run of turns that are screened together."""
    role, turn = found.role, found.turn
    found.role, found.turn = Role.DEFINITION, -1
    found.text(place, name)
    found.role, found.turn = role, turn


def _read_content(found: Collector, place: Place, content: object) -> None:
    if isinstance(content, str):
        # JSON may spell a word in escapes, which a program undoes before anybody reads it.
        if found.role is Role.ASSISTANT and content.lstrip()[:1] in ("{", "["):
            _read_structured(found, place, content)
        else:
            found.text(place, content)
    elif isinstance(content, list):
        for index, part in enumerate(content):
            _read_part(found, (*place, index), part)
    else:
        raise Malformed(place, "must be a string or an array of content parts")


def _read_structured(found: Collector, place: Place, content: str) -> None:
    if "\\u" in content:
        found.encoded(place, content)
    else:
        found.text(place, content, structured=True)


def _read_part(found: Collector, place: Place, part: object) -> None:
    """One content part. A part of an unknown type is read in full and named unreadable besides."""
    if isinstance(part, str):
        found.text(place, part)
        return
    fields = expected(part, dict, place)
    type_ = fields.get("type")
    for name in ("text", "refusal"):
        if fields.get(name) is not None:
            found.text((*place, name), fields[name])
    if (isinstance(type_, str) and type_ in _TEXT_PARTS) or (type_ is None and "text" in fields):
        return
    kind = _PART_KINDS.get(type_) if isinstance(type_, str) else None
    found.unreadable(place, kind or "other")
    if kind is None:
        rest = {name: value for name, value in fields.items() if name not in ("text", "refusal")}
        found.all_below(place, rest, is_identifier)


def _read_call(found: Collector, place: Place, call: object) -> None:
    for field, value in expected(call, dict, place).items():
        here = (*place, field)
        if value is None:
            continue
        if field in ("function", "custom"):
            _read_function(found, here, value)
        else:
            found.all_below(here, value, is_identifier)


def _read_function(found: Collector, place: Place, function: object) -> None:
    """A function's name and arguments, or a custom tool's name and input."""
    for field, value in expected(function, dict, place).items():
        here = (*place, field)
        if value is None:
            continue
        if field == "arguments":
            found.encoded(here, value)
        elif field == "name":
            found.text(here, value)
        else:
            found.all_below(here, value, is_identifier)
