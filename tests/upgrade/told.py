"""What people rely on in a state, as today's stores tell it, in words and numbers that no later release gives up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from antiprompt_bank import BankStore
from gateway.accounts import AccountStore
from gateway.bank_versions import BankVersions
from gateway.cases import CaseStore
from gateway.client_keys import ClientKeyStore
from gateway.flags import FlagState, FlagStore
from gateway.overlay_entries import EntryStore
from gateway.policy_store import PolicyStore
from gateway.redis_client import RedisClient
from gateway.retraining_queue import RetrainingQueue
from gateway.reviews import ReviewStore
from gateway.settings import RetentionSettings
from tests.gateway.reviewing import assessing


async def told(redis: RedisClient, bank: Path, policy_file: Path) -> dict[str, Any]:
    """``bank`` is the folder of versions."""
    policies = PolicyStore(redis, policy_file)
    await policies.attach()
    flags, cases = FlagStore(redis, None), CaseStore(redis, RetentionSettings())
    reviews = ReviewStore(redis, assessing())
    current = await BankVersions(redis, bank).current()
    store = BankStore(bank)
    return {
        "keys": sorted([key.tenant, key.label, key.revoked_at is None] for key in await ClientKeyStore(redis).list()),
        "accounts": sorted([each.name, str(each.role)] for each in await AccountStore(redis).list()),
        "flags": {
            str(state): sorted([flag.text, flag.hazard] for flag in await flags.list(state, limit=100))
            for state in (FlagState.OPEN, FlagState.ESCALATED, FlagState.CONFIRMED, FlagState.DISMISSED)
        },
        "reviews": sorted([each.moderator, str(each.decision), each.stands] for each in await reviews.recent()),
        "entries": sorted([each.record.text, str(each.record.state)] for each in await EntryStore(redis).all()),
        "bank": None if current is None else [current.version, current.before, current.note],
        "versions": {version: len(store.diff(version, version).changed) for version in store.versions()},
        "policy": [policies.current.version, [entry.note for entry in await policies.history()]],
        "cases": sorted([case.id, case.action, case.hazard] for case in await cases.recent()),
        "waiting": await RetrainingQueue(redis).waiting(),
    }
