"""What the chart starts, started: Redis with its arguments, the setup, gateway, worker and dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from antiprompt_bank import BankStore
from gateway.redis_client import RedisClient
from gateway.settings import RedisSettings
from tests.conftest import running
from tests.end_to_end.conftest import bank_folder  # noqa: F401  # a small bank in place of the images' own
from tests.end_to_end.exemplars import BAD_REQUEST, GOOD_REQUEST
from tests.helm.pods import CLIENT_KEY, Pods
from tests.helm.rendering import rendered

CHAT: Final = "/v1/chat/completions"

VALUES: Final = {
    "bank": {"store": "volume"},
    "worker": {"enabled": True},
    "review": {"enabled": True},
    "policy": "rules:\n  - {name: harm, hazard: '*', side: any, risk_at_least: 0.9, action: block}\n",
    "settings": {"retention": {"exchange_ttl_s": 0}},
}


@pytest.fixture(scope="module")
def pods(bank_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:  # noqa: F811
    """The pods of a release, started in the order in which a cluster gets them ready."""
    pods = Pods(rendered(VALUES), tmp_path_factory.mktemp("pods"), bank_folder)
    try:
        pods.start_redis()
        pods.run("setup", "setup")
        for component in ("review", "worker"):
            pods.start(component)
        pods.run("gateway", "first-client-key")
        pods.start("gateway")
        for component in ("gateway", "review", "worker"):
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                pods.wait_for(component, probe)
        yield pods
    finally:
        pods.close()


def chat(pods: Pods, text: str, **headers: str) -> httpx.Response:
    body = {"model": "demonstration", "messages": [{"role": "user", "content": text}]}
    return httpx.post(pods.url("gateway", CHAT), json=body, headers=headers, timeout=60)


def test_the_bundled_redis_is_as_the_gateway_wants_it(pods: Pods) -> None:
    async def look() -> list[object]:
        (container,) = pods.release.workload("gateway").pod["containers"]
        url = pods.variables("gateway", container)["ANTIPROMPT_REDIS__URL"]
        async with running(RedisClient(RedisSettings(url=url), pods.folder / "looking")) as redis:  # type: ignore[arg-type]
            return list(await redis.check())

    assert asyncio.run(look()) == []
    assert (pods.folder / "data-redis" / "appendonlydir").is_dir() or (
        pods.folder / "data-redis" / "appendonly.aof"
    ).is_file()


def test_the_setup_job_puts_the_images_bank_on_the_volume(pods: Pods, bank_folder: Path) -> None:  # noqa: F811
    assert BankStore(pods.folder / "bank").current() == BankStore(bank_folder).current()


def test_the_gateway_takes_the_secrets_key_and_no_other_and_blocks_by_the_policy_given(pods: Pods) -> None:
    assert chat(pods, GOOD_REQUEST).status_code == 401
    key = {"authorization": f"Bearer {CLIENT_KEY}"}
    allowed, blocked = chat(pods, GOOD_REQUEST, **key), chat(pods, BAD_REQUEST, **key)
    assert (allowed.status_code, allowed.headers["x-antiprompt-action"]) == (200, "allow")
    assert blocked.headers["x-antiprompt-action"] == "block"


def test_scrapes_and_people_find_what_they_look_for_where_the_services_lead(pods: Pods) -> None:
    for component in ("gateway", "review"):
        assert "antiprompt_bank_info" in httpx.get(pods.url(component, "/metrics")).text
    assert httpx.get(pods.url("review", "/review"), follow_redirects=True).status_code == 200
    assert httpx.get(pods.url("gateway", "/review")).status_code == 404
    assert httpx.post(pods.url("review", CHAT), json={}).status_code in (404, 405)


def test_all_end_well_when_they_are_told_to(pods: Pods) -> None:
    """The last test of this module."""
    for component in ("worker", "review", "gateway"):
        assert pods.stop(component) == 0, pods.log(component)
    assert not pods.passes("worker", "livenessProbe")
