"""The schemas of three Kubernetes versions, and of what the Prometheus operator adds to them.

Kubernetes' own come strict (a field that is not known is an error) from the package kubernetes-validate. Of the
operator's two kinds only the fields that this chart uses are stated here.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from jsonschema import Draft202012Validator
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from tests.helm.rendering import Manifest

VERSIONS: Final = ("1.30.0", "1.34.0", "1.37.0")
"""The oldest that the chart allows, one between, the newest that there are schemas of."""

_DURATION: Final = {"type": "string", "pattern": r"^[0-9]+(ms|s|m|h)$"}
_WORDS: Final = {"type": "object", "additionalProperties": {"type": "string"}}


def _closed(required: tuple[str, ...] = (), **properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required or properties),
    }


_OPERATOR: Final[dict[str, dict[str, object]]] = {
    "ServiceMonitor": _closed(
        namespaceSelector=_closed(matchNames={"type": "array", "items": {"type": "string"}}),
        selector=_closed(matchLabels=_WORDS, matchExpressions={"type": "array"}),
        endpoints={
            "type": "array",
            "minItems": 1,
            "items": _closed(port={"type": "string"}, path={"type": "string"}, interval=_DURATION),
        },
    ),
    "PrometheusRule": _closed(
        groups={
            "type": "array",
            "minItems": 1,
            "items": _closed(
                ("name", "rules"),
                name={"type": "string", "minLength": 1},
                interval=_DURATION,
                rules={
                    "type": "array",
                    "items": {
                        **_closed(
                            ("expr",),
                            alert={"type": "string", "minLength": 1},
                            record={"type": "string", "pattern": "^[a-zA-Z_:][a-zA-Z0-9_:]*$"},
                            expr={"type": "string", "minLength": 1},
                            **{"for": _DURATION, "keep_firing_for": _DURATION},
                            labels=_WORDS,
                            annotations=_WORDS,
                        ),
                        "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
                    },
                },
            ),
        }
    ),
}


def errors(manifest: Manifest, version: str) -> list[str]:
    """What a Kubernetes of this version would not take, empty when it takes all. Raises ``KeyError`` for a kind that
    nobody knows."""
    api, kind = manifest["apiVersion"], manifest["kind"]
    name = f"{kind} {manifest['metadata']['name']}"
    if api == "monitoring.coreos.com/v1":
        validator, instance = Draft202012Validator(_OPERATOR[kind]), manifest["spec"]
    else:
        validator, instance = _validator(version, kind, api), manifest
    return [f"{name}: {'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(instance)]


@cache
def _validator(version: str, kind: str, api: str) -> Draft202012Validator:
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    try:
        schema: Any = schema_contents(f"{_folder(version)}/{kind.lower()}-{group}.json", version)
    except FileNotFoundError:
        raise KeyError(f"Kubernetes {version} has no {kind} of {api}") from None
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(version))


@cache
def _definitions(version: str) -> Registry[Any]:
    return Resource.from_contents(schema_contents(f"{_folder(version)}/_definitions.json", version)) @ Registry()


def _folder(version: str) -> str:
    return f"kubernetes-json-schema/v{version}-local-strict"
