"""``antiprompt bank proliferate``: variants of an exemplar, offered to whoever decides what goes into the bank."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer

from antiprompt_bank import Antiprompt, Bank, Label, Side
from antiprompt_bank.proliferation import Offer, Variant, Way
from antiprompt_bank.proliferation import proliferate as variants_of
from gateway.commands.bank import open_bank
from gateway.commands.console import FAILURES, AsJson, fail, out, print_json, print_table


def proliferate(
    id: Annotated[str | None, typer.Argument(help="A confirmed harmful exemplar of the bank.")] = None,
    text: Annotated[str | None, typer.Option(help="Or a text of its own; with --hazard.")] = None,
    hazard: Annotated[str | None, typer.Option(help="The hazard of --text.")] = None,
    side: Annotated[Side, typer.Option(help="request or response.")] = "request",
    prompt: Annotated[str | None, typer.Option(help="What a response in --text answers.")] = None,
    language: Annotated[str, typer.Option(help="The language of --text.")] = "en",
    count: Annotated[int, typer.Option(min=1, max=1000, help="Most variants.")] = 20,
    way: Annotated[Literal["words", "framings", "disguises"] | None, typer.Option(help="Only this way.")] = None,
    seed: Annotated[int, typer.Option(help="Another one gives other variants.")] = 0,
    to: Annotated[Path | None, typer.Option(help="File to write as JSON lines, for `bank import`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Offer variants of an exemplar: reworded, framed, disguised. Nothing is stored; `bank import` does that."""
    if (id is None) == (text is None):
        fail("name the id of an exemplar, or give a --text")
    bank = open_bank(None)
    try:
        origin = _origin(bank, id, text, hazard, side, prompt, language)
        ways: Sequence[Way] = (way,) if way else ("words", "framings", "disguises")
        offer = variants_of(
            origin, bank, count=count, seed=seed, ways=ways, created_at=datetime.now(UTC).isoformat(timespec="seconds")
        )
        if to is not None:
            to.write_bytes(b"".join(orjson.dumps(one.record.to_json()) + b"\n" for one in offer.variants))
    except FAILURES as error:
        fail(str(error))
    if as_json:
        print_json({"variants": [_variant(one) for one in offer.variants], "dropped": dict(offer.dropped)})
        return
    _show_offer(offer)


def _origin(
    bank: Bank, id: str | None, text: str | None, hazard: str | None, side: Side, prompt: str | None, language: str
) -> Antiprompt:
    if id is None:
        return Antiprompt(
            text=text or "", label=Label.HARMFUL, side=side, hazard=hazard, prompt=prompt, language=language
        )
    try:
        return bank.record(id)
    except KeyError:
        raise ValueError(f"there is no exemplar {id!r} in {bank.version}") from None


def _variant(one: Variant) -> dict[str, Any]:
    measured = {"similarity": round(one.similarity, 4), "margin": round(one.margin, 4)}
    return {"way": one.way, "technique": one.technique, **measured, "record": one.record.to_json()}


def _show_offer(offer: Offer) -> None:
    rows = [
        (one.technique, f"{one.similarity:.2f}", f"{one.margin:+.2f}", _shown(one.record.text))
        for one in offer.variants
    ]
    print_table(("technique", "similarity", "margin", "text"), rows, empty="no variant is near enough to its origin")
    if offer.dropped:
        out.print("\ndropped: " + ", ".join(f"{times} {why}" for why, times in offer.dropped.items()), markup=False)


def _shown(text: str, length: int = 90) -> str:
    """The beginning of a text, what is invisible in it written out."""
    visible = (char if char.isprintable() else ascii(char)[1:-1] for char in text[:length])
    return "".join(visible)[:length].replace("[", "\\[")
