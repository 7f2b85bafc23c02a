"""The playground: any text or conversation, how it is read, what is near, what policy would do. Keeps nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from antiprompt_bank import Side
from antiprompt_bank.views import View, views
from gateway.errors import BadRequest
from gateway.policy import Decision, Finding
from gateway.review.flag import Looked, look_at
from gateway.review.guard import Visit
from gateway.screening import Subject

MOST_TEXT: Final = 20_000
MOST_TURNS: Final = 20
_ROLES: Final = ("user", "assistant", "system", "tool")


@dataclass(frozen=True, slots=True)
class Tried:
    """One turn as the gateway reads it: its views, and what the bank says."""

    role: str
    text: str
    side: Side
    views: tuple[View, ...]
    looked: Looked


async def show_playground(visit: Visit) -> Response:
    """The empty form."""
    return _page(visit)


async def try_out(visit: Visit) -> Response:
    """Screen what was typed. A line that begins with ``user:`` or another role begins a turn of a conversation."""
    form = visit.form
    text = form.needed("text", most=MOST_TEXT)
    side: Side = "response" if form.choice("side", ("request", "response")) == "response" else "request"
    prompt = form.text("prompt", most=MOST_TEXT)
    turns = turns_of(text) if side == "request" else [("assistant", text)]
    if len(turns) > MOST_TURNS:
        raise BadRequest(f"the conversation has more than {MOST_TURNS} turns", param="text")
    tried = [await _try(visit, role, turn, side, prompt if side == "response" else None) for role, turn in turns]
    findings = [
        Finding(one.looked.score, side, one.role, index)
        for index, one in enumerate(tried)
        if one.looked.score is not None
    ]
    decision = visit.parts.policies.current.decide(findings) if len(findings) == len(tried) else None
    return _page(visit, text=text, side=side, prompt=prompt, tried=tried, decision=decision)


def turns_of(text: str) -> list[tuple[str, str]]:
    """Role and text of each turn. A text in which no line names a role is one turn of the user's."""
    turns: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        role, colon, rest = line.partition(":")
        if colon and role.strip().lower() in _ROLES:
            turns.append((role.strip().lower(), [rest.strip()]))
        elif turns:
            turns[-1][1].append(line)
        else:
            turns.append(("user", [line]))
    joined = [(role, "\n".join(lines).strip()) for role, lines in turns]
    return [(role, turn) for role, turn in joined if turn]


async def _try(visit: Visit, role: str, text: str, side: Side, prompt: str | None) -> Tried:
    read = await asyncio.to_thread(views, text)
    return Tried(role, text, side, tuple(read), await look_at(visit, Subject(text, side, prompt)))


def _page(
    visit: Visit,
    *,
    text: str = "",
    side: Side = "request",
    prompt: str | None = None,
    tried: Sequence[Tried] = (),
    decision: Decision | None = None,
) -> Response:
    values = {"text": text, "side": side, "prompt": prompt, "tried": tried, "decision": decision}
    return visit.page("playground.html", tab="playground", policy=visit.parts.policies.status, **values)
