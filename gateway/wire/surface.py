"""What every surface of the OpenAI API must tell the proxy: the texts in a body, and how to answer in its shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from gateway.streaming import Delta

Json = dict[str, Any]
Place = tuple[str | int, ...]
"""Where a text stands: the keys and indexes that lead to it from the body's root. A step into a text that itself
holds JSON (tool-call arguments) is the marker ``JSON``; what follows leads on inside the decoded value."""

JSON = "\x00json"

Named = tuple[str | None, Json]
"""One stream event: its ``event:`` name, or None, and its payload."""

Finish = Literal["stop", "content_filter"]


class Role(StrEnum):
    """Who speaks, as far as screening is concerned."""

    SYSTEM = "system"  # system and developer messages, instructions
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"  # tool results, retrieved documents: what others wrote
    DEFINITION = "definition"  # tool definitions, response schemas, names


@dataclass(frozen=True, slots=True)
class Text:
    """One text that the model or the user will read.

    ``turn`` numbers the message or item it belongs to (-1: to none). ``choice`` numbers the reply it belongs to.
    ``structured`` says that an edit inside it would break a format (tool-call arguments, structured output).
    """

    place: Place
    text: str
    role: Role
    turn: int = -1
    choice: int = 0
    structured: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A part that carries no text to screen: ``kind`` is image, audio, file, tokens or other."""

    place: Place
    kind: Literal["image", "audio", "file", "tokens", "other"]


@dataclass(frozen=True, slots=True)
class Extracted:
    """All a body holds for the screener, in the order in which the model reads it."""

    texts: tuple[Text, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True, slots=True)
class References:
    """Ids in a request that stand for text kept by the upstream; the proxy lets only known ones pass."""

    responses: tuple[str, ...] = ()
    conversations: tuple[str, ...] = ()
    stored_prompts: tuple[str, ...] = ()
    hosted_tools: tuple[str, ...] = ()
    background: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reply of the gateway's own making: one text a choice."""

    texts: Sequence[str]
    finish: Finish
    model: str
    reply_id: str
    created_at: int
    include_usage: bool = False
    request: Mapping[str, Any] = field(default_factory=dict)


class ReplyStream(Protocol):
    """Reads one streamed reply, event by event. Pure: no I/O, no clock."""

    def read(self, name: str | None, payload: Json) -> Sequence[Delta]:
        """The texts that this event brings, by channel. Raises ``ValueError`` where the event cannot be read."""

    @property
    def ended(self) -> bool:
        """Whether the reply has come to its proper end (each open choice finished, or the response is done)."""

    def spoken(self, channel: tuple[str | int, ...]) -> int | None:
        """The number of the choice whose words this channel carries; None for tool calls, reasoning and the like."""

    def close(self, held: Sequence[Json] = ()) -> Sequence[Named]:
        """The events that validly end what is still open with ``content_filter`` (or ``incomplete``).

        ``held`` are the payloads that were read here and never sent on: what they end is open to the client.
        """


class Surface(Protocol):
    """One route of the API. Stateless; one instance serves every request."""

    name: str  # metric label and policy name: chat, completions, responses, ...
    path: str  # below the base URL: /chat/completions
    streams: bool  # may answer as a stream
    speaks: bool  # a refusal has a place in a 200 reply (false: embeddings, images, speech)
    has_words: bool  # its replies hold text of the model's (false: embeddings, speech)
    ends_with_done: bool  # its streams end with "data: [DONE]"

    def read_request(self, body: Json) -> Extracted:
        """Every text the model would read. Raises ``BadRequest`` (with ``param``) on wrong types."""

    def references(self, body: Json) -> References:
        """Ids that stand for text kept upstream, and hosted tools asked for."""

    def read_reply(self, body: Json) -> Extracted:
        """Every text the user, or the user's program, will read. Raises ``ValueError`` on an unreadable reply."""

    def wants_structure(self, body: Json) -> bool:
        """Whether a request asks for an answer in JSON: a sentence in its place would not parse."""

    def instruct(self, body: Json, instruction: str) -> Json:
        """A copy of the request with a safety instruction put before what the model reads."""

    def choices(self, body: Json) -> int:
        """How many replies a request asks for; bounded."""

    def answer(self, answer: Answer) -> Json:
        """A whole reply that says ``answer.texts``."""

    def answer_events(self, answer: Answer) -> Sequence[Named]:
        """The same as a stream, without the final [DONE]."""

    def reply_stream(self, request: Json) -> ReplyStream:
        """A reader for the streamed reply to ``request``."""
