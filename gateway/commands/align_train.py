"""``antiprompt align train``: a language model learns from an exported data set, beside its control arms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.commands.align import JudgeName, ModelFolder, judge_named
from gateway.commands.console import FAILURES, AsJson, err, fail, out, print_json, print_table, settings_or_fail

if TYPE_CHECKING:
    from gateway.alignment.training_run import TellArm


def train(
    method: Annotated[str, typer.Option(help="sft, inoculation, neat, dpo or kto.")],
    model: ModelFolder,
    data: Annotated[Path, typer.Option(help="Data set of a format that the method learns from.", exists=True)],
    to: Annotated[Path, typer.Option(help="Folder for adapter and report. A run begun there goes on.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of each arm.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Examples (NEAT: prompts) for one loss.")] = 8,
    accumulate: Annotated[int, typer.Option(min=1, help="Losses whose gradients make one step.")] = 1,
    learning_rate: Annotated[float, typer.Option(min=0.0)] = 1e-4,
    rank: Annotated[int, typer.Option(min=1, max=1024, help="Rank of the LoRA.")] = 8,
    alpha: Annotated[int, typer.Option(min=1, help="Scale of the LoRA, over its rank.")] = 16,
    ranking_weight: Annotated[float, typer.Option(min=0.0, help="NEAT: lambda, weight of the ranking loss.")] = 1.0,
    margin: Annotated[float, typer.Option(min=0.0, help="NEAT: margin of the ranking loss.")] = 1.0,
    judge: JudgeName = "bank",
    controls: Annotated[bool, typer.Option(help="Train the control arms too.")] = True,
    max_tokens: Annotated[int, typer.Option(min=16, help="Tokens of an example, at most.")] = 1024,
    max_answer_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a sampled answer, at most.")] = 64,
    evaluate_every: Annotated[int, typer.Option(min=0, help="Steps between held-out measurements; 0: never.")] = 50,
    checkpoint_every: Annotated[int, typer.Option(min=0, help="Steps between checkpoints; 0: none.")] = 50,
    seed: Annotated[int, typer.Option(help="Of all that is drawn by chance.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a LoRA adapter, and report on all arms. Killed at any moment, the same command goes on where it stood."""
    settings = settings_or_fail()
    try:
        from gateway.alignment.adapters import LoraShape
        from gateway.alignment.arms import ArmSettings, Method  # torch: seconds
        from gateway.alignment.objectives import RankingSettings
        from gateway.alignment.training_loop import LoopSettings
        from gateway.alignment.training_run import RunSettings, leads, train_model
    except ImportError as error:
        fail(f"training needs more packages ({error}): pip install 'antiprompt-gateway[train]'")
    try:
        ranked = RankingSettings(ranking_weight=ranking_weight, margin=margin, max_answer_tokens=max_answer_tokens)
        chosen = RunSettings(
            method=Method(method),
            model=model,
            loop=LoopSettings(
                steps=steps,
                learning_rate=learning_rate,
                accumulate=accumulate,
                warmup=0.05,
                decay=True,
                evaluate_every=evaluate_every,
                checkpoint_every=checkpoint_every,
                seed=seed,
            ),
            arm=ArmSettings(batch=batch, ranking=ranked),
            lora=LoraShape(rank, alpha),
            max_tokens=max_tokens,
            controls=controls,
        )
        with _progress() as tell:
            report = train_model(data, to, chosen, judge_named(judge, settings), tell)
    except FAILURES as error:
        fail(str(error))
    if not leads():
        return
    if as_json:
        print_json(report)
        return
    _tell(report, to)


def _tell(report: Mapping[str, Any], to: Path) -> None:
    shown = [("before training", report["base"])]
    shown += [(name, arm["final"]) for name, arm in report["arms"].items() if "final" in arm]
    rows = [
        (name, *(_share(measured[key]) for key in ("harm", "harm_under_attack")), _number(measured["good_answer_loss"]))
        for name, measured in shown
    ]
    print_table(("arm", "harm", "under attack", "loss of good answers"), rows, empty="")
    out.print(f"adapter and report: {to}", markup=False)


def _share(rate: Mapping[str, Any] | None) -> str:
    return "" if rate is None else f"{rate['share']:.3f} ({rate['low']:.3f}-{rate['high']:.3f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


@contextmanager
def _progress() -> Iterator[TellArm]:
    columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def tell(arm: str, step: int, of: int, losses: Mapping[str, float]) -> None:
            bar.update(task, description=f"{arm}: loss {losses['loss']:.3f}", completed=step, total=of)

        yield tell
