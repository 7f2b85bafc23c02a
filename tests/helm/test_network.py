"""Who reaches whom, by the network policies: the model server, Redis, scrapes, names, and nothing else."""

from __future__ import annotations

from itertools import permutations
from typing import Any, Final

import pytest

from tests.helm.network import may_call, may_enter, may_go, may_leave
from tests.helm.rendering import Release, rendered

ALL: Final[dict[str, Any]] = {
    "upstream": {"baseUrl": "http://vllm.models.svc:8000/v1"},
    "bank": {"store": "volume"},
    "calibration": {"enabled": True, "texts": {"persistentVolumeClaim": {"claimName": "texts"}}},
    "worker": {"enabled": True},
    "retraining": {"schedule": "0 3 * * *"},
    "review": {"enabled": True},
}
ANYWHERE: Final = "0.0.0.0/0"


@pytest.fixture(scope="module")
def release() -> Release:
    return rendered(ALL)


def test_only_those_that_need_redis_reach_it_and_it_reaches_nobody(release: Release) -> None:
    need = {"gateway", "worker", "review", "retraining"}
    components = {workload.component for workload in release.workloads()}
    assert components == need | {"redis", "setup", "calibration", "test"}
    assert {each for each in components - {"redis"} if may_call(release, each, "redis", 6379)} == need
    assert not any(may_call(release, "redis", each, port) for each in components for port in (6379, 8080, 443))


def test_nothing_else_calls_each_other_but_the_namespaces_pods_the_gateways(release: Release) -> None:
    components = {workload.component for workload in release.workloads()}
    calls = {(one, other) for one, other in permutations(components, 2) if may_call(release, one, other, 8080)}
    assert calls == {("test", "gateway")}  # ours have no way out to the gateways; other pods' policies are theirs


def test_clients_scrapers_and_controllers_come_in_where_they_are_named(release: Release) -> None:
    assert may_enter(release, "monitoring", "gateway", 8080)
    assert may_enter(release, "monitoring", "review", 8080)
    for namespace in ("ingress-nginx", "shop"):
        assert not may_enter(release, namespace, "gateway", 8080)
    shown = rendered(
        {
            **ALL,
            "gateway": {"ingress": {"enabled": True, "host": "ai.example"}},
            "networkPolicy": {
                "clients": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}],
                "scrapers": [],
            },
        }
    )
    assert may_enter(shown, "shop", "gateway", 8080)
    assert may_enter(shown, "ingress-nginx", "gateway", 8080)
    assert may_call(shown, "test", "gateway", 8080)
    assert not may_enter(shown, "monitoring", "gateway", 8080)
    for namespace in ("ingress-nginx", "shop", "monitoring"):
        assert not may_enter(shown, namespace, "review", 8080)
        assert not may_enter(shown, namespace, "redis", 6379)


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://vllm.models.svc:8000/v1", 8000),
        ("https://models.example.org/v1", 443),
        ("http://models.example.org/v1", 80),
        ("http://[fd00::1]:8001/v1", 8001),
    ],
)
def test_the_model_server_is_reached_on_its_port_by_gateways_alone(url: str, port: int) -> None:
    release = rendered({**ALL, "upstream": {"baseUrl": url}})
    leaving = {each.component for each in release.workloads() if may_leave(release, each.component, ANYWHERE, port)}
    assert leaving == {"gateway"}
    ports = [other for other in (80, 443, 6379, 8000, 8001, 8080) if may_leave(release, "gateway", ANYWHERE, other)]
    assert ports == [port]


def test_the_nodes_own_metadata_stays_out_of_reach(release: Release) -> None:
    blocks = [
        peer["ipBlock"]
        for policy in release.of("NetworkPolicy")
        for rule in policy["spec"]["egress"] or ()
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    assert blocks
    for block in blocks:
        assert block["except"]
        assert block["cidr"] != ANYWHERE or "169.254.0.0/16" in block["except"]


def test_where_the_model_server_and_redis_are_can_be_narrowed() -> None:
    models = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "models"}}}]
    stores = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "redis"}}}]
    cluster = {"mode": "cluster", "cluster": {"nodes": ["a.redis.svc:7001", "b.redis.svc:7002"]}, "port": 7000}
    release = rendered({**ALL, "redis": cluster, "networkPolicy": {"upstream": models, "redis": stores}})
    assert may_go(release, "gateway", "models", 8000)
    for component in ("gateway", "worker", "review", "retraining"):
        assert all(may_go(release, component, "redis", port) for port in (7000, 7001, 7002))
        assert not any(may_leave(release, component, ANYWHERE, port) for port in (7000, 7001, 8000, 443))
    assert not may_go(release, "calibration", "redis", 7000)


def test_an_object_store_is_reached_by_those_that_fetch_and_bring_versions() -> None:
    store = {"store": "object", "object": {"url": "s3://b/bank"}}
    release = rendered({**ALL, "calibration": {}, "bank": store, "networkPolicy": {"objectStorePorts": [9000]}})
    leaving = {each.component for each in release.workloads() if may_leave(release, each.component, ANYWHERE, 9000)}
    assert leaving == {"gateway", "review", "worker", "retraining"}


def test_an_identity_provider_is_reached_by_the_dashboard_alone(release: Release) -> None:
    assert not may_leave(release, "review", ANYWHERE, 443)
    oidc = {"issuer": "https://login.example", "clientId": "me"}
    asked = rendered({**ALL, "review": {"enabled": True, "publicUrl": "https://review.example", "oidc": oidc}})
    leaving = {each.component for each in asked.workloads() if may_leave(asked, each.component, ANYWHERE, 443)}
    assert leaving == {"review"}


def test_what_else_is_wanted_is_open_to_those_that_may_want_it() -> None:
    collector = {
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "traces"}}}],
        "ports": [{"port": 4318}],
    }
    release = rendered({**ALL, "networkPolicy": {"extraEgress": [collector]}})
    going = {each.component for each in release.workloads() if may_go(release, each.component, "traces", 4318)}
    assert going == {"gateway", "review", "worker", "retraining"}
