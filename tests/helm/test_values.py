"""Values: what is refused and how it is told, that every one is described, and the page that is made from them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import pytest
import yaml
from helm_python import HelmError

from tests.helm.rendering import CHART, rendered

VALUES = (CHART / "values.yaml").read_text("utf-8")
DEFAULTS: dict[str, Any] = yaml.safe_load(VALUES)
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("table", CHART.parent / "table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gateway": {"replica": 3}}, "replica"),
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replicas": "three"}}, "/gateway/replicas"),
        ({"gateway": {"resources": {"limits": {"cpu": "1", "memory": None}}}}, "/gateway/resources"),
        ({"gateway": {"autoscaling": {"metric": "luck"}}}, "/gateway/autoscaling/metric"),
        ({"image": {"tag": "latest"}}, "/image/tag"),
        ({"image": {"digests": {"cpu": "sha256:short"}}}, "/image/digests/cpu"),
        ({"redis": {"bundled": {"image": "redis:latest"}}}, "/redis/bundled/image"),
        ({"redis": {"bundled": {"image": "redis"}}}, "/redis/bundled/image"),
        ({"redis": {"bundled": {"password": {"secret": ""}}}}, "/redis/bundled/password"),
        ({"redis": {"sentinel": {"addresses": ["sentinel"]}}}, "/redis/sentinel/addresses/0"),
        ({"upstream": {"baseUrl": "ftp://host/v1"}}, "/upstream/baseUrl"),
        ({"upstream": {"baseUrl": "https://me:secret@host/v1"}}, "/upstream/baseUrl"),
        ({"review": {"publicUrl": "http://review.example"}}, "/review/publicUrl"),
        ({"settings": {"upstream": {"api_key": "sk-1"}}}, "/settings/upstream/api_key"),
        ({"settings": {"redis": {"url": "redis://:word@host"}}}, "/settings/redis/url"),
        ({"settings": {"review": {"oidc_client_secret": "word"}}}, "/settings/review/oidc_client_secret"),
        # What takes several values to see.
        ({"worker": {"enabled": True}}, "worker.enabled needs bank.store: volume or object"),
        ({"retraining": {"schedule": "0 3 * * *"}}, "retraining.schedule needs bank.store: volume or object"),
        ({"calibration": {"enabled": True}}, "calibration.enabled needs bank.store: volume"),
        ({"bank": {"store": "volume"}, "calibration": {"enabled": True}}, "calibration.texts"),
        ({"bank": {"store": "object"}}, "bank.object.url"),
        ({"bank": {"store": "object", "object": {"url": "s3://key:secret@bucket"}}}, "/bank/object/url"),
        ({"upstream": {"baseUrl": "https://host/v1", "apiKey": {"secret": ""}}}, "upstream.apiKey.secret"),
        ({"redis": {"mode": "url", "url": {"secret": ""}}}, "redis.url.secret"),
        ({"redis": {"mode": "sentinel"}}, "redis.sentinel.addresses"),
        ({"redis": {"mode": "cluster"}}, "redis.cluster.nodes"),
        ({"review": {"oidc": {"issuer": "https://login.example"}}}, "review.oidc.clientId"),
        ({"gateway": {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}}, "above maxReplicas"),
        ({"gateway": {"autoscaling": {"enabled": True, "metric": "queue"}}}, "monitoring.rules"),
        ({"gateway": {"ingress": {"enabled": True}}}, "gateway.ingress.host"),
        ({"review": {"ingress": {"enabled": True}}}, "review.ingress.host"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_refused_and_named(values: Mapping[str, Any], words: str) -> None:
    with pytest.raises(HelmError) as refused:
        rendered(values)
    assert words in str(refused.value)
    assert "sk-1" not in str(refused.value)


def test_the_schema_knows_every_value_and_closes_every_group() -> None:
    unknown = [path for path in _paths(DEFAULTS) if _schema_at(path) is None]
    assert unknown == []
    open_groups = [path for path, group in _groups(SCHEMA, ()) if group.get("additionalProperties") is not False]
    assert open_groups == [("global",), ("settings",)]  # Helm's own, and the gateway's, which reads it strictly


def _paths(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        yield (*path, name)
        if isinstance(value, dict) and name not in ("requests", "limits"):
            yield from _paths(value, (*path, name))


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema or "allOf" in schema:
        schema = schema["allOf"][0] if "allOf" in schema else SCHEMA["definitions"][schema["$ref"].split("/")[-1]]
    return schema


def _schema_at(path: tuple[str, ...]) -> Mapping[str, Any] | None:
    schema: Mapping[str, Any] = SCHEMA
    for name in path:
        found = _resolved(schema).get("properties", {}).get(name)
        if found is None:
            return None
        schema = found
    return schema


def _groups(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Objects with names of their own, which are not Kubernetes' to define."""
    for name, value in schema["properties"].items():
        group = _resolved(value)
        if group.get("type") == "object" and ("properties" in group or name == "global"):
            yield (*path, name), group
            if group.get("additionalProperties") is False and name != "resources":
                yield from _groups(group, (*path, name))


# The page.


def test_the_readmes_table_is_up_to_date(table: ModuleType) -> None:
    page = (CHART / "README.md").read_text("utf-8")
    assert page == table.readme(page, VALUES), "run `make chart`"


def test_the_table_has_every_value_with_its_default_and_its_meaning(table: ModuleType) -> None:
    rows = list(table.rows(VALUES))
    assert len({name for name, _, _ in rows}) == len(rows)
    assert ("gateway.replicas", "2", "Gateways, where nothing scales them.") in rows
    assert all(words.endswith(".") for _, _, words in rows)
    described = {name for name, _, _ in rows}
    for path in _paths(DEFAULTS):
        names = [".".join(path[: length + 1]) for length in range(len(path))]
        assert any(name in described for name in names) or isinstance(_at(path), dict), names[-1]


def test_a_value_that_nothing_describes_is_told(table: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"nothing describes gateway\.replicas"):
        list(table.rows("gateway:\n  replicas: 2\n"))
    assert list(table.rows("# -- One\n# line.\na:\n  b: 1\n")) == [("a", '{"b": 1}', "One line.")]


def _at(path: tuple[str, ...]) -> Any:
    values: Any = DEFAULTS
    for name in path:
        values = values[name]
    return values


# What is said after an install.


def test_the_notes_say_what_is_missing() -> None:
    def notes(values: Mapping[str, Any]) -> str:
        return rendered(values).texts["antiprompt/templates/NOTES.txt"]

    plain = notes({})
    assert "it is not a language model" in plain
    assert "no new version can be made" in plain
    assert "rollout status deployment/antiprompt-gateway" in plain
    assert "NETWORK POLICIES ARE OFF" not in plain
    told = notes(
        {
            "upstream": {"baseUrl": "https://host/v1"},
            "clientKey": {"secret": ""},
            "bank": {"store": "volume"},
            "gateway": {"spool": {"persistent": True}},
            "networkPolicy": {"enabled": False},
            "review": {"enabled": True},
        }
    )
    assert "antiprompt keys create" in told
    assert "statefulset/antiprompt-gateway" in told
    assert "NETWORK POLICIES ARE OFF" in told
    assert "antiprompt moderators create" in told
    assert "language model" not in told
