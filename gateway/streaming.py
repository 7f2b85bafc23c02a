"""Server-sent events and the hold-back of streamed text: pure state machines, fed with bytes and values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of streamed text.

    ``channel`` names the text it continues: the choice, the field and, for tool calls, the call. ``whole`` says that
    ``text`` repeats the channel's full text (the ``*.done`` events of the responses API) instead of continuing it.
    """

    channel: tuple[str | int, ...]
    text: str
    whole: bool = False
