"""What a running gateway keeps, read beside it as its own commands read it: keys, cases, exchanges, flags."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from gateway.cases import Case, CaseStore, Exchange
from gateway.client_keys import ClientKeyStore
from gateway.errors import NotFound
from gateway.flags import Flag, FlagStore
from gateway.redis_client import RedisClient
from gateway.redis_server import socket_path
from gateway.settings import RedisSettings, RetentionSettings

PATIENCE_S = 10.0
POLL_S = 0.01


class State:
    """The state of the gateway with this data folder."""

    def __init__(self, redis: RedisClient) -> None:
        self.redis = redis
        self.keys = ClientKeyStore(redis)
        self.cases = CaseStore(redis, RetentionSettings())
        self.flags = FlagStore(redis, None)

    @classmethod
    @asynccontextmanager
    async def beside(cls, data_dir: Path) -> AsyncIterator[State]:
        """Connect to the private Redis of a gateway that runs."""
        url = f"unix://{quote(str(socket_path((data_dir / 'redis').resolve())))}"
        redis = RedisClient(RedisSettings(url=SecretStr(url)), data_dir)
        await redis.start()
        try:
            yield cls(redis)
        finally:
            await redis.close()

    async def new_key(self, policy: str, **fields_of_key: Any) -> tuple[str, str]:
        """A tenant that nothing is known of, under a part of the policy: its name, and a client key of its own."""
        tenant = f"{policy}-{secrets.token_hex(4)}"
        _, token = await self.keys.create(tenant, policy=policy, **fields_of_key)
        return tenant, token

    async def case(self, id: str) -> Case:
        """A case, as soon as it is kept: that is a moment after the reply has ended."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await self.cases.get(id, tenant=None)
                except NotFound:
                    await asyncio.sleep(POLL_S)

    async def exchange(self, id: str) -> Exchange | None:
        """The text of a case."""
        await self.case(id)
        return await self.cases.exchange(id, tenant=None)

    async def flags_of(self, tenant: str) -> Sequence[Flag]:
        """The open flags of a tenant, newest first."""
        return [flag for flag in await self.flags.list(limit=10_000) if flag.tenant == tenant]
