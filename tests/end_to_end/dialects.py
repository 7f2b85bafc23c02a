"""How each surface is spoken: asked by the official client, answered by the model, heard by a person."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from gateway.wire import SURFACES
from gateway.wire.surface import Surface
from tests import transcripts
from tests.fakes import Script, whole
from tests.transcripts import Json, sse


@dataclass(frozen=True, slots=True)
class Heard:
    """What the client understood: what each choice says, and how each ends (``stop`` or ``content_filter``)."""

    said: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()


class Dialect(ABC):
    """One surface. ``client`` is the official async client; ``more`` goes into the request as it is."""

    def __init__(self, path: str) -> None:
        self.surface: Surface = SURFACES[path]

    @abstractmethod
    def request(self, text: str) -> Json:
        """The arguments that ask for ``text``."""

    @abstractmethod
    def reply(self, text: str) -> Json:
        """The model's whole reply that says ``text``."""

    def script(self, text: str) -> Script:
        """The same on the wire."""
        return whole(self.reply(text))

    def events(self, text: str, *, size: int) -> list[bytes]:
        """The model's stream that says ``text`` in pieces of ``size`` characters."""
        raise NotImplementedError

    @abstractmethod
    async def hear(self, client: Any, text: str, **more: Any) -> Heard:
        """Ask for a whole reply."""

    async def hear_stream(self, client: Any, text: str, **more: Any) -> Heard:
        """Ask for a stream and read it to its end."""
        raise NotImplementedError


class Chat(Dialect):
    def request(self, text: str) -> Json:
        return {"model": "m", "messages": [{"role": "user", "content": text}]}

    def reply(self, text: str) -> Json:
        return transcripts.chat_completion(text)

    def events(self, text: str, *, size: int) -> list[bytes]:
        return transcripts.chat_stream(text, size=size)

    async def hear(self, client: Any, text: str, **more: Any) -> Heard:
        reply = await client.chat.completions.create(**self.request(text), **more)
        return Heard(
            tuple(choice.message.content for choice in reply.choices),
            tuple(choice.finish_reason for choice in reply.choices),
        )

    async def hear_stream(self, client: Any, text: str, **more: Any) -> Heard:
        stream = await client.chat.completions.create(**self.request(text), stream=True, **more)
        return await _choices(stream, lambda choice: choice.delta.content)


class Completions(Dialect):
    def request(self, text: str) -> Json:
        return {"model": "m", "prompt": text}

    def reply(self, text: str) -> Json:
        return transcripts.completion(text)

    def events(self, text: str, *, size: int) -> list[bytes]:
        return transcripts.completion_stream(text, size=size)

    async def hear(self, client: Any, text: str, **more: Any) -> Heard:
        reply = await client.completions.create(**self.request(text), **more)
        return Heard(
            tuple(choice.text for choice in reply.choices), tuple(choice.finish_reason for choice in reply.choices)
        )

    async def hear_stream(self, client: Any, text: str, **more: Any) -> Heard:
        stream = await client.completions.create(**self.request(text), stream=True, **more)
        return await _choices(stream, lambda choice: choice.text)


class Responses(Dialect):
    def request(self, text: str) -> Json:
        return {"model": "m", "input": text}

    def reply(self, text: str) -> Json:
        return transcripts.response(text)

    def events(self, text: str, *, size: int) -> list[bytes]:
        return transcripts.response_stream(text, size=size)

    async def hear(self, client: Any, text: str, **more: Any) -> Heard:
        reply = await client.responses.create(**self.request(text), **more)
        return Heard((reply.output_text,), (_ending(reply),))

    async def hear_stream(self, client: Any, text: str, **more: Any) -> Heard:
        said, endings = "", []
        async for event in await client.responses.create(**self.request(text), stream=True, **more):
            if event.type == "response.output_text.delta":
                said += event.delta
            if event.type in ("response.completed", "response.incomplete", "response.failed"):
                endings.append(_ending(event.response))
        return Heard((said,), tuple(endings))


class Embeddings(Dialect):
    def request(self, text: str) -> Json:
        return {"model": "m", "input": text, "encoding_format": "float"}

    def reply(self, text: str) -> Json:
        return transcripts.embeddings([0.25, 0.5])

    async def hear(self, client: Any, text: str, **more: Any) -> Heard:
        reply = await client.embeddings.create(**self.request(text), **more)
        assert reply.data[0].embedding == [0.25, 0.5]
        return Heard()


class Images(Dialect):
    """Its replies hold words where the model says how it understood the prompt."""

    def request(self, text: str) -> Json:
        return {"model": "m", "prompt": text}

    def reply(self, text: str) -> Json:
        return {"created": 1, "data": [{"b64_json": _MEDIA, "revised_prompt": text}]}

    def events(self, text: str, *, size: int) -> list[bytes]:
        frame = {"b64_json": _MEDIA, "created_at": 1, "size": "auto", "quality": "auto", "background": "auto"}
        kinds = ("image_generation.partial_image", "image_generation.completed")
        first, last = ({"type": kind, **frame, "output_format": "png"} for kind in kinds)
        return [
            sse({**first, "partial_image_index": 0}, event=kinds[0]),
            sse({**last, "revised_prompt": text}, event=kinds[1]),
        ]

    async def hear(self, client: Any, text: str, **more: Any) -> Heard:
        reply = await client.images.generate(**self.request(text), **more)
        return Heard(tuple(image.revised_prompt for image in reply.data))

    async def hear_stream(self, client: Any, text: str, **more: Any) -> Heard:
        said = []
        async for event in await client.images.generate(**self.request(text), stream=True, **more):
            assert event.b64_json == _MEDIA
            if event.type == "image_generation.completed":
                said.append(event.revised_prompt)
        return Heard(tuple(said))


class Speech(Dialect):
    def request(self, text: str) -> Json:
        return {"model": "m", "input": text, "voice": "alloy"}

    def reply(self, text: str) -> Json:
        return {}

    def script(self, text: str) -> Script:
        return whole(b"\x00sound", headers={"Content-Type": "audio/mpeg"})

    def events(self, text: str, *, size: int) -> list[bytes]:
        return [sse({"type": "speech.audio.delta", "audio": _MEDIA}), sse({"type": "speech.audio.done"})]

    async def hear(self, client: Any, text: str, **more: Any) -> Heard:
        reply = await client.audio.speech.create(**self.request(text), **more)
        assert reply.content == b"\x00sound"
        return Heard()

    async def hear_stream(self, client: Any, text: str, **more: Any) -> Heard:
        reply = await client.audio.speech.create(**self.request(text), stream_format="sse", **more)
        assert reply.content == b"".join(self.events(text, size=1))
        return Heard()


DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType(
    {
        "chat": Chat("/chat/completions"),
        "completions": Completions("/completions"),
        "responses": Responses("/responses"),
        "embeddings": Embeddings("/embeddings"),
        "images": Images("/images/generations"),
        "speech": Speech("/audio/speech"),
    }
)

_MEDIA: Final = base64.b64encode(b"picture or sound").decode()


async def _choices(stream: AsyncIterable[Any], text_of: Any) -> Heard:
    said: dict[int, str] = {}
    endings: dict[int, list[str]] = {}
    async for chunk in stream:
        for choice in chunk.choices:
            said[choice.index] = said.get(choice.index, "") + (text_of(choice) or "")
            if choice.finish_reason is not None:
                endings.setdefault(choice.index, []).append(choice.finish_reason)
    return Heard(tuple(said[i] for i in sorted(said)), tuple(each for i in sorted(endings) for each in endings[i]))


def _ending(response: Any) -> str:
    if response.status == "incomplete":
        reason: str = response.incomplete_details.reason
        return reason
    return {"completed": "stop"}.get(response.status, response.status)
