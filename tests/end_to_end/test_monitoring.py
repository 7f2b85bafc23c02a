"""A real Prometheus scrapes a real gateway: every panel of the dashboard has something to show, and the alerts work."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Final

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.caller import Caller
from tests.end_to_end.conftest import UPSTREAM_KEY, MakeGateway
from tests.end_to_end.exemplars import BAD_REQUEST, GOOD_REPLY, GOOD_REQUEST
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.state import State
from tests.end_to_end.told import CHAT, asking
from tests.fakes import ScriptedUpstream, stream, whole
from tests.monitoring.dashboard import METRIC, expressions, filled_in
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.test_alerts import rules
from tests.transcripts import chat_completion, chat_stream

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not here; tests/prometheus.sh brings it"
)

MAY_BE_EMPTY: Final = {
    "Cases that could not be kept": "nothing is dropped here",
    "What shadow rules would have done": "no rule is in shadow here",
    "Errors by code": "nobody errs here",
    "Last build": "no worker runs here",
}
"""Panels that have nothing to show while all is well, and why."""


@pytest.fixture(scope="module")
def watched(make_gateway: MakeGateway) -> RunningGateway:
    return make_gateway(UPSTREAM__API_KEY=UPSTREAM_KEY)


@pytest.fixture(scope="module")
def prometheus(watched: RunningGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("prometheus"), [f"127.0.0.1:{watched.port}"]) as made:
        made.until(lambda: made.query("up == 1"))
        yield made


@pytest.fixture
async def caller(watched: RunningGateway) -> AsyncIterator[Caller]:
    async with State.beside(watched.data_dir) as state:
        tenant, token = await state.new_key("refusal")
    caller = Caller(f"{watched.url}/v1", tenant, token)
    yield caller
    await caller.close()


async def test_every_metric_that_dashboard_and_alerts_name_is_in_the_gateways_own_output(
    watched: RunningGateway,
) -> None:
    async with httpx2.AsyncClient(verify=False) as client:
        shown = (await client.get(f"{watched.url}/metrics")).text
    families = {family.name for family in text_string_to_metric_families(shown)}
    has = {f"{name}{end}" for name in families for end in ("", "_total", "_bucket", "_sum", "_count")}
    asked = [each for panel in expressions().values() for each in panel] + [rule["expr"] for rule in rules()]
    assert {name for each in asked for name in METRIC.findall(each)} <= has


async def test_every_panel_has_something_to_show_of_a_gateway_that_works(
    prometheus: Prometheus, caller: Caller, upstream: ScriptedUpstream
) -> None:
    upstream.on(CHAT, whole(chat_completion(GOOD_REPLY)))

    async def traffic() -> None:
        await caller.http.post(CHAT, json=asking(GOOD_REQUEST))
        await caller.http.post(CHAT, json=asking(BAD_REQUEST))
        upstream.on(CHAT, stream(*chat_stream(GOOD_REPLY)))
        await caller.http.post(CHAT, json={**asking(GOOD_REQUEST), "stream": True})
        upstream.on(CHAT, whole(chat_completion(GOOD_REPLY)))
        await caller.http.post("/flags", json={"text": GOOD_REPLY, "reason": "too much flour"})

    await traffic()
    prometheus.until(lambda: prometheus.query('antiprompt_flags_total{source="user"}'))
    await traffic()  # a rate is known from the second sample on
    prometheus.until(lambda: prometheus.query('rate(antiprompt_flags_total{source="user"}[1m]) > 0'))
    prometheus.until(lambda: prometheus.query('antiprompt_flags_kept{state="open"}'))
    for title, found in expressions().items():
        for expression in found:
            asked = filled_in(expression, interval="1m")
            prometheus.query(asked)  # which fails where Prometheus does not understand it
            if title not in MAY_BE_EMPTY:
                prometheus.until(lambda asked=asked: prometheus.query(asked))


async def test_no_alert_is_up_while_all_is_well_and_one_is_once_a_gateway_is_gone(
    prometheus: Prometheus, watched: RunningGateway
) -> None:
    prometheus.until(lambda: prometheus.alerts() == set())
    watched.kill()
    prometheus.until(lambda: prometheus.alerts() == {"AntipromptAbsent"})
