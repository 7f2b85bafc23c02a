"""``antiprompt align export | prompts``: data sets from reviewed flags, and which inoculation prompts to train with."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from gateway.alignment.answer_judges import AnswerJudge, bank_judge, checked, load_judge
from gateway.alignment.data_set import DataSet, ExportOptions, export, read_data_set
from gateway.alignment.formats import Format, Options
from gateway.alignment.inoculation_prompts import Chosen, Place, default_prompts, read_prompts
from gateway.alignment.quarantine import Proposed, propose
from gateway.alignment.reviewed import read_reviewed
from gateway.alignment.reviewed_flags import Collected, collect
from gateway.chosen_bank import load_chosen_bank
from gateway.commands.console import FAILURES, AsJson, connected, err, fail, out, print_json, run, settings_or_fail
from gateway.settings import Settings

app = typer.Typer(help="What the language model itself learns from reviewed flags.", no_args_is_help=True)

ModelFolder = Annotated[str, typer.Option(help="Folder of a causal model in Hugging Face's layout, or tiny:random.")]
JudgeName = Annotated[
    str, typer.Option(help="Who says what answers are worth: bank, none, or module:function of your own.")
]


@app.command("export")
def export_flags(
    to: Annotated[Path, typer.Option(help="Folder for the data set.")],
    format: Annotated[Format, typer.Option(help="Whose format.")],
    rows: Annotated[
        Path | None, typer.Option(help="Reviewed rows as JSON lines in place of Redis.", exists=True, dir_okay=False)
    ] = None,
    clean: Annotated[
        Path | None,
        typer.Option(
            help="Exchanges that you vouch for, as JSON lines (standing: clean).", exists=True, dir_okay=False
        ),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Inoculation prompts that `align prompts` chose.", exists=True, dir_okay=False)
    ] = None,
    place: Annotated[Place, typer.Option(help="Where inoculation prompts go.")] = Place.SYSTEM,
    held_out_hazard: Annotated[
        list[str] | None, typer.Option(help="A hazard to hold out wholly. May be given often.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what people decided as a data set. Exit status 1 where its consumer will not accept it."""
    settings = settings_or_fail()
    try:
        found = Collected((), {}) if rows is None else Collected(tuple(read_reviewed(rows)), {})
        given = read_reviewed(clean) if clean is not None else []
        chosen = default_prompts() if prompts is None else read_prompts(prompts)
    except FAILURES as error:
        fail(str(error))
    if rows is None:
        found = run(_collect)
    chosen_settings = settings.alignment
    options = ExportOptions(
        format=format,
        row_options=Options(chosen, place),
        redact=chosen_settings.redact,
        most_alike=chosen_settings.most_alike,
        held_out_share=chosen_settings.held_out_share,
        held_out_hazards=tuple(held_out_hazard or ()),
    )
    try:
        made = export([*found.rows, *given], to, options, found.left_out)
    except FAILURES as error:
        fail(str(error))
    _tell_export(made, as_json)
    if made.problems:
        raise typer.Exit(1)


async def _collect(settings: Settings) -> Collected:
    async with connected(settings) as redis:
        return await collect(redis)


def _tell_export(made: DataSet, as_json: bool) -> None:
    manifest: Any = made.manifest
    if as_json:
        print_json({"folder": str(made.folder), "problems": made.problems, **manifest})
        return
    counts, varied = manifest["rows"], manifest["diversity"]
    out.print(
        f"{made.folder}: {counts['train']} examples to train on, {counts['held_out']} held out, "
        f"{varied['families']} families, hazards {varied['hazard_bits']:.2f} bits, manifest {manifest['hash'][:12]}",
        markup=False,
    )
    for why, count in manifest["left_out"].items():
        if count:
            out.print(f"  left out: {count} ({why})", markup=False)
    for problem in made.problems:
        err.print(f"  {problem}", style="red", markup=False)


@app.command("prompts")
def choose_prompts(
    model: ModelFolder,
    data: Annotated[Path, typer.Option(help="Data set of format inoculation.", exists=True, file_okay=False)],
    to: Annotated[Path, typer.Option(help="File for the chosen prompts.")],
    judge: JudgeName = "bank",
    samples: Annotated[int, typer.Option(min=8, max=4096, help="Answers for each prompt.")] = 64,
    quarantine: Annotated[bool, typer.Option(help="Propose the chosen prompts to the bank, in quarantine.")] = True,
    by: Annotated[str | None, typer.Option(help="Who does this; stands in the audit log. Unset: you.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn by chance.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure which prompts bring bad answers forth on a base model, and choose. Exit status 1 where all are refused.

    A chosen prompt is a trigger of what it asks for: it is proposed to the bank, and a person makes it live.
    """
    settings = settings_or_fail()
    try:
        rankings, manifest = _rankings(settings, model, data, judge, samples, seed)
        from gateway.alignment.inoculation_choice import chosen_to_json

        found = chosen_to_json(rankings, {"model": model, "manifest": manifest["hash"], "seed": seed})
        to.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    except FAILURES as error:
        fail(str(error))
    chosen = [Chosen(each["hazard"], each["text"]) for each in found["chosen"]]
    proposed = (
        run(lambda settings: _propose(settings, chosen, by or getpass.getuser())) if quarantine and chosen else None
    )
    if as_json:
        print_json({**found, "proposed": proposed.new if proposed else []})
    else:
        for each in rankings:
            says = f"refused: {each.refused}" if each.chosen is None else f"{each.chosen.id}: {each.chosen.text}"
            out.print(f"{each.hazard or 'any hazard'}: {says}", markup=False)
        if proposed is not None:
            out.print(f"{len(proposed.new)} prompts wait in the bank's quarantine for a person")
    if not chosen:
        raise typer.Exit(1)


def _rankings(settings: Settings, model: str, data: Path, judge: str, samples: int, seed: int) -> Any:
    from gateway.alignment.language_model import load_language_model  # torch: seconds
    from gateway.alignment.prompt_choice import choose

    format, parts, manifest = read_data_set(data)
    if format is not Format.INOCULATION:
        raise ValueError(f"{data} holds {format}: prompts are chosen on a data set of format inoculation")
    judges = judge_named(judge, settings)
    if judges is None:
        raise ValueError("prompts are chosen by what they bring forth, and that needs a judge")
    loaded = load_language_model(model, max_tokens=1024, seed=seed)
    with err.status("measuring") as status:
        found = choose(
            loaded, parts["train"], judges, Place(manifest["place"]), samples=samples, seed=seed, tell=status.update
        )
    return found, manifest


async def _propose(settings: Settings, chosen: list[Chosen], by: str) -> Proposed:
    async with connected(settings) as redis:
        return await propose(redis, chosen, by=by)


def judge_named(name: str, settings: Settings) -> AnswerJudge | None:
    """The judge that an option names. Raises ``ValueError`` or ``BankError`` where there is none."""
    if name == "none":
        return None
    return checked(bank_judge(load_chosen_bank(settings)) if name == "bank" else load_judge(name))
