import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.exceptions import RedisError

from antiprompt_bank import State
from gateway.accounts import AccountStore
from gateway.backup_state import PREFIX, StateCopy, Value
from gateway.cases import Case, CaseStore, Exchange, new_case_id
from gateway.client_keys import ClientKeyStore
from gateway.erasure import erase_end_user
from gateway.errors import RateLimited
from gateway.exemplar_hits import ExemplarHits
from gateway.flags import Flag, FlagState, FlagStore, Source
from gateway.history import TenantHistory
from gateway.hold_webhooks import HoldWebhooks
from gateway.moderator_sessions import SessionStore
from gateway.policy_file import DEFAULT_POLICY_FILE
from gateway.policy_store import PolicyStore
from gateway.quotas import Quotas
from gateway.redis_client import RedisClient
from gateway.redis_cluster import ClusterRedis, slot_of
from gateway.redis_keys import AUDIT, CLIENT_KEY, FLAG, INSTALLATION_SECRET, JUDGED, REVIEW_AUDIT
from gateway.retraining_queue import RetrainingQueue
from gateway.review_records import Decision, QueueFilter
from gateway.reviews import ReviewStore
from gateway.roles import Role
from gateway.settings import (
    FlagSettings,
    HoldSettings,
    RedisSettings,
    RetentionSettings,
    ReviewSettings,
    StrikeSettings,
)
from gateway.spool import Spool
from gateway.strike_rules import Strikes
from gateway.strikes import Standing, Strike, StrikeStore, erase_strikes
from gateway.telemetry import Metrics
from tests.conftest import RealRedis, running
from tests.fakes import ScriptedUpstream, whole
from tests.gateway.banks import NEW, Folder, Follower, exemplar
from tests.gateway.real_redis import Node, a_cluster
from tests.gateway.reviewing import assessing, filed, verdict

AMONG_FLAGS = FLAG("flag_1")
ELSEWHERE = CLIENT_KEY("0")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Three nodes that share the slots; tests take nothing away from them."""
    with a_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture
async def client(cluster: list[Node], tmp_path: Path) -> AsyncIterator[RedisClient]:
    for node in cluster:
        node.ask("FLUSHALL")
    async with running(RedisClient(settings_for(cluster[:1]), tmp_path / "data")) as client:
        yield client


def settings_for(nodes: list[Node], **fields: object) -> RedisSettings:
    return RedisSettings(cluster_nodes=tuple(node.address for node in nodes), **fields)  # type: ignore[arg-type]


async def test_a_flags_way_from_filing_to_undo_works_on_three_nodes(client: RedisClient) -> None:
    store = ReviewStore(client, assessing("it hits what nobody complained of"))
    first, second = [await filed(client, end_user="ann"), await filed(client, "another", end_user="ann")]
    page = await store.queue(filters=QueueFilter(hazard="specialized_advice"))
    assert {flag.id for flag in page.flags} == {first, second}
    assert (await store.claim(first, "ada")).claimed_by == "ada"
    await store.release(first, "ada")
    await store.comment(first, "ada", "look at this")
    review = await store.decide(verdict(first, second))
    assert await store.decide(verdict(first, second)) == review
    assert (await store.second(review.entry_ids[0], "bob")).record.state is State.LIVE
    assert (await store.undo(review.id, "ada")).undone_by == "ada"
    dismissed = await store.decide(verdict(second, decision=Decision.DISMISS))
    assert [each.id for each in await store.recent()] == [dismissed.id, review.id]
    assert (await store.numbers()).by_state["dismissed"] == 1
    queue = RetrainingQueue(client)
    for delivery in await queue.read("worker"):
        await queue.done(delivery, ["exemplar"])
    assert (await queue.waiting(), (await queue.due()).exemplars) == (0, 1)
    assert await queue.take_build() is not None


async def test_strikes_hits_and_webhooks_work_on_three_nodes(client: RedisClient) -> None:
    strikes, hits, reviews = (
        StrikeStore(client, StrikeSettings()),
        ExemplarHits(client),
        ReviewStore(client, assessing()),
    )
    block, person = Strike(at_ms=0, weight=2, side="request", hazard="hate", part="acme"), "0" * 32
    for number in range(2):
        case_id = f"case_{number}"
        await strikes.add(block, case_id=case_id, tenant="acme", end_user=person, rules=Strikes(warn_at=1))
    appeal = {"source": Source.APPEAL, "side": "request", "case_id": "case_0", "exemplar": "ap_1", "awaited": True}
    review = await reviews.decide(verdict(await filed(client, **appeal), decision=Decision.DISMISS))  # type: ignore[arg-type]
    (struck,) = await strikes.listed(lambda part: Strikes(warn_at=1))
    assert (struck.conduct.strikes, struck.conduct.standing) == (1, Standing.WARNED)
    hits.note("ap_1")
    await hits.flush()
    report = await hits.report("ap_1")
    assert (report.hits, report.dismissed) == (1, 1)
    async with ScriptedUpstream() as receiver:
        receiver.on("/told", whole({}))
        url = f"{receiver.base_url}/told"
        settings = HoldSettings(webhook_url=url, webhook_secret=SecretStr("sixteen letters or more"))
        async with running(HoldWebhooks(client, settings, Metrics())) as webhooks:
            assert await webhooks.post_due()
            assert not await webhooks.post_due()
        assert receiver.last.json["state"] == "approved"
    await reviews.undo(review.id, "ada")
    assert await strikes.clear(tenant="acme", end_user=person, by="ada") == 2
    assert await erase_strikes(person, client) == 0


async def test_everything_else_that_is_kept_works_on_three_nodes(client: RedisClient, cluster: list[Node]) -> None:
    keys = ClientKeyStore(client)
    made, _ = [await keys.create("acme"), await keys.create("other")]
    assert (await keys.revoke(made[0].id)).revoked_at is not None
    assert len(await keys.list()) == 2
    accounts = AccountStore(client)
    account = await accounts.create("ada", Role.LEAD, None)
    sessions = SessionStore(client, accounts, ReviewSettings())
    session = await sessions.find(await sessions.begin(account))
    assert session is not None
    policies = PolicyStore(client, DEFAULT_POLICY_FILE)
    await policies.start()
    before = policies.current.version
    text = (await policies.text()).replace("description:", "# as published\ndescription:", 1)
    await policies.publish(text, author="ada", note="try")
    await policies.break_glass(timedelta(hours=1), author="ada", reason="fire")
    assert await policies.restore(author="ada", note="it is out")
    assert await policies.rollback(before, author="ada", note="back") == before
    quotas = Quotas(client, FlagSettings())
    await quotas.take_request(made[0].id, requests_per_minute=1, tokens_per_minute=None)
    with pytest.raises(RateLimited):
        await quotas.take_request(made[0].id, requests_per_minute=1, tokens_per_minute=None)
    history = TenantHistory(client)
    await history.remember_judged("acme", ["a", "b", "c", "d"], "block")
    await history.remember_issued("acme", ["resp_1"])
    elsewhere = TenantHistory(client)
    assert await elsewhere.judged("acme", ["a", "b", "c", "d", "e"]) == dict.fromkeys("abcd", "block")
    assert await elsewhere.owns("acme", "resp_1")
    assert sum(node.ask("DBSIZE") > 0 for node in cluster) == 3, "all three nodes have a share"


async def test_a_person_is_erased_on_all_nodes(client: RedisClient) -> None:
    ann = client.end_user_digest("ann")
    cases, flags = CaseStore(client, RetentionSettings()), FlagStore(client, None)
    case = Case(id=new_case_id(), created_at=time.time(), tenant="t", surface="chat", action="flag", end_user=ann)
    cases.record(case, Exchange((("user", "my words"),), ("so so",)))
    assert [each.id for each in await cases.recent()] == [case.id]
    await filed(client, "my words", end_user=ann)
    found = await erase_end_user("ann", redis=client, flags=flags, cases=cases)
    assert (found.flags, found.cases, found.exchanges) == (1, 1, 1)
    with client.guard() as redis:
        assert await redis.xlen(AUDIT()) == 1


async def test_a_decision_reaches_a_gateway_over_the_cluster(client: RedisClient, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    follower = Follower(client, folder, "one")
    async with follower.running():
        await follower.overlay.begin()
        assert await follower.risk(NEW) < 0.5
        following = asyncio.create_task(follower.overlay.follow(interval_s=0.01))
        flag = await filed(client, NEW, side="request", prompt=None, hazard="non_violent_crimes")
        await ReviewStore(client, assessing()).decide(verdict(flag))
        second = folder.add(exemplar(NEW), minute=1, parent=folder.first)
        async with asyncio.timeout(20):
            while await follower.risk(NEW) < 0.5:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await follower.versions.publish(second, by="ada", note="all of it")
            while follower.overlay.state.base != second:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        following.cancel()
        assert await follower.versions.rollback(by="ada", note="too soon")


async def test_keys_of_two_slots_never_share_a_transaction(client: RedisClient) -> None:
    assert slot_of(AMONG_FLAGS) == slot_of(REVIEW_AUDIT()) != slot_of(ELSEWHERE)
    with client.guard() as redis:
        pipe = redis.pipeline(transaction=True)
        pipe.set(AMONG_FLAGS, 1)
        pipe.set(ELSEWHERE, 1)
        with pytest.raises(ValueError, match="one hash tag"):
            await pipe.execute()
        assert not await redis.exists(AMONG_FLAGS)


async def test_a_pipeline_is_split_and_answers_in_its_order(client: RedisClient) -> None:
    with client.guard() as redis:
        pipe = redis.pipeline(transaction=False)
        names = [JUDGED("acme", str(number)) for number in range(50)]
        for name in names:
            pipe.set(name, name)
        assert await pipe.execute() == [True] * 50
        for name in names:
            pipe.get(name)
        pipe.lpush(names[0], "not a list")
        found = await pipe.execute(raise_on_error=False)
        assert found[:-1] == names
        assert "WRONGTYPE" in str(found[-1])


async def test_a_slot_may_move_while_gateways_run(client: RedisClient, cluster: list[Node]) -> None:
    with client.guard() as redis:
        await redis.set(AMONG_FLAGS, "here")
        async with moving(slot_of(AMONG_FLAGS), cluster) as new:
            assert await redis.get(AMONG_FLAGS) == "here"
            assert await redis.get(FLAG("flag_2")) is None, "asked of the new node, where it would be"
        pipe = redis.pipeline(transaction=True)
        pipe.get(AMONG_FLAGS)
        pipe.set(FLAG("flag_2"), "there")
        assert await pipe.execute() == ["here", True]
        assert isinstance(redis, ClusterRedis)
        assert (await redis.node_for(AMONG_FLAGS)).connection_pool.connection_kwargs["port"] == new.port


async def test_commands_and_pipelines_follow_a_slot_that_moved_unseen(client: RedisClient, cluster: list[Node]) -> None:
    with client.guard() as redis:
        await redis.set(ELSEWHERE, "here")
        async with moving(slot_of(ELSEWHERE), cluster):
            pass
        assert await redis.get(ELSEWHERE) == "here"
        async with moving(slot_of(ELSEWHERE), cluster):
            pass
        pipe = redis.pipeline(transaction=False)
        pipe.get(ELSEWHERE)
        pipe.get(AMONG_FLAGS)
        assert await pipe.execute() == ["here", None]
        async with moving(slot_of(ELSEWHERE), cluster):
            pass
        async with redis.pipeline(transaction=True) as watching:
            await watching.watch(ELSEWHERE)
            assert await watching.get(ELSEWHERE) == "here"
            watching.multi()  # type: ignore[no-untyped-call]
            watching.set(ELSEWHERE, "there")
            assert await watching.execute() == [True]


@asynccontextmanager
async def moving(slot: int, nodes: list[Node]) -> AsyncIterator[Node]:
    """Move a slot as ``redis-cli --cluster reshard`` does, to the node given; it is half way inside."""
    old = next(node for node in nodes if owns(node, slot))
    new = next(node for node in nodes if node is not old)
    new.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", old.ask("CLUSTER", "MYID"))
    old.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", new.ask("CLUSTER", "MYID"))
    yield new
    while names := old.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
        old.ask("MIGRATE", "127.0.0.1", new.port, "", 0, 1000, "KEYS", *names)
    for node in (new, old, *nodes):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", new.ask("CLUSTER", "MYID"))


def owns(node: Node, slot: int) -> bool:
    ranges = node.ask("CLUSTER", "SLOTS")
    return any(first <= slot <= last and primary[1] == node.port for first, last, primary, *_ in ranges)


async def test_a_command_without_a_key_is_not_sent_to_just_one_node(client: RedisClient) -> None:
    with client.guard() as redis:
        assert await redis.ping()
        with pytest.raises(RedisError, match="each of the cluster's primaries"):
            await redis.flushall()


async def test_doctor_looks_at_every_primary(client: RedisClient, cluster: list[Node]) -> None:
    found = await client.check()
    assert {finding.name for finding in found} == {f"replicas of {node.address}" for node in cluster}
    cluster[1].ask("CONFIG", "SET", "appendfsync", "everysec")
    try:
        (finding,) = [finding for finding in await client.check() if "appendfsync" in finding.name]
    finally:
        cluster[1].ask("CONFIG", "SET", "appendfsync", "always")
    assert finding.name == f"appendfsync of {cluster[1].address}"


async def test_a_url_of_one_node_is_told_that_it_belongs_to_a_cluster(
    cluster: list[Node], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_the_secret = next(node for node in cluster if not owns(node, slot_of(INSTALLATION_SECRET())))
    url = SecretStr(f"redis://{without_the_secret.address}")
    async with running(RedisClient(RedisSettings(url=url), tmp_path)) as client:
        assert not client.available
    assert "redis.cluster_nodes" in capsys.readouterr().out


async def test_a_primary_that_is_killed_is_replaced_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    with a_cluster(tmp_path, replicas=1) as nodes:
        settings = settings_for(nodes, wait_replicas=1, timeout_s=1.0)
        async with running(RedisClient(settings, tmp_path / "data")) as client:
            assert await client.check() == []
            flags = FlagStore(client, Spool(tmp_path / "spool" / "flags.spool", max_bytes=1 << 20))
            await flags.start()
            kept = [(await flags.add(flag(number)))[0] for number in range(20)]
            (primary,) = [node for node in nodes[:3] if owns(node, slot_of(AMONG_FLAGS))]
            primary.kill()
            kept += [(await flags.add(flag(number)))[0] for number in range(20, 40)]
            assert flags.spooled_total > 0, "with the primary away flags are kept on the disk"
            primary.start()  # as a replica of what was its replica, which confirms writes from now on
            async with asyncio.timeout(30):
                while flags.spool_flags:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            found = await flags.list(FlagState.OPEN, limit=100)
            assert {each.id for each in found} == set(kept)
            await flags.close()


def flag(number: int) -> Flag:
    return Flag(tenant="acme", source=Source.USER, side="request", text=f"text {number}")


async def test_a_cluster_is_backed_up_and_restored_onto_itself_and_onto_one_server(
    client: RedisClient, cluster: list[Node], redis_server: RealRedis, tmp_path: Path
) -> None:
    def spread(number: int) -> str:
        return f"{PREFIX}spread:{number}"  # without a tag: over all three nodes

    for number in range(300):
        await client.client.set(spread(number), f"value {number}")
    await client.client.set(FLAG("flag_1"), "goes by itself", ex=3600)
    lines = io.BytesIO()
    count = await StateCopy(client).take(lines, pause_s=30.0)
    values = [Value.from_line(line) for line in lines.getvalue().splitlines()]
    assert len(values) == count >= 301
    assert all(node.ask("DBSIZE") > 0 for node in cluster)
    await client.client.set(spread(7), "changed since")
    await StateCopy(client).clear()
    assert await client.client.get(spread(7)) is None
    settings = RedisSettings(url=SecretStr(redis_server.url))
    async with running(RedisClient(settings, tmp_path / "one")) as one:
        for restored in (client, one):
            assert await StateCopy(restored).put(values) == count
            for number in range(300):
                assert await restored.client.get(spread(number)) == f"value {number}"
            assert 0 < await restored.client.ttl(FLAG("flag_1")) <= 3600
