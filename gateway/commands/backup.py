"""``antiprompt backup`` and ``antiprompt restore``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway import backup as backups
from gateway.backup_files import BackupReader, Manifest
from gateway.commands.console import AsJson, connected, out, print_json, run
from gateway.settings import Settings

Folder = Annotated[Path, typer.Argument(help="The backup's folder.", show_default=False)]


def backup(
    folder: Folder,
    pause: Annotated[
        float, typer.Option(min=0, max=600, help="Most seconds for which writes to Redis wait. 0: nothing waits.")
    ] = backups.PAUSE_S,
    as_json: AsJson = False,
) -> None:
    """Copy everything that is kept into a new folder: Redis, the bank's versions, policy, calibration, waiting flags.

    It holds what users wrote, and secrets: keep it as you keep Redis, and no longer than you may keep the texts.
    """

    async def work(settings: Settings) -> Manifest:
        async with connected(settings) as redis:
            return await backups.back_up(redis, settings, folder, pause_s=pause)

    made = run(work)
    if as_json:
        print_json({**made.about, "files": len(made.files)})
        return
    out.print(f"{made.about['keys']} keys and {len(made.files) - 1} files in {folder}", markup=False, soft_wrap=True)
    if not made.about["one_moment"]:
        out.print("nothing waited: what changed meanwhile may be of different moments")


def restore(
    folder: Folder,
    replace: Annotated[bool, typer.Option("--replace", help="Delete the state that is there.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Check the backup's hashes, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup back, with gateways and workers stopped. Where there is a state already, it says so and ends."""

    async def work(settings: Settings) -> backups.Restored:
        async with connected(settings) as redis:
            return await backups.restore(redis, settings, folder, replace=replace)

    async def only_check(settings: Settings) -> Manifest:
        reader = BackupReader(folder)
        reader.verify()
        return reader.manifest

    if check:
        found = run(only_check)
        if as_json:
            print_json({**found.about, "files": len(found.files)})
        else:
            out.print(f"whole: {found.about['keys']} keys of {found.about['made_at']}, {len(found.files) - 1} files")
        return
    done = run(work)
    if as_json:
        print_json(asdict(done))
        return
    out.print(f"{done.keys} keys and {done.files} files are back; people log in anew", markup=False)
    out.print("whoever was erased after this backup is in it again: repeat antiprompt erase for them")
    if done.policy_file is not None:
        out.print(
            f"the policy file is {done.policy_file}: ANTIPROMPT_POLICY_FILE names it", markup=False, soft_wrap=True
        )
