"""The ``antiprompt`` command."""

from __future__ import annotations

import typer

from gateway.commands import (
    align,
    align_train,
    bank,
    bank_changes,
    bank_init,
    bank_remote,
    bank_variants,
    bank_versions,
    keys,
    moderators,
    policy,
    state,
    train,
)
from gateway.commands.backup import backup, restore
from gateway.commands.calibrate import calibrate
from gateway.commands.check import check
from gateway.commands.evaluate import evaluate
from gateway.commands.probe import probe
from gateway.commands.retrain import retrain
from gateway.commands.review import review
from gateway.commands.serve import serve
from gateway.commands.settings import show_settings
from gateway.commands.worker import worker

app = typer.Typer(
    name="antiprompt",
    help="A safety gateway for language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals hold what users wrote
)
app.command()(serve)
app.command()(review)
app.command()(worker)
app.command()(retrain)
app.command()(check)
app.command()(calibrate)
app.command()(evaluate)
app.command()(probe)
app.command("settings")(show_settings)
app.command("erase")(state.erase)
app.command()(backup)
app.command()(restore)
app.command("archive")(state.archive)
app.command("doctor")(state.doctor)
bank.app.command()(bank_init.init)
bank.app.command("import")(bank_changes.import_files)
bank.app.command()(bank_versions.publish)
bank.app.command()(bank_versions.rollback)
bank.app.command()(bank_versions.history)
bank.app.command()(bank_versions.replicas)
bank.app.command()(bank_remote.push)
bank.app.command()(bank_remote.pull)
bank.app.command()(bank_remote.remote)
bank.app.command()(bank_changes.dedupe)
bank.app.command()(bank_changes.reembed)
bank.app.command()(bank_variants.proliferate)
app.add_typer(bank.app, name="bank")
align.app.command("train")(align_train.train)
app.add_typer(align.app, name="align")
app.add_typer(train.app, name="train")
app.add_typer(policy.app, name="policy")
app.add_typer(moderators.app, name="moderators")
app.add_typer(keys.app, name="keys")
app.add_typer(state.flags_app, name="flags")
app.add_typer(state.cases_app, name="cases")


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
