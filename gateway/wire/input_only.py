"""What the surfaces have in common whose replies hold no words: embeddings, image generation, speech.

Their texts go in and are screened; what comes out is numbers, images or sound, which is what was asked for and passes
as it is. A refusal has no place in such a reply, so a block is always an error there, and nothing is rewritten.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NoReturn

from gateway.errors import error_body
from gateway.streaming import Delta
from gateway.wire.places import leaves
from gateway.wire.surface import Answer, Extracted, Json, Named, Place, References


class InputOnly:
    """The half of a ``Surface`` that is about replies, for one that has nothing to say."""

    speaks = False
    has_words = False
    ends_with_done = False

    def references(self, body: Json) -> References:
        """None: these requests hold all that the model reads."""
        return References()

    def read_reply(self, body: Json) -> Extracted:
        """Nothing."""
        return Extracted()

    def wants_structure(self, body: Json) -> bool:
        """False."""
        return False

    def instruct(self, body: Json, instruction: str) -> NoReturn:
        """Raises ``NotImplementedError``: there is no place for an instruction."""
        raise NotImplementedError("this surface takes no instructions: block in place of a guarded prompt")

    def choices(self, body: Json) -> int:
        """One."""
        return 1

    def answer(self, answer: Answer) -> NoReturn:
        """Raises ``NotImplementedError``: there is no place for an answer."""
        raise NotImplementedError("this surface does not speak: block with an error")

    def answer_events(self, answer: Answer) -> NoReturn:
        """Raises ``NotImplementedError``: there is no place for an answer."""
        raise NotImplementedError("this surface does not speak: block with an error")


class MediaStream:
    """Reads a stream of images or sound (a ``ReplyStream``): every string counts as text but the media themselves.

    ``media`` names the fields that hold them in base64, ``last`` the types of the events that end one reply, and
    ``replies`` how many there are.
    """

    __slots__ = ("_fixed", "_last", "_open", "ended")

    def __init__(
        self, *, media: Collection[str], fixed: Collection[str], last: Collection[str], replies: int = 1
    ) -> None:
        self._fixed = frozenset(("type", *media, *fixed))
        self._last = last
        self._open = replies
        self.ended = False

    def read(self, name: str | None, payload: Json) -> Sequence[Delta]:
        """Whatever text the event holds beside the media, each on a channel of its own."""
        kind = payload.get("type", name)
        if isinstance(kind, str) and kind in self._last:
            self._open -= 1
        self.ended = self.ended or self._open <= 0 or kind == "error" or "error" in payload
        rest = {key: value for key, value in payload.items() if key not in self._fixed}
        return [Delta((str(kind), *place), text) for place, text in leaves(rest, ())]

    def spoken(self, channel: Place) -> None:
        """None: no channel carries what a choice says."""

    def close(self, held: Sequence[Json] = ()) -> Sequence[Named]:
        """One error event, for these streams know no other end that is not a success."""
        error = error_body("The reply was stopped by the safety policy.", type="server_error", code="content_filter")
        return [("error", {"type": "error", **error})]
