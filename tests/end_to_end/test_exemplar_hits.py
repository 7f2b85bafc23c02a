"""Which exemplar was behind what a gateway did: named in the case, counted by day, known to whoever appeals."""

from __future__ import annotations

import asyncio

from antiprompt_bank import Label
from antiprompt_bank.records import content_id
from gateway.exemplar_hits import ExemplarHits
from tests.end_to_end.conftest import Callers
from tests.end_to_end.exemplars import BAD_REQUEST, GOOD_REQUEST
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking
from tests.fakes import ScriptedUpstream, whole
from tests.transcripts import chat_completion

EXEMPLAR = content_id(BAD_REQUEST, Label.HARMFUL, "request")


async def test_an_exemplar_that_is_hit_is_named_counted_and_judged_with_the_appeal(
    callers: Callers, state: State, upstream: ScriptedUpstream
) -> None:
    caller, counted = await callers("refusal"), ExemplarHits(state.redis)
    before = (await counted.report(EXEMPLAR)).hits
    await caller.http.post(CHAT, json=asking(BAD_REQUEST))
    assert (await state.case(caller.case_id)).exemplar == EXEMPLAR
    async with asyncio.timeout(60):
        while (await counted.report(EXEMPLAR)).hits <= before:  # noqa: ASYNC110  # by the gateway, a moment later
            await asyncio.sleep(0.05)
    await caller.http.post("/appeals", json={"case_id": caller.case_id, "reason": "I teach microbiology."})
    (flag,) = await state.flags_of(caller.tenant)
    assert flag.exemplar == EXEMPLAR
    upstream.on(CHAT, whole(chat_completion("Hello.")))
    await caller.http.post(CHAT, json=asking(GOOD_REQUEST))
    assert (await state.case(caller.case_id)).exemplar is None


async def test_what_policy_flags_or_holds_names_the_exemplar_too(
    callers: Callers, state: State, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion("Hello.")))
    flagged, held = await callers("flag"), await callers("refusal")
    await flagged.http.post(CHAT, json=asking(BAD_REQUEST))
    await held.http.post("/holds", json={"text": BAD_REQUEST})
    for caller in (flagged, held):
        (flag,) = await state.flags_of(caller.tenant)
        assert flag.exemplar == EXEMPLAR
