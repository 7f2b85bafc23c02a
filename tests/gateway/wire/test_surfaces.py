"""The one table of surfaces: every route that is passed on to a model, and nothing else."""

import pytest

from gateway.wire import MODERATIONS, SURFACES
from gateway.wire.surface import Surface


def test_each_surface_stands_under_its_own_path_and_has_a_name_of_its_own():
    assert all(path == surface.path for path, surface in SURFACES.items())
    assert len({surface.name for surface in SURFACES.values()} | {MODERATIONS.name}) == len(SURFACES) + 1


def test_every_surface_of_the_api_that_takes_text_is_known():
    assert set(SURFACES) == {
        "/chat/completions",
        "/completions",
        "/responses",
        "/embeddings",
        "/images/generations",
        "/audio/speech",
    }


def test_what_is_answered_here_is_not_passed_on():
    assert MODERATIONS.path not in SURFACES


@pytest.mark.parametrize("surface", SURFACES.values(), ids=lambda surface: surface.name)
def test_a_stream_that_nothing_was_read_of_is_open_and_can_be_closed(surface: Surface):
    stream = surface.reply_stream({"model": "m"})
    assert not stream.ended
    assert all(isinstance(payload, dict) for _, payload in stream.close())


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        SURFACES["/x"] = SURFACES["/embeddings"]  # type: ignore[index]
