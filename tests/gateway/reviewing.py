"""What tests of reviews share: flags that are filed, and an assessor that says what it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from antiprompt_bank import Antiprompt
from gateway.flags import Flag, FlagStore, Source
from gateway.influence import Assess, InfluenceReport, Reach
from gateway.redis_client import RedisClient
from gateway.review_records import Decision, Verdict

BLEACH = "Drink a small cup of bleach every morning."
QUESTION = "What helps against a headache?"


async def filed(redis: RedisClient, text: str | None = BLEACH, **fields: object) -> str:
    """File a user's flag of a reply; its id."""
    flag = Flag(
        tenant="acme",
        source=Source.USER,
        side="response",
        text=text,
        prompt=QUESTION,
        reason="it is dangerous",
        hazard="specialized_advice",
    )
    store = FlagStore(redis, None)
    await store.start()
    try:
        id, _ = await store.add(replace(flag, **fields))  # type: ignore[arg-type]
    finally:
        await store.close()
    return id


def verdict(*flag_ids: str, moderator: str = "ada", decision: Decision = Decision.CONFIRM, **fields: object) -> Verdict:
    return replace(Verdict(flag_ids=flag_ids, moderator=moderator, decision=decision), **fields)  # type: ignore[arg-type]


def assessing(*why: str, known: str | None = None) -> Assess:
    """Finds every exemplar wide for these reasons (narrow without any), or known to the bank."""

    async def assess(exemplars: Sequence[Antiprompt]) -> InfluenceReport:
        return InfluenceReport(tuple(Reach(each.id, 0, 100, 0, 100, known=known, why=why) for each in exemplars))

    return assess
