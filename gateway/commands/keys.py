"""``antiprompt keys``: who may use the gateway."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from gateway.client_keys import ClientKey, ClientKeyStore
from gateway.commands.console import AsJson, connected, out, print_json, print_table, run
from gateway.settings import Settings

app = typer.Typer(help="Client keys: who may use the gateway.", no_args_is_help=True)

_MAX_TOKEN_CHARS: Final = 1000


@app.command("create")
def create_key(
    tenant: Annotated[str, typer.Option(help="Whose key it is.")],
    label: Annotated[str, typer.Option(help="A word for people.")] = "",
    policy: Annotated[str | None, typer.Option(help="Part of the policy it falls under. Unset: the tenant's.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model it may use; repeat. Unset: all.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    sees_scores: Annotated[bool, typer.Option(help="Whether /v1/moderations shows it scores.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a client key. It is shown once; only its hash is kept."""

    async def work(settings: Settings) -> tuple[ClientKey, str]:
        async with connected(settings) as redis:
            return await ClientKeyStore(redis).create(
                tenant,
                label=label,
                policy=policy,
                models=tuple(model or ()),
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
                sees_scores=sees_scores,
            )

    key, token = run(work)
    if as_json:
        print_json({**asdict(key), "token": token})
    else:
        out.print(token, markup=False, soft_wrap=True)


@app.command("adopt")
def adopt_key(
    token_file: Annotated[typer.FileText, typer.Option(help="File that holds the key; - for standard input.")],
    tenant: Annotated[str, typer.Option(help="Whose key it is.")],
    label: Annotated[str, typer.Option(help="A word for people.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take over a client key that was made elsewhere (agk_ID_SECRET), such as a secret of the cluster.

    Again it changes nothing, so it may run before every start; a revoked key stays revoked.
    """
    token = token_file.read(_MAX_TOKEN_CHARS).strip()

    async def work(settings: Settings) -> ClientKey:
        async with connected(settings) as redis:
            return await ClientKeyStore(redis).adopt(token, tenant, label=label)

    key = run(work)
    if as_json:
        print_json(asdict(key))
    else:
        out.print(key.id, markup=False)


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List client keys, revoked ones too."""

    async def work(settings: Settings) -> list[ClientKey]:
        async with connected(settings) as redis:
            return list(await ClientKeyStore(redis).list())

    keys = run(work)
    if as_json:
        print_json([asdict(key) for key in keys])
        return
    rows = (
        (k.id, k.tenant, k.label, ", ".join(k.models) or "all", _when(k.created_at), _when(k.revoked_at)) for k in keys
    )
    print_table(("id", "tenant", "label", "models", "created", "revoked"), rows, empty="no client key yet")


@app.command("revoke")
def revoke_key(key_id: str) -> None:
    """End a client key for good; gateways follow within two seconds."""

    async def work(settings: Settings) -> ClientKey:
        async with connected(settings) as redis:
            return await ClientKeyStore(redis).revoke(key_id)

    out.print(f"revoked {run(work).id}", markup=False)


def _when(moment: float | None) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S") if moment else ""
