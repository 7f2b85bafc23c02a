"""``antiprompt train encoder``: an adapter of one's own, from labelled texts and the seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from antiprompt_bank import Antiprompt, seed_records
from antiprompt_bank.examples import Fold, read_examples, read_folds
from antiprompt_bank.features import open_features
from antiprompt_bank.protocol import ROWS_PER_SOURCE, split
from gateway.commands.console import FAILURES, AsJson, err, fail, out, print_json, settings_or_fail

app = typer.Typer(help="Train what detection learns.", no_args_is_help=True)


@app.callback()
def _train() -> None:
    """Keeps ``encoder`` a command of its own."""


@app.command()
def encoder(
    data: Annotated[
        list[Path] | None, typer.Option(help="Folder of labelled texts (*.jsonl). May be given more than once.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Folder for the adapter. Unset: adapter in data_dir.")] = None,
    seed_bank: Annotated[bool, typer.Option(help="Learn from the seed's exemplars too.")] = True,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each source, at most.")] = ROWS_PER_SOURCE,
    leave_out: Annotated[list[str] | None, typer.Option(help="A source to leave out. May be given often.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of training. Unset: as the shipped adapter.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn by chance.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on top of the encoder: minutes on a CPU. Use it with bank.adapter (ANTIPROMPT_BANK__ADAPTER)."""
    settings = settings_or_fail()
    folder = to or settings.data_dir / "adapter"
    try:
        records, guessed = _records(data or [], seed_bank, rows, frozenset(leave_out or ()), seed)
        from antiprompt_bank.training import TrainingSettings, train_adapter  # torch: seconds

        chosen = TrainingSettings(seed=seed)
        with _bar() as bar:
            task = bar.add_task("reading", total=None)

            def tell(done: int, total: int) -> None:
                what = "reading" if done <= total // 2 else "training"
                bar.update(task, completed=done, total=total, description=what)

            made = train_adapter(
                records,
                folder,
                open_features(settings.data_dir / "training", model=settings.bank.model, device=settings.bank.device),
                guessed=guessed,
                settings=chosen if steps is None else replace(chosen, steps=steps),
                progress=tell,
            )
    except FAILURES as error:
        fail(str(error))
    if as_json:
        print_json({"folder": str(folder), "sha256": made.sha256, **asdict(made.card)})
        return
    figures = made.card.figures
    out.print(f"{folder}: {len(records)} texts, {figures['windows']} windows", markup=False)
    out.print(
        f"loss {figures['loss_first']:.3f} -> {figures['loss_last']:.3f}, sha256 {made.sha256[:12]}", markup=False
    )


def _records(
    folders: list[Path], seed_bank: bool, rows: int, left_out: frozenset[str], seed: int
) -> tuple[list[Antiprompt], frozenset[str]]:
    """The seed and the rows of the folders, without what ``folds.json`` says is never trained on; and the ids of those
    whose hazard is a guess."""
    records = seed_records() if seed_bank else []
    guessed: frozenset[str] = frozenset()
    for folder in folders:
        sources = read_examples(folder)
        unknown = sorted(left_out - set(sources))
        if unknown:
            raise ValueError(f"{folder} has no source {unknown[0]!r}; it has {', '.join(sorted(sources))}")
        parts = split(
            read_folds(folder, sources),
            Fold("left out", {"never": tuple(left_out)}),
            sources,
            records,
            rows_per_source=rows,
            held_back_per_source=0,
            seed=seed,
        )
        records, guessed = list(parts.training), guessed | parts.guessed
    if not records:
        raise ValueError("there is nothing to learn from: name a folder with --data, or leave the seed in")
    return records, guessed


@contextmanager
def _bar() -> Iterator[Progress]:
    columns = (TextColumn("{task.description:9}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        yield bar
