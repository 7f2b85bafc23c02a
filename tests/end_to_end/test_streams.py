"""Streams that are hit after some of them has left, wherever the harm stands in a reply, and clients that leave.

What a stream does whose first text is hit is in the table of ``test_conformance``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import openai
import pytest
from pydantic import BaseModel

from gateway.corrections import MARKER
from gateway.refusals import refusal_text
from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import Callers
from tests.end_to_end.dialects import DIALECTS, Chat, Completions, Dialect, Heard, Responses
from tests.end_to_end.exemplars import (
    BAD_REPLY,
    BAD_REQUEST,
    GOOD_REPLY,
    GOOD_REQUEST,
    NEAR_REQUEST,
    SAFE_ANSWER,
    TELL_TALE,
)
from tests.end_to_end.state import State
from tests.fakes import CUT, HANG, Gate, Script, ScriptedUpstream, Step, stream, whole
from tests.transcripts import ToolCall, chat_completion, chat_stream, completion_stream, response, response_stream

SPEAKING: Final = [name for name, dialect in DIALECTS.items() if dialect.surface.speaks]
CHAT, COMPLETIONS, RESPONSES = Chat("/chat/completions"), Completions("/completions"), Responses("/responses")
SIZE: Final = len(GOOD_REPLY)

CALL = ToolCall("send", json.dumps({"text": GOOD_REPLY + BAD_REPLY}))


class Letter(BaseModel):
    """What ``CALL`` holds, as an answer."""

    text: str


CALL_SIZE: Final = CALL.arguments.index(BAD_REPLY)
assert len(BAD_REPLY) < SIZE  # a stream in pieces of SIZE has the good reply in one event and the bad one in the next


def late(caller: Caller, events: Sequence[bytes], *then: Step) -> Script:
    """The events up to the first that is harmful; the rest in one write, once the caller has received something."""
    harm = next(at for at, event in enumerate(events) if TELL_TALE.encode() in event)
    gate = Gate()
    caller.on_first_bytes = gate.open
    return stream(*events[:harm], gate, b"".join(events[harm:]), *then)


async def stopped_late(
    caller: Caller, upstream: ScriptedUpstream, state: State, dialect: Dialect, events: Sequence[bytes], **more: Any
) -> Heard:
    """Have a stream stopped in its middle: the upstream is left, the case says block, and no harm was received."""
    upstream.on(dialect.surface.path, late(caller, events, HANG))
    heard = await dialect.hear_stream(caller.openai, GOOD_REQUEST, **more)
    assert TELL_TALE not in caller.last.body.decode()
    assert (await upstream.last.ended()).closed_early
    case = await state.case(caller.case_id)
    assert (case.action, case.side, case.rule) == ("block", "response", "block")
    return heard


@pytest.mark.parametrize("part", ["refusal", "error"])
@pytest.mark.parametrize("name", SPEAKING)
async def test_a_late_hit_ends_the_stream_with_one_valid_event(
    name: str, part: str, callers: Callers, upstream: ScriptedUpstream, state: State
) -> None:
    dialect, caller = DIALECTS[name], await callers(part)
    events = dialect.events(GOOD_REPLY + BAD_REPLY, size=SIZE)
    heard = await stopped_late(caller, upstream, state, dialect, events)
    assert heard == Heard((GOOD_REPLY,), ("content_filter",))
    assert caller.last.body.endswith(b"data: [DONE]\n\n") is dialect.surface.ends_with_done


@pytest.mark.parametrize(
    ("part", "said"),
    [("desired", SAFE_ANSWER), ("redact", MARKER), ("regenerate", GOOD_REPLY)],
)
@pytest.mark.parametrize("name", SPEAKING)
async def test_where_replies_are_rewritten_nothing_leaves_before_the_end(
    name: str, part: str, said: str, callers: Callers, upstream: ScriptedUpstream, state: State
) -> None:
    dialect, caller = DIALECTS[name], await callers(part)
    events = dialect.events(GOOD_REPLY + BAD_REPLY, size=SIZE)
    upstream.on(dialect.surface.path, stream(*events), stream(*dialect.events(GOOD_REPLY, size=SIZE)))
    heard = await dialect.hear_stream(caller.openai, GOOD_REQUEST)
    assert heard.endings == ("stop",)
    assert heard.said[0].strip().endswith(said.strip())
    assert heard.said[0].startswith(GOOD_REPLY[:200]) is (part != "desired")
    assert TELL_TALE not in caller.last.body.decode()
    assert (await state.case(caller.case_id)).action == "rewrite"


@pytest.mark.parametrize("part", ["flag", "shadow"])
@pytest.mark.parametrize("name", SPEAKING)
async def test_what_policy_only_notes_arrives_as_it_was_sent(
    name: str, part: str, callers: Callers, upstream: ScriptedUpstream, state: State
) -> None:
    dialect, caller = DIALECTS[name], await callers(part)
    events = dialect.events(GOOD_REPLY + BAD_REPLY, size=SIZE)
    upstream.on(dialect.surface.path, late(caller, events))
    heard = await dialect.hear_stream(caller.openai, GOOD_REQUEST)
    assert heard == Heard((GOOD_REPLY + BAD_REPLY,), ("stop",))
    assert caller.last.body == b"".join(events)
    case, flags = await state.case(caller.case_id), await state.flags_of(caller.tenant)
    if part == "shadow":
        assert (case.action, case.shadow, list(flags)) == ("allow", ("block",), [])
    else:
        assert (case.action, case.side) == ("flag", "response")
        (flag,) = flags
        assert BAD_REPLY in str(flag.text)
        assert flag.prompt == GOOD_REQUEST


@pytest.mark.parametrize(
    ("dialect", "events"),
    [
        (CHAT, chat_stream(GOOD_REPLY + BAD_REPLY, GOOD_REPLY * 2, size=SIZE)),
        (CHAT, chat_stream(GOOD_REPLY * 2, GOOD_REPLY + BAD_REPLY, size=SIZE)),
        (COMPLETIONS, completion_stream(GOOD_REPLY * 2, GOOD_REPLY + BAD_REPLY, size=SIZE)),
    ],
    ids=["chat-first-choice", "chat-second-choice", "completions-second-choice"],
)
async def test_a_hit_in_one_choice_ends_each_open_choice(
    dialect: Dialect, events: Sequence[bytes], callers: Callers, upstream: ScriptedUpstream, state: State
) -> None:
    heard = await stopped_late(await callers("refusal"), upstream, state, dialect, events, n=2)
    assert heard.endings == ("content_filter", "content_filter")
    assert all((GOOD_REPLY * 2).startswith(said) for said in heard.said)


@pytest.mark.parametrize(
    ("dialect", "events"),
    [
        (CHAT, chat_stream(tool_calls=[CALL], size=CALL_SIZE)),
        (CHAT, chat_stream(GOOD_REPLY, reasoning=GOOD_REPLY + BAD_REPLY, size=SIZE)),
        (RESPONSES, response_stream(tool_calls=[CALL], size=CALL_SIZE)),
        (RESPONSES, response_stream(GOOD_REPLY, reasoning=GOOD_REPLY + BAD_REPLY, size=SIZE)),
    ],
    ids=["chat-tool-call", "chat-reasoning", "responses-tool-call", "responses-reasoning"],
)
async def test_tool_calls_and_reasoning_count_in_streams(
    dialect: Dialect, events: Sequence[bytes], callers: Callers, upstream: ScriptedUpstream, state: State
) -> None:
    heard = await stopped_late(await callers("refusal"), upstream, state, dialect, events)
    assert heard.endings == ("content_filter",)


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (CHAT, chat_completion(GOOD_REPLY, BAD_REPLY)),
        (CHAT, chat_completion("", tool_calls=[CALL])),
        (CHAT, chat_completion(GOOD_REPLY, reasoning=BAD_REPLY)),
        (CHAT, chat_completion(GOOD_REPLY, refusal=BAD_REPLY)),
        (RESPONSES, response(tool_calls=[CALL])),
        (RESPONSES, response(GOOD_REPLY, reasoning=BAD_REPLY)),
    ],
    ids=["second-choice", "tool-call", "reasoning", "refusal", "responses-tool-call", "responses-reasoning"],
)
async def test_every_place_of_a_whole_reply_counts(
    dialect: Dialect, body: dict[str, Any], callers: Callers, upstream: ScriptedUpstream
) -> None:
    caller = await callers("refusal")
    upstream.on(dialect.surface.path, whole(body))
    heard = await dialect.hear(caller.openai, GOOD_REQUEST)
    assert heard == Heard((refusal_text(["indiscriminate_weapons"], "en"),), ("content_filter",))
    assert TELL_TALE not in caller.last.body.decode()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("place", ["tool call", "JSON"])
async def test_what_an_edit_would_break_is_blocked_and_not_redacted(
    place: str, streamed: bool, callers: Callers, upstream: ScriptedUpstream, state: State
) -> None:
    caller = await callers("redact")
    text, calls = (CALL.arguments, []) if place == "JSON" else ("", [CALL])
    events = stream(*chat_stream(text, tool_calls=calls))
    upstream.on(CHAT.surface.path, events if streamed else whole(chat_completion(text, tool_calls=calls)))
    heard = await (CHAT.hear_stream if streamed else CHAT.hear)(caller.openai, GOOD_REQUEST)
    assert heard == Heard((refusal_text(["indiscriminate_weapons"], "en"),), ("content_filter",))
    assert (await state.case(caller.case_id)).action == "block"


@pytest.mark.parametrize("hit", ["request", "response"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_where_JSON_was_asked_for_nothing_is_said_in_its_place(
    streamed: bool, hit: str, callers: Callers, upstream: ScriptedUpstream
) -> None:
    caller = await callers("desired")
    upstream.on(CHAT.surface.path, stream(*chat_stream(CALL.arguments)) if streamed else CHAT.script(CALL.arguments))
    ask: Any = {**CHAT.request(BAD_REQUEST if hit == "request" else GOOD_REQUEST), "response_format": Letter}
    if streamed:
        async with caller.openai.chat.completions.stream(**ask) as events:
            with pytest.raises(openai.ContentFilterFinishReasonError) as raised:
                await events.get_final_completion()
    else:
        with pytest.raises(openai.ContentFilterFinishReasonError) as raised:
            await caller.openai.chat.completions.parse(**ask)
    message = raised.value.completion.choices[0].message
    assert message.refusal == refusal_text(["indiscriminate_weapons"], "en")
    assert not message.content
    assert caller.last.headers["x-antiprompt-action"] == "block"


async def test_a_rewrite_that_was_not_expected_is_a_block(
    callers: Callers, upstream: ScriptedUpstream, state: State
) -> None:
    """``watch_at_least``: a stream is held only when its request is near; a hit in another one ends it."""
    caller = await callers("watching")
    events = CHAT.events(GOOD_REPLY + BAD_REPLY, size=SIZE)
    upstream.on(CHAT.surface.path, stream(*events))
    near = await CHAT.hear_stream(caller.openai, NEAR_REQUEST)
    assert near == Heard((SAFE_ANSWER,), ("stop",))
    assert (await state.case(caller.case_id)).action == "rewrite"

    upstream.on(CHAT.surface.path, late(caller, events))
    far = await CHAT.hear_stream(caller.openai, GOOD_REQUEST)
    assert far == Heard((GOOD_REPLY,), ("content_filter",))
    assert (await state.case(caller.case_id)).action == "block"


async def test_a_client_that_leaves_closes_the_upstream(
    callers: Callers, upstream: ScriptedUpstream, state: State
) -> None:
    caller = await callers("refusal")
    events = CHAT.events(GOOD_REPLY * 2, size=SIZE)
    upstream.on(CHAT.surface.path, stream(*events[:2], HANG))
    reply = await caller.openai.chat.completions.create(**CHAT.request(GOOD_REQUEST), stream=True)
    async for chunk in reply:
        if chunk.choices[0].delta.content:
            break
    await reply.close()
    assert (await upstream.last.ended()).closed_early
    assert (await state.case(caller.case_id)).action == "allow"
    kept = await state.exchange(caller.case_id)
    assert kept is not None
    assert kept.reply == (GOOD_REPLY,)


async def test_an_upstream_that_breaks_off_is_told_as_an_error(
    callers: Callers, upstream: ScriptedUpstream, state: State
) -> None:
    caller, gate = await callers("refusal"), Gate()
    caller.on_first_bytes = gate.open
    events = CHAT.events(GOOD_REPLY * 2, size=SIZE)
    upstream.on(CHAT.surface.path, stream(*events[:2], gate, CUT))
    with pytest.raises(openai.APIError):
        await CHAT.hear_stream(caller.openai, GOOD_REQUEST)
    assert (await state.case(caller.case_id)).action == "error"
