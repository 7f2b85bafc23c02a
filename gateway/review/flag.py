"""One flag: what was said, what the bank knows near it, why policy acted, and what a person makes of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from starlette.responses import Response

from antiprompt_bank import HAZARDS, Antiprompt, Bank, Score
from gateway.cases import Case, Exchange
from gateway.errors import BadRequest, NotFound
from gateway.flag_records import Flag, FlagState
from gateway.review.forms import Form
from gateway.review.guard import Visit, see
from gateway.review.queue import undoable
from gateway.review_records import MAX_FLAGS, MAX_WORDS, Decision, Verdict
from gateway.screening import Subject

SCOPE: Final = "\x00review"
"""Under which vectors of what moderators look at are remembered, apart from every tenant's."""

_PIECE_WINDOWS: Final = 32

MOST_TEXT: Final = 20_000
"""Characters of a text that a moderator writes."""


@dataclass(frozen=True, slots=True)
class Near:
    """An exemplar near a text, its similarity in [-1, 1], and how much of it stands there word for word."""

    record: Antiprompt
    similarity: float
    verbatim: float | None


@dataclass(frozen=True, slots=True)
class Looked:
    """What the bank says of a text now; ``problem`` says why it says nothing."""

    score: Score | None = None
    harmful: tuple[Near, ...] = ()
    benign: tuple[Near, ...] = ()
    problem: str | None = None


async def show_flag(visit: Visit) -> Response:
    """Everything about one flag, and the forms to decide it."""
    flag = await visit.parts.reviews.get(visit.request.path_params["flag_id"])
    case, exchange = await _case(visit, flag)
    looked = await look(visit, flag)
    influence = None
    if flag.text and visit.form.text("influence"):
        influence = await visit.parts.reviews.preview(_confirmed(visit, flag, Form({})))
    return visit.page(
        "flag.html",
        tab="queue",
        flag=flag,
        case=case,
        exchange=exchange,
        looked=looked,
        influence=influence,
        reviews=await visit.parts.reviews.reviews_of(flag.id),
        comments=await visit.parts.reviews.comments(flag.id),
        undoable=await undoable(visit),
        decided=flag.state in (FlagState.CONFIRMED, FlagState.DISMISSED),
    )


async def show_influence(visit: Visit) -> Response:
    """What confirming would reach, as a part of the flag's page."""
    flag = await visit.parts.reviews.get(visit.request.path_params["flag_id"])
    report = await visit.parts.reviews.preview(_confirmed(visit, flag, visit.form))
    return visit.page("influence.html", influence=report)


async def decide(visit: Visit) -> Response:
    """Confirm, dismiss or escalate one flag, or several look-alikes at once."""
    form = visit.form
    flag_ids = form.all("flag")
    if not 0 < len(flag_ids) <= MAX_FLAGS:
        raise BadRequest(f"choose from 1 to {MAX_FLAGS} flags", param="flag")
    decision = form.choice("decision", tuple(Decision))
    if decision is None:
        raise BadRequest("say what to do: confirm, dismiss or escalate", param="decision")
    await visit.parts.reviews.decide(_verdict(visit, form, flag_ids, Decision(decision)))
    return see(form.way_back("/review/queue"))


async def undo(visit: Visit) -> Response:
    """Take a decision back."""
    await visit.parts.reviews.undo(visit.form.needed("review"), visit.name)
    return see(visit.form.way_back("/review/queue"))


async def comment(visit: Visit) -> Response:
    """Write something beside a flag."""
    flag_id = visit.request.path_params["flag_id"]
    await visit.parts.reviews.comment(flag_id, visit.name, visit.form.needed("text", most=MAX_WORDS))
    return see(f"/review/flags/{flag_id}#comments")


async def look(visit: Visit, flag: Flag) -> Looked:
    """What the bank in force says of a flag's text."""
    if not flag.text:
        return Looked(problem="The text was erased.")
    subject = Subject(flag.text, flag.side or "request", flag.prompt if flag.side == "response" else None)
    return await look_at(visit, subject)


async def look_at(visit: Visit, subject: Subject) -> Looked:
    """What the bank in force says of a text. It is not traffic: no cache, no sample and no counter learns of it."""
    screener = visit.parts.screener
    bank, calibration = screener.bank, screener.calibration
    if bank is None:
        return Looked(problem="The gateway is still loading its bank.")
    try:
        found = await asyncio.to_thread(_score, bank, subject, visit.parts.settings.screening.max_windows)
    except RuntimeError:
        return Looked(problem="The encoder failed, so nothing can be said.")
    if found is None:
        return Looked(problem="The text is too long to be looked at.")
    score = calibration.applied(found, subject.side)
    harmful: list[Near] = []
    benign: list[Near] = []
    for neighbour in score.nearest:
        near = Near(bank.record(neighbour.id), neighbour.similarity, neighbour.verbatim)
        (harmful if neighbour.harmful else benign).append(near)
    return Looked(score, tuple(harmful), tuple(benign))


def _score(bank: Bank, subject: Subject, most_windows: int) -> Score | None:
    """The score of a text, piece by piece; None for one of more than ``most_windows`` windows."""
    prepared = bank.prepare(subject.text, side=subject.side, prompt=subject.prompt, scope=SCOPE)
    if prepared.windows > most_windows:
        return None
    pieces = [bank.score_prepared([piece])[0] for piece in prepared.split(_PIECE_WINDOWS)]
    return Score.worst(pieces) if pieces else bank.score_prepared([prepared])[0]


def _verdict(visit: Visit, form: Form, flag_ids: tuple[str, ...], decision: Decision) -> Verdict:
    """A verdict as the form says it. Raises ``BadRequest`` for a value that does not fit."""
    return Verdict(
        flag_ids=flag_ids,
        moderator=visit.name,
        role=visit.session.role,
        decision=decision,
        hazard=form.choice("hazard", tuple(HAZARDS)),
        severity=form.whole("severity", 1, 4) or 2,
        corrected_answer=form.text("corrected_answer", most=MOST_TEXT),
        benign_twin=form.text("benign_twin", most=MOST_TEXT),
        comment=form.text("comment", most=MAX_WORDS),
    )


def _confirmed(visit: Visit, flag: Flag, form: Form) -> Verdict:
    """The verdict that would confirm a flag; where neither form nor flag names a hazard, the first there is."""
    verdict = _verdict(visit, form, (flag.id,), Decision.CONFIRM)
    return replace(verdict, hazard=verdict.hazard or flag.hazard or next(iter(HAZARDS)))


async def _case(visit: Visit, flag: Flag) -> tuple[Case | None, Exchange | None]:
    """The case behind a flag and its texts, while they are kept."""
    if flag.case_id is None:
        return None, None
    try:
        case = await visit.parts.cases.get(flag.case_id, tenant=None)
        return case, await visit.parts.cases.exchange(flag.case_id, tenant=None)
    except NotFound:
        return None, None
