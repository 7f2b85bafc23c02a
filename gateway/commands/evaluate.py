"""``antiprompt evaluate``: how good detection is on labelled texts, beside what simpler methods reach."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from antiprompt_bank import Bank, seed_records
from antiprompt_bank.adapter import Adapter
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.evaluation import Options, Tell, leave_source_out, shipped
from antiprompt_bank.examples import Fold, read_examples, read_folds
from antiprompt_bank.features import AdaptedEncoder, FeatureCache, open_features
from antiprompt_bank.marks import marks
from antiprompt_bank.model_files import default_id
from antiprompt_bank.probes import Probes
from antiprompt_bank.protocol import ROWS_PER_SOURCE, Split
from antiprompt_bank.report import Report
from antiprompt_bank.report_page import page
from antiprompt_bank.seeding import calibration_records
from gateway.chosen_bank import load_chosen_bank
from gateway.commands.console import FAILURES, err, fail, settings_or_fail
from gateway.commands.evaluation_tables import print_report
from gateway.settings import Settings

_PACKAGES: Final = ("antiprompt-gateway", "numpy", "openvino", "torch", "scikit-learn", "faiss-cpu")


class Protocol(StrEnum):
    LEAVE_SOURCE_OUT = "leave-source-out"
    SHIPPED = "shipped"


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of labelled texts (*.jsonl) and of folds.json.", exists=True)],
    protocol: Annotated[
        Protocol, typer.Option(help="Measure banks that never saw the sources, or the bank in force.")
    ] = Protocol.LEAVE_SOURCE_OUT,
    folds: Annotated[str, typer.Option(help="Names of folds, with commas. Unset: all.")] = "",
    rows: Annotated[int, typer.Option(min=1, help="Rows measured of each source, at most.")] = 400,
    train_rows: Annotated[int, typer.Option(min=0, help="Rows of a source to learn from, at most.")] = ROWS_PER_SOURCE,
    adapters: Annotated[Path | None, typer.Option(help="Folder of a folder with an adapter for each fold.")] = None,
    train: Annotated[bool, typer.Option("--train", help="Train the adapters that are not in --adapters.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="No evasions, bank sizes, times and adaptation.")] = False,
    evasions: Annotated[bool, typer.Option(help="What each way of disguising a text costs.")] = True,
    growth: Annotated[bool, typer.Option(help="Recall against the size of the bank.")] = True,
    timing: Annotated[bool, typer.Option(help="Time for a text.")] = True,
    adaptation: Annotated[bool, typer.Option(help="What one exemplar of an unseen attack catches.")] = True,
    baselines: Annotated[bool, typer.Option(help="Measure simpler methods beside the bank.")] = True,
    seed: Annotated[int, typer.Option(help="Chooses the rows.")] = 0,
    json: Annotated[Path | None, typer.Option(help="File for all figures.")] = None,
    html: Annotated[Path | None, typer.Option(help="File for a page with plots.")] = None,
) -> None:
    """Measure detection on labelled texts: recall at 1 % and 0.1 % false positives, beside simpler methods."""
    settings = settings_or_fail()
    some = {"evasions": evasions, "growth": growth, "timing": timing, "adaptation": adaptation}
    probes = replace(Probes(seed=seed), **{name: asked and not quick for name, asked in some.items()})
    options = Options(rows=rows, rows_per_source=train_rows, seed=seed, with_baselines=baselines, probes=probes)
    for target in (json, html):
        if target is not None and not target.parent.is_dir():
            fail(f"there is no folder {target.parent} to write {target.name} into")
    names = [name.strip() for name in folds.split(",") if name.strip()]
    try:
        encoders = _Encoders(settings, adapters, train)
        report = _measured(encoders, data, protocol, names, options)
        encoders.save()
        _write(report, json, html)
    except FAILURES as error:
        fail(str(error))
    print_report(report)


def _measured(encoders: _Encoders, data: Path, protocol: Protocol, names: Sequence[str], options: Options) -> Report:
    sources = read_examples(data)
    folds = read_folds(data, sources)
    if protocol is Protocol.SHIPPED:
        bank = encoders.bank()
        with _progress() as tell:
            report = shipped(sources, folds, bank, frozen=encoders.frozen(), options=options, tell=tell)
    else:
        if not folds.folds:
            raise ValueError("leaving sources out takes a folds.json that says which; --protocol shipped needs none")
        chosen = folds.named(names)
        encoders.check(chosen)
        with _progress() as tell:
            report = leave_source_out(
                sources,
                folds,
                chosen,
                seed_records=seed_records(),
                encoder_of=encoders.of_fold(tell),
                frozen=encoders.frozen(),
                harmless=calibration_records(),
                options=options,
                tell=tell,
            )
    return replace(report, versions=_versions(), options={"data": str(data), **report.options})


def _write(report: Report, json: Path | None, html: Path | None) -> None:
    if json is not None:
        found = {**report.to_json(), "marks": [mark.to_json() for mark in marks(report)]}
        json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    if html is not None:
        html.write_text(page(report), "utf-8")


class _Encoders:
    """The encoders of an evaluation: the frozen one, that of the bank in force, and one for each fold.

    All but the second work on features that are read once for all folds.
    """

    def __init__(self, settings: Settings, adapters: Path | None, train: bool) -> None:
        self.settings = settings
        self.adapters = adapters
        self.train = train

    @cached_property
    def _features(self) -> FeatureCache:
        # Where `antiprompt train encoder` keeps them too.
        return open_features(self.settings.data_dir / "training", device=self.settings.bank.device)

    def save(self) -> None:
        """Keep what was read for the next evaluation."""
        self._features.save()

    def bank(self) -> Bank:
        return load_chosen_bank(self.settings)

    def frozen(self) -> Encoder:
        return self._over_features(None)

    def check(self, folds: Sequence[Fold]) -> None:
        """Raises ``ValueError`` when a fold's adapter is missing; says so where none is given at all."""
        missing = [fold.name for fold in folds if not self._has(fold.name)]
        if self.adapters is not None and missing and not self.train:
            raise ValueError(f"{self.adapters} has no adapter for {', '.join(missing)}; --train makes them")
        if missing and not self.train:
            err.print("Note: without --adapters or --train the encoder is that of the bank in force.", markup=False)

    def of_fold(self, tell: Tell) -> Callable[[Split], tuple[Encoder, str | None]]:
        """For each fold its encoder, and what must be said about it."""

        def encoder_of(parts: Split) -> tuple[Encoder, str | None]:
            name = parts.fold.name
            if self.adapters is not None and self._has(name):
                return self._over_features(self.adapters / name), None
            if self.train:
                return self._over_features(self._trained(parts, tell)), None
            encoder = self.bank().encoder
            if encoder.id == default_id():
                return encoder, "the encoder is the frozen one, without an adapter"
            return encoder, "the encoder is the shipped one, whose adapter has seen these sources: figures flatter"

        return encoder_of

    @property
    def _work(self) -> Path:
        return self.settings.data_dir / "evaluation"

    def _has(self, fold: str) -> bool:
        return self.adapters is not None and (self.adapters / fold).is_dir()

    def _over_features(self, adapter: Path | None) -> Encoder:
        return AdaptedEncoder(self._features, None if adapter is None else Adapter.read(adapter))

    def _trained(self, parts: Split, tell: Tell) -> Path:
        """An adapter trained on a fold's training side and nothing else."""
        from antiprompt_bank.training import train_adapter  # torch: seconds, and only where it is asked for

        name = parts.fold.name
        folder = self._work / "adapters" / name
        train_adapter(
            parts.training,
            folder,
            self._features,
            guessed=parts.guessed,
            progress=lambda done, total: tell(f"{name}: adapter", done, total),
        )
        return folder


@contextmanager
def _progress() -> Iterator[Tell]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ProgressBar(*columns, console=err, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(label: str, done: int, total: int) -> None:
            if label not in tasks:
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[label] = bar.add_task(label, total=total)
            bar.update(tasks[label], completed=done, total=total, visible=True)

        yield tell


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
