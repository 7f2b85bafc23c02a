"""Embeddings, images and speech: what goes in is read, what comes out holds no words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import APIError, AsyncOpenAI

from gateway.errors import BadRequest
from gateway.streaming import encode
from gateway.wire.embeddings import Embeddings
from gateway.wire.images import Images
from gateway.wire.places import read, replace
from gateway.wire.speech import Speech
from gateway.wire.surface import Answer, References, Role
from tests.fakes import ScriptedUpstream, stream
from tests.transcripts import sse

SURFACES = (Embeddings(), Images(), Speech())


def found(surface, body):
    extracted = surface.read_request(body)
    return [(text.place, text.text) for text in extracted.texts], [part.place for part in extracted.unreadable]


@pytest.mark.parametrize(
    ("given_input", "texts", "unreadable"),
    [
        ("a", [(("input",), "a")], []),
        (["a", "", "b"], [(("input", 0), "a"), (("input", 2), "b")], []),
        ([1, 2], [], [("input",)]),
        ([[1, 2], [3]], [], [("input", 0), ("input", 1)]),
    ],
)
def test_embeddings_read_strings_and_report_tokens(given_input, texts, unreadable):
    assert found(Embeddings(), {"input": given_input}) == (texts, unreadable)


def test_inputs_to_embed_are_separate_and_no_conversation():
    assert [text.turn for text in Embeddings().read_request({"input": ["a", "b"]}).texts] == [-1, -1]


def test_an_image_is_asked_for_by_its_prompt_and_told_by_its_revised_prompt():
    assert found(Images(), {"prompt": "a cat", "size": "256x256"}) == ([(("prompt",), "a cat")], [])
    reply = {"created": 1, "data": [{"b64_json": "AAAA"}, {"url": "https://example.org", "revised_prompt": "a dog"}]}
    extracted = Images().read_reply(reply)
    (text,) = extracted.texts
    assert (text.place, text.text, text.role, text.choice) == (
        ("data", 1, "revised_prompt"),
        "a dog",
        Role.ASSISTANT,
        1,
    )
    assert not extracted.unreadable


@pytest.mark.parametrize("reply", [{"data": "a"}, {"data": [7]}])
def test_an_unreadable_reply_with_images_is_a_value_error(reply):
    with pytest.raises(ValueError):
        Images().read_reply(reply)


def test_speech_reads_what_is_said_and_how():
    body = {"input": "hello there", "instructions": "whisper", "voice": "alloy"}
    assert found(Speech(), body) == ([(("instructions",), "whisper"), (("input",), "hello there")], [])


@pytest.mark.parametrize(
    ("surface", "body", "param"),
    [
        (Embeddings(), {}, "input"),
        (Embeddings(), {"input": []}, "input"),
        (Embeddings(), {"input": ["a", 7]}, "input[1]"),
        (Embeddings(), {"input": [True]}, "input[0]"),
        (Embeddings(), {"input": [["a"]]}, "input[0]"),
        (Images(), {}, "prompt"),
        (Images(), {"prompt": ["a"]}, "prompt"),
        (Speech(), {"input": 7}, "input"),
        (Speech(), {"input": "a", "instructions": 7}, "instructions"),
    ],
)
def test_a_wrong_type_is_a_bad_request(surface, body, param):
    with pytest.raises(BadRequest) as caught:
        surface.read_request(body)
    assert caught.value.param == param


@given(
    st.sampled_from(SURFACES),
    st.dictionaries(
        st.sampled_from(("input", "prompt", "instructions")),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=4)),
    ),
)
def test_any_body_is_read_or_is_a_bad_request(surface, body):
    try:
        texts = surface.read_request(body).texts
    except BadRequest:
        return
    assert all(read(body, text.place) == text.text for text in texts)
    assert replace(body, {text.place: text.text for text in texts}) == body


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_these_surfaces_do_not_speak(surface):
    assert not surface.speaks
    assert surface.references({}) == References()
    answer = Answer(texts=["No."], finish="content_filter", model="m", reply_id="x", created_at=1)
    for call in (lambda: surface.answer(answer), lambda: surface.answer_events(answer)):
        with pytest.raises(NotImplementedError):
            call()
    with pytest.raises(NotImplementedError):
        surface.instruct({}, "safe")


def test_replies_with_vectors_hold_nothing_to_read():
    extracted = Embeddings().read_reply({"data": [{"embedding": "AAAA"}]})
    assert (extracted.texts, extracted.unreadable) == ((), ())


PARTIAL = {
    "type": "image_generation.partial_image",
    "b64_json": "AAAA",
    "background": "auto",
    "created_at": 1,
    "output_format": "png",
    "partial_image_index": 0,
    "quality": "low",
    "size": "auto",
}
COMPLETED = {**PARTIAL, "type": "image_generation.completed"}


def test_a_stream_of_images_brings_no_text_and_ends_with_its_last_image():
    reader = Images().reply_stream({"n": 2})
    for event in (PARTIAL, COMPLETED, PARTIAL):
        assert not reader.read(None, event)
        assert not reader.ended
        assert reader.spoken(("image_generation.completed", "revised_prompt")) is None
    reader.read(None, COMPLETED)
    assert reader.ended


def test_a_text_in_a_stream_of_images_or_sound_is_read():
    (delta,) = Images().reply_stream({}).read(None, {**PARTIAL, "revised_prompt": "a dog"})
    assert delta.text == "a dog"
    reader = Speech().reply_stream({})
    assert not reader.read(None, {"type": "speech.audio.delta", "audio": "AAAA"})
    assert [delta.text for delta in reader.read(None, {"type": "speech.audio.delta", "note": "psst"})] == ["psst"]
    reader.read(None, {"type": "speech.audio.done"})
    assert reader.ended


async def test_the_openai_client_raises_when_a_stream_of_images_is_cut():
    ((name, payload),) = Images().reply_stream({}).close()
    async with ScriptedUpstream() as server, AsyncOpenAI(base_url=server.base_url, api_key="k") as client:
        server.on("/images/generations", stream(sse(PARTIAL, event=PARTIAL["type"]), encode(name, payload)))
        events = await client.images.generate(prompt="a cat", model="m", stream=True)
        assert (await anext(aiter(events))).type == PARTIAL["type"]
        with pytest.raises(APIError) as caught:
            await anext(aiter(events))
    assert caught.value.code == "content_filter"
