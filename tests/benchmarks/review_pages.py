"""How fast the dashboard is under load: ``python -m tests.benchmarks.review_pages``.

100,000 flags wait in a real Redis and 5,000 were decided; 200 more are filed a second, acknowledged like any other, by
the process that serves the pages. Meanwhile one person goes from page to page. No bank is loaded: what a page asks of
it (neighbours, influence) is one text encoded, which ``bench-screening`` measures.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

import httpx
import orjson
import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette

from gateway.flag_records import Flag, Source
from gateway.flags import FlagStore
from gateway.parts import Parts, build
from gateway.redis_client import RedisClient
from gateway.redis_keys import REVIEW, REVIEW_RECENT
from gateway.review import routes
from gateway.review_records import Decision, Verdict
from gateway.reviews import ReviewStore
from gateway.roles import Role
from gateway.settings import RedisSettings, Settings
from gateway.telemetry import Metrics
from tests.benchmarks.figures import Speed, document, keep, open_console, say_missed, speeds_table, step
from tests.benchmarks.processes import free_port
from tests.conftest import RealRedis, running

AIM_MS = 200.0
FLAGS_PER_S = 200
HAZARDS = ("hate", "privacy", "violent_crimes", "non_violent_crimes", "specialized_advice", "self_harm")
LANGUAGES = ("en", "de", "fr", "es", "tr")
_BATCH = 2000
_PERSON = "ada"
_COOKIE = "cookie "


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    waiting: int = 100_000
    decided: int = 5_000
    rounds: int = 30


QUICK = Sizes(waiting=500, decided=20, rounds=2)

PAGES = {
    "queue": "/review/queue",
    "queue, second page": "/review/queue?after={after}",
    "queue, one hazard": "/review/queue?hazard=hate",
    "queue, hazard, language and age": "/review/queue?hazard=hate&language=tr&age=1+h",
    "queue, what nobody has": "/review/queue?hazard=hate&tenant=nobody",
    "queue, newest first": "/review/queue?order=newest",
    "queue, look-alikes": "/review/queue?like={flag}",
    "queue, dismissed": "/review/queue?state=dismissed",
    "a flag": "/review/flags/{flag}",
    "numbers": "/review/numbers",
    "audit log": "/review/audit",
}


def a_flag(number: int, dice: random.Random) -> Flag:
    """Flag number so and so, of the last three days; a tenth comes from people."""
    person = dice.random() < 0.1
    return Flag(
        tenant=f"tenant{number % 7}",
        source=Source.USER if person else Source.POLICY,
        side="request" if number % 2 else "response",
        text=f"Text number {number}: " + "how would one go about it, and what is needed? " * dice.randint(1, 12),
        hazard=dice.choice(HAZARDS),
        risk=round(dice.random(), 3),
        language=dice.choice(LANGUAGES),
        created_at=time.time() - dice.random() * 3 * 86_400,
    )


async def fill(redis: RedisClient, sizes: Sizes) -> None:
    """File the flags and decide some, as people would have."""
    dice, store, reviews = random.Random(7), FlagStore(redis, None), ReviewStore(redis)
    async with running(store):
        for first in range(0, sizes.waiting + sizes.decided, _BATCH):
            last = min(first + _BATCH, sizes.waiting + sizes.decided)
            made = await asyncio.gather(*(store.add(a_flag(number, dice)) for number in range(first, last)))
            for id, _ in made[: max(0, min(len(made), sizes.decided - first))]:
                decision = Decision.DISMISS if dice.random() < 0.5 else Decision.ESCALATE
                await reviews.decide(Verdict(flag_ids=(id,), moderator=_PERSON, decision=decision))


async def spread_reviews(redis: RedisClient) -> None:
    """Have the reviews made over the last three days: in ten minutes nobody decides thousands of flags."""
    dice = random.Random(11)
    with redis.guard() as connection:
        ids = await connection.zrange(REVIEW_RECENT(), 0, -1)
        for first in range(0, len(ids), _BATCH):
            pipe = connection.pipeline(transaction=False)
            for id in ids[first : first + _BATCH]:
                pipe.hget(REVIEW(id), "review")
            rows = await pipe.execute()
            for id, row in zip(ids[first : first + _BATCH], rows, strict=True):
                at = time.time() - 1000 - dice.random() * 3 * 86_400
                pipe.hset(REVIEW(id), "review", orjson.dumps({**orjson.loads(row), "at": at}))
                pipe.zadd(REVIEW_RECENT(), {id: int(at * 1000)})
            await pipe.execute()


async def serve(url: str, port: int, data_dir: Path) -> None:
    """Serve the dashboard and file flags beside it until terminated; prints the person's cookie first."""
    settings = Settings(redis=RedisSettings(url=SecretStr(url)), data_dir=data_dir)
    async with _started(build(settings, Metrics(), "http://127.0.0.1:9/v1")) as parts:
        account = await parts.accounts.create(_PERSON, Role.ADMIN, None)
        print(_COOKIE + await parts.sessions.begin(account), flush=True)
        app = Starlette(routes=routes())
        app.state.parts, app.state.metrics = parts, parts.metrics
        filing = asyncio.create_task(_file(parts))
        await uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error")).serve()
        filing.cancel()


@asynccontextmanager
async def _started(parts: Parts) -> AsyncIterator[Parts]:
    async with AsyncExitStack() as stack:
        await parts.redis.start()
        stack.push_async_callback(parts.redis.close)
        await parts.policies.start()
        for part in (parts.flags, parts.cases):
            await part.start()
            stack.push_async_callback(part.close)
        parts.screener.start()
        stack.push_async_callback(parts.screener.close)
        yield parts


async def _file(parts: Parts) -> None:
    """File flags at an even pace, whatever each takes; those on the way are bounded by the store."""
    dice, number, pending = random.Random(os.getpid()), 10_000_000, set[asyncio.Task[object]]()
    began_s = time.monotonic()
    while True:
        due = int((time.monotonic() - began_s) * FLAGS_PER_S)
        while number - 10_000_000 < due:
            task: asyncio.Task[object] = asyncio.create_task(parts.flags.add(a_flag(number, dice)))
            pending.add(task)
            task.add_done_callback(pending.discard)
            number += 1
        await asyncio.sleep(0.01)


async def measure(port: int, cookie: str, rounds: int) -> list[Speed]:
    """One person's way through the pages, again and again; the first round warms the templates up."""
    took_ms: dict[str, list[float]] = {name: [] for name in PAGES}
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", cookies={"antiprompt_review": cookie}, timeout=60
    ) as client:
        queue = (await client.get("/review/queue")).text
        filled = {"flag": _between(queue, "/review/flags/", '"'), "after": _between(queue, "after=", '"')}
        for number in range(rounds + 1):
            for name, path in PAGES.items():
                began_s = time.perf_counter()
                answer = await client.get(path.format(**filled))
                if answer.status_code != 200:
                    raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text[:300]}")
                if number:
                    took_ms[name].append((time.perf_counter() - began_s) * 1e3)
    speeds = []
    for name, times in took_ms.items():
        speeds.append(Speed(f"{name}: median", "ms", median(times), aim=AIM_MS))
        speeds.append(Speed(f"{name}: 95 of 100", "ms", quantiles(times, n=20)[-1] if len(times) > 1 else times[0]))
    return speeds


def _between(text: str, before: str, after: str) -> str:
    _, found, rest = text.partition(before)
    assert found, f"the queue's page has no {before!r}"
    return rest.partition(after)[0].partition("&")[0]


async def run(sizes: Sizes) -> list[Speed]:
    """Fill a Redis, serve over it, and measure."""
    console = open_console()
    with tempfile.TemporaryDirectory(prefix="ap-") as folder:
        server = RealRedis(Path(folder))
        server.start()
        try:
            async with running(RedisClient(RedisSettings(url=SecretStr(server.url)), Path(folder) / "fill")) as redis:
                with step(console, f"{sizes.waiting:,} flags are filed, {sizes.decided:,} decided"):
                    await fill(redis, sizes)
                    await spread_reviews(redis)
            port = free_port()
            command = [sys.executable, "-m", "tests.benchmarks.review_pages", "--serve", server.url, str(port), folder]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:  # noqa: ASYNC220
                assert serving.stdout is not None
                told = (line for line in serving.stdout if line.startswith(_COOKIE))  # beside lines of the log
                cookie = next(told).removeprefix(_COOKIE).strip()
                try:
                    await _answers(port)
                    with step(console, "pages"):
                        return await measure(port, cookie, sizes.rounds)
                finally:
                    serving.terminate()
        finally:
            server.stop()


async def _answers(port: int) -> None:
    async with asyncio.timeout(60), httpx.AsyncClient() as client:
        while True:
            try:
                await client.get(f"http://127.0.0.1:{port}/review/log-in")
                return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    if chosen.serve:
        url, port, folder = chosen.serve
        asyncio.run(serve(url, int(port), Path(folder) / "data"))
        return 0
    sizes = QUICK if chosen.quick else Sizes()
    speeds = asyncio.run(run(sizes))
    console = open_console()
    title = f"The dashboard with {sizes.waiting:,} flags waiting, and {FLAGS_PER_S} more a second"
    console.print(speeds_table(speeds, title))
    say_missed(speeds, console)
    path = keep(document(speeds, sizes=asdict(sizes), flags_per_s=FLAGS_PER_S), chosen.json)
    console.print(f"Kept in {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.review_pages", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure little, to see whether all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the figures (bench-results/)")
    parser.add_argument("--serve", nargs=3, metavar=("URL", "PORT", "DIR"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
