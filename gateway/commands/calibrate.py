"""``antiprompt calibrate``: the bank's risks fitted to one's own harmless texts, and the fit put beside the bank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import typer
from rich.progress import Progress

from antiprompt_bank import Bank, Prepared, Score, Side
from antiprompt_bank.calibration import HIGH, MEDIUM
from antiprompt_bank.columns import Columns
from antiprompt_bank.conformal import Anchors, Fit, anchors_of, bound, needed, rate, save_fit
from antiprompt_bank.model_files import file_sha256
from antiprompt_bank.reading import Row, Unreadable, layout_of, rows
from antiprompt_bank.seeding import calibration_records
from gateway.calibration import calibrated_version, calibration_file
from gateway.chosen_bank import load_chosen_bank
from gateway.commands.console import FAILURES, AsJson, err, fail, out, print_json, print_table, settings_or_fail

_ENDINGS: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
_HARMLESS: Final = frozenset({"", "benign", "safe", "0", "0.0", "false", "no"})
_BATCH_WINDOWS: Final = 64
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    side: Side
    prompt: str | None


@dataclass(slots=True)
class _Own:
    """What was read: each text once, how many rows were left out and why, the hash of each file."""

    texts: dict[_Text, None] = field(default_factory=dict)
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, str] = field(default_factory=dict)

    def of(self, side: Side) -> list[_Text]:
        return [text for text in self.texts if text.side == side]


def calibrate(
    benign: Annotated[list[Path], typer.Option(help="Harmless texts of your own: files or folders.")],
    more: Annotated[list[Path] | None, typer.Argument(help="More of them.", metavar="[PATH]...")] = None,
    side: Annotated[
        Literal["request", "response"] | None, typer.Option(help="Of texts that do not say. Unset: by their columns.")
    ] = None,
    alpha: Annotated[
        float, typer.Option(min=0.0001, max=0.5, help="Share of harmless texts that may be hit, over all hazards.")
    ] = 0.01,
    to: Annotated[Path | None, typer.Option("--out", help="File to write. Unset: where gateways read it.")] = None,
    show_texts: Annotated[bool, typer.Option("--show-texts", help="Show the riskiest of the texts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fit the bank's risks to your own harmless traffic, so that at most ALPHA of it reaches risk 0.5.

    Reads JSON lines (text, and where known prompt and side), CSV and plain lines, and needs no GPU and no training.
    """
    settings = settings_or_fail()
    path = to or calibration_file(settings)
    try:
        own = _read([*benign, *(more or ())], side)
        if not own.texts:
            raise ValueError("there is no harmless text in what was named" + _counted(own.left_out))
        bank = load_chosen_bank(settings)
        sides: dict[Side, Anchors] = {}
        results: dict[str, dict[str, Any]] = {}
        for each in _sides(own):
            texts = own.of(each)
            scores = _scored(bank, texts, f"Scoring {len(texts)} {each}s")
            shipped = _shipped_risks(bank, each) if len(texts) < needed(alpha) else []
            sides[each] = anchors_of([score.risk for score in scores], shipped, alpha)
            results[each] = _result(sides[each], texts, scores, alpha, show_texts)
        fit = Fit(
            bank=calibrated_version(bank),
            encoder=bank.encoder.id,
            alpha=alpha,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            sides=sides,
            inputs=own.inputs,
        )
        save_fit(fit, path)
    except FAILURES as error:
        fail(str(error))
    if as_json:
        print_json({**fit.to_json(), "file": str(path), "rows": own.rows, "left_out": own.left_out, "found": results})
        return
    out.print(f"{own.rows} rows in {len(own.inputs)} files" + _counted(own.left_out), markup=False)
    for name, result in results.items():
        _show(name, result, alpha)
    out.print(f"\nwritten to {path}, for bank {fit.bank} alone", markup=False, soft_wrap=True)
    if path.resolve() == calibration_file(settings).resolve():
        out.print("gateways with these settings read it at their next start")
    else:
        out.print("gateways read it where ANTIPROMPT_BANK__CALIBRATION_FILE names it")


# ---- Reading.


def _read(paths: Sequence[Path], side: Side | None) -> _Own:
    """Raises ``OSError``, and ``ValueError`` for a file that is not what its ending says."""
    own = _Own()
    for path in _files(paths):
        for row in rows(path, layout_of(path)):
            own.rows += 1
            found = _text(row, side)
            if isinstance(found, str):
                own.left_out[found] += 1
            elif found in own.texts:
                own.left_out["there twice"] += 1
            else:
                own.texts[found] = None
        own.inputs[str(path)] = file_sha256(path)
    return own


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for inside in sorted(path.rglob("*")):
            if inside.is_file() and inside.name.casefold().removesuffix(".gz").endswith(_ENDINGS):
                yield inside


def _text(row: Row | Unreadable, side: Side | None) -> _Text | str:
    """A row's text, or why it is left out."""
    if isinstance(row, Unreadable):
        return "unreadable"
    value = Columns().values(row.values)
    text, prompt = value.get("text"), value.get("prompt")
    if not isinstance(text, str) or not text.strip():
        return "without a text"
    label = value.get("label")
    if label is not None and str(label).strip().casefold() not in _HARMLESS:
        return "not labelled benign"
    if not isinstance(prompt, str) or not prompt.strip():
        prompt = None
    travels = value.get("side") or side or ("request" if prompt is None else "response")
    if travels not in ("request", "response"):
        return "of an unknown side"
    return _Text(text, travels, prompt if travels == "response" else None)


def _sides(own: _Own) -> list[Side]:
    found = {text.side for text in own.texts}
    sides: tuple[Side, ...] = ("request", "response")
    return [side for side in sides if side in found]


# ---- Scoring.


def _scored(bank: Bank, texts: Sequence[_Text], doing: str) -> list[Score]:
    """The bank's own scores, no fit applied; long texts in pieces, as a gateway takes them."""
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(doing, total=len(texts))
        pieces: dict[int, list[Score]] = {at: [] for at in range(len(texts))}
        for batch in _batches(bank, texts, lambda: bar.advance(task)):
            for (at, _), score in zip(batch, bank.score_prepared([piece for _, piece in batch]), strict=True):
                pieces[at].append(score)
    return [Score.worst(found) for found in pieces.values()]


def _batches(bank: Bank, texts: Sequence[_Text], advance: Callable[[], None]) -> Iterator[list[tuple[int, Prepared]]]:
    batch: list[tuple[int, Prepared]] = []
    windows = 0
    for at, text in enumerate(texts):
        prepared = bank.prepare(text.text, side=text.side, prompt=text.prompt)
        for piece in list(prepared.split(_BATCH_WINDOWS)) or [prepared]:
            batch.append((at, piece))
            windows += piece.windows
            if windows >= _BATCH_WINDOWS:
                yield batch
                batch, windows = [], 0
        advance()
    if batch:
        yield batch


def _shipped_risks(bank: Bank, side: Side) -> list[float]:
    there = {record.id for record in bank.records}
    texts = [
        _Text(record.text, record.side, record.prompt)
        for record in calibration_records()
        if record.side == side and record.id not in there
    ]
    return [score.risk for score in _scored(bank, texts, f"Scoring {len(texts)} shipped {side}s")]


# ---- Telling.


def _result(
    anchors: Anchors, texts: Sequence[_Text], scores: Sequence[Score], alpha: float, show_texts: bool
) -> dict[str, Any]:
    risks = np.array([score.risk for score in scores])
    at = ((MEDIUM, anchors.medium, anchors.promise), (HIGH, anchors.high, anchors.high_promise))
    result: dict[str, Any] = {
        **asdict(anchors),
        "needed": needed(alpha),
        "needed_for_high": needed(alpha / 10),
        "nothing_known": sum(not score.risks for score in scores),
        "at": [
            {
                "risk": risk,
                "threshold_before": risk,
                "threshold_after": threshold,
                "rate_before": rate(risks, risk),
                "rate_after": rate(risks, threshold),
                "bound": bound(risks, threshold) if promise else None,
            }
            for risk, threshold, promise in at
        ],
    }
    if show_texts:
        riskiest = sorted(zip(scores, texts, strict=True), key=lambda found: -found[0].risk)[:_SHOWN]
        result["riskiest"] = [
            {"risk": round(score.risk, 4), "fitted": round(anchors.risk(score.risk), 4)}
            | {"hazard": score.hazard, "text": text.text}
            for score, text in riskiest
        ]
    return result


def _show(side: str, result: Mapping[str, Any], alpha: float) -> None:
    known = f"nothing was known of {result['nothing_known']}"
    out.print(f"\n{side}s: {result['n_own']} texts; {known}", style="bold", markup=False)
    lines = [
        (
            f"{line['risk']:.1f}",
            f"{line['threshold_before']:.3f}",
            f"{line['threshold_after']:.3f}",
            f"{line['rate_before']:.2%}",
            f"{line['rate_after']:.2%}",
            "no promise" if line["bound"] is None else f"{line['bound']:.2%}",
        )
        for line in result["at"]
    ]
    columns = ("risk", "was the bank's", "is now its", "hit before", "hit now", "of further texts at most")
    print_table(columns, lines, empty="")
    if result["n_own"] < result["needed"]:
        out.print(
            f"too few for a promise: {alpha:.2%} takes {result['needed']}; {result['n_shipped']} texts that ship were "
            "taken along",
            markup=False,
        )
    elif not result["promise"]:
        out.print(
            "no promise: more of them repeat an exemplar of the bank (risk 0.95) than may be hit; --show-texts shows "
            "which",
            markup=False,
        )
    elif result["n_own"] < result["needed_for_high"]:
        out.print(f"a promise for risk 0.9 ({alpha / 10:.2%}) takes {result['needed_for_high']}", markup=False)
    if "riskiest" in result:
        shown = [
            (f"{line['risk']:.3f}", f"{line['fitted']:.3f}", line["hazard"], ascii(line["text"][:90])[1:-1])
            for line in result["riskiest"]
        ]
        print_table(
            ("bank's risk", "fitted", "hazard", "text"),
            [(*line[:3], line[3].replace("[", "\\[")) for line in shown],
            empty="",
        )


def _counted(left_out: Mapping[str, int]) -> str:
    if not left_out:
        return ""
    return ", left out: " + ", ".join(f"{times} {why}" for why, times in left_out.items())
