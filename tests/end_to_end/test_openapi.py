"""The gateway's own endpoints are what their OpenAPI description says, whatever they are sent.

Schemathesis makes requests from the description, valid ones and broken ones, and checks each reply against it: no 5xx,
status, type and body as described, valid requests taken, broken ones refused, other methods refused with 405. The
description tells every error in OpenAI's shape, so a reply that conforms has that shape.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from gateway.app import create_app
from gateway.settings import Settings
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.state import State

DESCRIPTION: Final = create_app(Settings(), base_url="http://127.0.0.1:1/v1").openapi()
OWN: Final = {
    ("/healthz", "get"),
    ("/readyz", "get"),
    ("/metrics", "get"),
    ("/v1/flags", "post"),
    ("/v1/flags/{flag_id}", "get"),
    ("/v1/moderations", "post"),
    ("/v1/holds", "post"),
    ("/v1/holds/{hold_id}", "get"),
    ("/v1/appeals", "post"),
}
described = schemathesis.openapi.from_dict(DESCRIPTION)


@pytest.fixture
def key(gateway: RunningGateway) -> str:
    """A key of a tenant of its own."""

    async def made() -> str:
        async with State.beside(gateway.data_dir) as state:
            _, token = await state.new_key("refusal")
            return token

    return asyncio.run(made())


def test_the_running_gateway_describes_its_own_endpoints(gateway: RunningGateway) -> None:
    told: dict[str, Any] = httpx.get(f"{gateway.url}/openapi.json").json()
    assert told == DESCRIPTION
    assert {(path, method) for path, methods in told["paths"].items() for method in methods} == OWN


@described.parametrize()
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_endpoint_is_what_its_description_says(case: schemathesis.Case, gateway: RunningGateway, key: str) -> None:
    case.call_and_validate(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"})


def test_what_the_framework_refuses_is_told_in_the_same_shape(gateway: RunningGateway, key: str) -> None:
    told = {
        "unknown_route": httpx.get(f"{gateway.url}/v1/files"),
        "method_not_allowed": httpx.delete(f"{gateway.url}/healthz"),
        "invalid_request": httpx.post(
            f"{gateway.url}/v1/flags", headers={"Authorization": f"Bearer {key}", "Idempotency-Key": "k" * 201}
        ),
    }
    for code, reply in told.items():
        error = reply.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert told["method_not_allowed"].headers["allow"] == "GET"


def test_health_can_be_asked_for_without_a_body(gateway: RunningGateway) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        reply = httpx.head(f"{gateway.url}{path}")
        assert (reply.status_code, reply.content) == (200, b"")
