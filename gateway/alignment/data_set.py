"""A data set on disk: examples in one format, split, with where each comes from and a manifest that names them all.

``train.jsonl`` and ``held_out.jsonl`` hold the examples, ``manifest.json`` how they were made. Every row carries its
provenance in ``meta``; where a consumer refuses fields that it does not know, ``*.provenance.jsonl`` has it line by
line. The manifest's hash names the content: the same flags and options give the same hash, whatever the time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.alignment.families import capped, diversity, families, held_out
from gateway.alignment.formats import Format, Options, Row, rows_of
from gateway.alignment.openai_checks import preference_problems, sft_problems
from gateway.alignment.personal_data import redacted
from gateway.alignment.reviewed import Reviewed, write_rows

PARTS: Final = ("train", "held_out")
MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What an export is made with.

    ``redact`` takes personal data out of all texts; ``most_alike`` is how many rows of one family of look-alikes are
    kept; ``held_out_share`` in [0, 1) of the families is held out, and the hazards of ``held_out_hazards`` wholly.
    """

    format: Format
    row_options: Options
    redact: bool = True
    most_alike: int = 8
    held_out_share: float = 0.1
    held_out_hazards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DataSet:
    """What an export wrote. ``problems`` is what its consumer will not accept."""

    folder: Path
    manifest: Mapping[str, Any]
    problems: tuple[str, ...]


def export(rows: Sequence[Reviewed], folder: Path, options: ExportOptions, left_out: Mapping[str, int]) -> DataSet:
    """Write the data set of some reviewed flags. Raises ``ValueError`` where no flag gives an example.

    ``left_out`` says what was not even a row, and why; it goes into the manifest.
    """
    useful = [
        row for row in sorted(rows, key=lambda row: row.flag_id) if rows_of(options.format, row, options.row_options)
    ]
    if options.redact:
        useful = [_without_personal_data(row) for row in useful]
    names = families(useful)
    kept = capped(useful, names, options.most_alike)
    useful, alike = [useful[at] for at in kept], len(useful) - len(kept)
    names = [names[at] for at in kept]
    if not useful:
        raise ValueError(f"no reviewed flag gives an example for {options.format}: decide some first")
    apart = held_out(useful, names, options.held_out_share, options.held_out_hazards)
    parts: dict[str, list[tuple[Row, Row]]] = {name: [] for name in PARTS}
    for row, family, away in zip(useful, names, apart, strict=True):
        for example in rows_of(options.format, row, options.row_options):
            about = _provenance(row, family) | example.pop("meta", {})
            parts[PARTS[away]].append((example, about))
    manifest = _manifest(parts, options)
    manifest |= {
        "diversity": asdict(diversity(useful, names)),
        "left_out": {**left_out, "look-alikes": alike, "no use in this format": len(rows) - alike - len(useful)},
        "licences": dict(sorted(Counter(row.licence for row in useful).items())),
        "hazards_held_out": sorted(options.held_out_hazards),
    }
    _write(folder, parts, manifest, options.format)
    problems = [
        f"{name}: {why}" for name in PARTS if parts[name] for why in _problems(options.format, parts[name], name)
    ]
    return DataSet(folder, manifest, tuple(problems))


def _without_personal_data(row: Reviewed) -> Reviewed:
    return replace(
        row,
        prompt=redacted(row.prompt),
        answer=None if row.answer is None else redacted(row.answer),
        corrected=None if row.corrected is None else redacted(row.corrected),
    )


def _provenance(row: Reviewed, family: str) -> Row:
    return {
        "flag_id": row.flag_id,
        "review_id": row.review_id,
        "reviewer_role": row.role,
        "standing": str(row.standing),
        "hazard": row.hazard,
        "severity": row.severity,
        "language": row.language,
        "family": family,
        "bank_version": row.bank_version,
        "licence": row.licence,
    }


def _manifest(parts: Mapping[str, Sequence[tuple[Row, Row]]], options: ExportOptions) -> dict[str, Any]:
    """What names the content: a hash of every example with its provenance, in order, and of how they were made."""
    made = {
        "format": str(options.format),
        "redact": options.redact,
        "most_alike": options.most_alike,
        "held_out_share": options.held_out_share,
        "place": str(options.row_options.place),
        "prompts": sorted(
            {about["prompt_id"] for rows in parts.values() for _, about in rows if about.get("prompt_id")}
        ),
    }
    digests = {
        name: hashlib.sha256(b"\n".join(orjson.dumps(row, option=orjson.OPT_SORT_KEYS) for row in rows)).hexdigest()
        for name, rows in parts.items()
    }
    whole = orjson.dumps({**made, "sha256": digests}, option=orjson.OPT_SORT_KEYS)
    counts = {name: len(rows) for name, rows in parts.items()}
    return {"hash": hashlib.sha256(whole).hexdigest(), **made, "rows": counts, "sha256": digests}


def _write(
    folder: Path, parts: Mapping[str, Sequence[tuple[Row, Row]]], manifest: Mapping[str, Any], format: Format
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        abouts = [{**about, "manifest": manifest["hash"]} for _, about in rows]
        if format.strict:
            write_rows(folder / f"{name}.jsonl", (example for example, _ in rows))
            write_rows(folder / f"{name}.provenance.jsonl", abouts)
        else:
            pairs = zip(rows, abouts, strict=True)
            write_rows(folder / f"{name}.jsonl", ({**example, "meta": about} for (example, _), about in pairs))
    half = folder / f"{MANIFEST}.part"
    half.write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    half.replace(folder / MANIFEST)


def _problems(format: Format, rows: Sequence[tuple[Row, Row]], name: str) -> list[str]:
    examples = [example for example, _ in rows]
    if format is Format.OPENAI_SFT:
        return [why for why in sft_problems(examples) if name == "train" or why.startswith("line")]
    if format is Format.OPENAI_PREFERENCE:
        return [why for why in preference_problems(examples) if name == "train" or why.startswith("line")]
    if format is Format.TRL_KTO and name == "train" and len({row["label"] for row in examples}) == 1:
        return ["only one label: KTO learns from good and bad answers"]
    return []


def read_data_set(folder: Path) -> tuple[Format, dict[str, list[Row]], dict[str, Any]]:
    """Read what ``export`` wrote: format, examples by part, manifest.

    Raises ``ValueError`` for a folder that is none, an empty one, or one whose content the manifest denies.
    """
    try:
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
        parts = {name: _read(folder / f"{name}.jsonl") for name in PARTS}
        format, counts = Format(manifest["format"]), manifest["rows"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no exported data set: {error}") from None
    if not parts["train"]:
        raise ValueError(f"{folder} holds no example to train on")
    for name, rows in parts.items():
        if len(rows) != counts[name]:
            raise ValueError(f"{folder / name}.jsonl has {len(rows)} rows, and the manifest says {counts[name]}")
    return format, parts, manifest


def _read(path: Path) -> list[Row]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
