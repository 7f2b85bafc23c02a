"""The wire formats of the OpenAI API, pure: what a body holds for the screener, and how to answer in its form.

One file for each surface (one route of the API), each with one class that fulfils ``surface.Surface``:

    chat.py          /chat/completions
    completions.py   /completions
    responses.py     /responses; its items, replies and stream: response_items, responses_reply, responses_stream
    embeddings.py    /embeddings
    images.py        /images/generations
    speech.py        /audio/speech
    moderations.py   /moderations; no surface, since nothing goes upstream: it is answered here

A surface names every text by its place in the body (``surface.Place``), which ``places`` reads and replaces, and every
part that cannot be read (``surface.Unreadable``). What no surface knows is never taken for harmless: an unknown kind
of content is read in full and reported as unreadable, an unknown stream event is screened, an unknown route is not in
``SURFACES``. Nothing here reads a clock, a setting or the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.wire.chat import Chat
from gateway.wire.completions import Completions
from gateway.wire.embeddings import Embeddings
from gateway.wire.images import Images
from gateway.wire.moderations import Moderations
from gateway.wire.responses import Responses
from gateway.wire.speech import Speech
from gateway.wire.surface import Surface

_ALL: Final[tuple[Surface, ...]] = (
    Chat(),
    Completions(),
    Responses(),
    Embeddings(),
    Images(),
    Speech(),
)

SURFACES: Final[Mapping[str, Surface]] = MappingProxyType({surface.path: surface for surface in _ALL})
"""Every surface that is passed on to the upstream, by its path below the base URL."""

MODERATIONS: Final = Moderations()
"""The one route that is answered here."""
