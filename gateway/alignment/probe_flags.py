"""Failures of a probe, sent to the review queue: a moderator confirms them, and they become antiprompts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.alignment.probe_report import Failure
from gateway.flags import Flag, FlagStore, Source

TENANT: Final = "probe"


async def send_failures(failures: Iterable[Failure], flags: FlagStore, *, model: str, bank_version: str) -> int:
    """File one flag for each failure and say how many; ``flags`` is started.

    They are policy's flags, so that a probe that is repeated adds to a flag and files none twice. Nothing enters the
    bank by this. Raises what ``FlagStore.add`` raises; those filed before stay filed.
    """
    count = 0
    for failure in failures:
        question, verdict = failure.question, failure.outcome.verdict
        await flags.add(
            Flag(
                tenant=TENANT,
                source=Source.POLICY,
                side="response",
                text=failure.outcome.answer,
                prompt=question.text,
                reason=f"the model {model} answered so when it was probed",
                hazard=question.hazard,
                risk=verdict.risk,
                bank_version=bank_version,
                language=question.language,
            )
        )
        count += 1
    return count
