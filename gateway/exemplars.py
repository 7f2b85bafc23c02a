"""From a verdict to exemplars: what a confirmed or a dismissed flag teaches the bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from antiprompt_bank import HAZARDS, Antiprompt, Label, Side
from antiprompt_bank.records import REVIEWED
from gateway.errors import BadRequest
from gateway.flag_records import Flag
from gateway.review_records import MAX_FLAGS, MAX_WORDS, Decision, Verdict

LICENCE: Final = "proprietary"
"""What users wrote belongs to them: it is not to leave this installation by a careless export."""

MAX_TEXT: Final = 100_000
NO_TEXT: Final = "its text was erased or never kept, so the bank learns nothing from it"


@dataclass(frozen=True, slots=True)
class Taught:
    """The exemplars of a verdict, each with the flag it comes from, and in words why a flag taught nothing."""

    exemplars: tuple[tuple[str, Antiprompt], ...]
    notes: tuple[str, ...]


def check_verdict(verdict: Verdict) -> None:
    """Raises ``BadRequest`` for a verdict that no flag could fit."""
    if not 1 <= len(verdict.flag_ids) <= MAX_FLAGS or len(set(verdict.flag_ids)) != len(verdict.flag_ids):
        raise BadRequest(f"a verdict decides 1 to {MAX_FLAGS} different flags", param="flag_ids")
    if not verdict.moderator.strip():
        raise BadRequest("a verdict needs a person who gives it", param="moderator")
    if not 1 <= verdict.severity <= 4:
        raise BadRequest(f"severity is {verdict.severity}, not 1 to 4", param="severity")
    if verdict.hazard is not None and verdict.hazard not in HAZARDS:
        raise BadRequest(f"hazard must be one of {', '.join(HAZARDS)}", param="hazard")
    for name, text, most in (
        ("comment", verdict.comment, MAX_WORDS),
        ("corrected_answer", verdict.corrected_answer, MAX_TEXT),
        ("benign_twin", verdict.benign_twin, MAX_TEXT),
    ):
        if text is not None and (not text.strip() or len(text) > most or not _is_unicode(text)):
            raise BadRequest(f"{name} must be 1 to {most} characters of valid Unicode", param=name)
    if verdict.decision is not Decision.CONFIRM and (verdict.corrected_answer or verdict.benign_twin):
        raise BadRequest("a corrected answer and a benign twin belong to a confirmation", param="decision")
    if len(verdict.flag_ids) > 1 and (verdict.corrected_answer or verdict.benign_twin):
        raise BadRequest("a corrected answer and a benign twin belong to one flag at a time", param="flag_ids")


def taught_by(verdict: Verdict, flags: Sequence[Flag]) -> Taught:
    """What carrying the verdict out teaches. Raises ``BadRequest`` where a confirmation names no hazard."""
    check_verdict(verdict)
    if verdict.decision is Decision.ESCALATE:
        return Taught((), ())
    found: dict[str, tuple[str, Antiprompt]] = {}
    notes = []
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    for flag in flags:
        hazard = verdict.hazard or flag.hazard
        if verdict.decision is Decision.CONFIRM and hazard is None:
            raise BadRequest("name the hazard: the flag names none", param="hazard")
        if flag.text is None or not flag.text.strip():
            notes.append(f"{flag.id}: {NO_TEXT}")
            continue
        if hazard is not None and not HAZARDS[hazard].carries_text:
            notes.append(f"{flag.id}: texts of {hazard} are never stored in a bank")
            continue
        for exemplar in _exemplars(verdict, flag, flag.text, hazard, created_at):
            found.setdefault(exemplar.id, (flag.id, exemplar))
    return Taught(tuple(found.values()), tuple(notes))


def _exemplars(verdict: Verdict, flag: Flag, text: str, hazard: str | None, created_at: str) -> list[Antiprompt]:
    side: Side = flag.side or "response"
    prompt = flag.prompt if side == "response" and flag.prompt and flag.prompt.strip() else None
    language = flag.language or "en"

    def exemplar(words: str, label: Label, answers: str | None, twin: str | None, on: Side) -> Antiprompt:
        return Antiprompt(
            text=words,
            label=label,
            side=on,
            hazard=hazard,
            severity=verdict.severity,
            language=language,
            prompt=answers,
            desired_response=verdict.corrected_answer if label is Label.HARMFUL else None,
            source=REVIEWED,
            licence=LICENCE,
            twin=twin,
            family=flag.id,
            created_at=created_at,
        )

    if verdict.decision is Decision.DISMISS:
        return [exemplar(text, Label.BENIGN, prompt, None, side)]
    harmful = exemplar(text, Label.HARMFUL, prompt, None, side)
    made = [harmful]
    if verdict.benign_twin is not None:
        made.append(exemplar(verdict.benign_twin, Label.BENIGN, prompt, harmful.id, side))
    if verdict.corrected_answer is not None:  # it answers the prompt; a request that was flagged is its own prompt
        answers = prompt if side == "response" else text
        made.append(exemplar(verdict.corrected_answer, Label.BENIGN, answers, harmful.id, "response"))
    return made


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
