"""Speech: ``/audio/speech``."""

from __future__ import annotations

from gateway.wire.input_only import InputOnly, MediaStream
from gateway.wire.places import Malformed, expected, is_text
from gateway.wire.surface import Extracted, Json, ReplyStream, Role, Text


class Speech(InputOnly):
    """Reads ``POST /audio/speech``: what is to be said, and how.

    The reply is sound, in bytes or (``stream_format: "sse"``) in events; it says what was screened in the request.
    """

    name = "speech"
    path = "/audio/speech"
    streams = True

    def read_request(self, body: Json) -> Extracted:
        """``instructions``, which set the voice, then ``input``. Raises ``BadRequest``."""
        try:
            said = expected(body.get("input"), str, ("input",))
            how = body.get("instructions")
            manner = "" if how is None else expected(how, str, ("instructions",))
        except Malformed as error:
            raise error.as_bad_request() from None
        texts = (Text(("instructions",), manner, Role.SYSTEM), Text(("input",), said, Role.USER, turn=0))
        return Extracted(tuple(text for text in texts if is_text(text.text)))

    def reply_stream(self, request: Json) -> ReplyStream:
        """A reader for the events of ``stream_format: "sse"``."""
        return MediaStream(media=("audio",), fixed=(), last=("speech.audio.done",))
