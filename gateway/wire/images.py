"""Image generation: ``/images/generations``."""

from __future__ import annotations

from gateway.wire.input_only import InputOnly, MediaStream
from gateway.wire.places import Malformed, expected, is_text
from gateway.wire.surface import Extracted, Json, ReplyStream, Role, Text


class Images(InputOnly):
    """Reads ``POST /images/generations``: the prompt, and the prompt as the model rewrote it.

    The images in the reply are what was asked for, so they pass and are not reported as unreadable. Edits and
    variations bring images in, as form data, and are not known here.
    """

    name = "images"
    path = "/images/generations"
    streams = True
    has_words = True

    def read_request(self, body: Json) -> Extracted:
        """The prompt. Raises ``BadRequest``."""
        try:
            prompt = expected(body.get("prompt"), str, ("prompt",))
        except Malformed as error:
            raise error.as_bad_request() from None
        return Extracted((Text(("prompt",), prompt, Role.USER, turn=0),) if is_text(prompt) else ())

    def read_reply(self, body: Json) -> Extracted:
        """Each image's ``revised_prompt``, numbered as choices. Raises ``ValueError`` on an unreadable reply."""
        images = body.get("data")
        texts = []
        for index, image in enumerate([] if images is None else expected(images, list, ("data",))):
            revised = expected(image, dict, ("data", index)).get("revised_prompt")
            if isinstance(revised, str) and is_text(revised):
                texts.append(Text(("data", index, "revised_prompt"), revised, Role.ASSISTANT, choice=index))
        return Extracted(tuple(texts))

    def reply_stream(self, request: Json) -> ReplyStream:
        """A reader for the stream of partial and full images."""
        wanted = request.get("n")
        return MediaStream(
            media=("b64_json",),
            fixed=("background", "output_format", "quality", "size"),
            last=("image_generation.completed",),
            replies=wanted if isinstance(wanted, int) else 1,
        )
