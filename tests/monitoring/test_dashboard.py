"""The dashboard is whole: ids, places, data sources, and what the house wants to see on it."""

from __future__ import annotations

from itertools import combinations

from gateway.telemetry import Metrics
from tests.monitoring.dashboard import METRIC, dashboard, expressions, panels
from tests.monitoring.test_alerts import rules


def names() -> set[str]:
    """Every series that a gateway's own metrics have."""
    families = Metrics().registry.collect()
    ends = ("", "_total", "_bucket", "_sum", "_count")
    return {f"{family.name}{end}" for family in families for end in ends}


def test_every_metric_of_dashboard_and_alerts_is_one_that_the_gateway_has():
    asked = [expression for each in expressions().values() for expression in each]
    asked += [rule["expr"] for rule in rules()]
    used = {name for expression in asked for name in METRIC.findall(expression)}
    assert used <= names()
    assert len(used) > 30


def test_everything_that_the_gateway_counts_for_people_is_shown_or_alerted_on():
    """What is not there on purpose is named here."""
    left_out = {"antiprompt_strikes", "antiprompt_webhooks"}
    asked = [expression for each in expressions().values() for expression in each] + [rule["expr"] for rule in rules()]
    text = " ".join(asked)
    families = {family.name for family in Metrics().registry.collect() if family.name.startswith("antiprompt_")}
    assert {name for name in families if name not in text} <= left_out


def test_panels_have_ids_of_their_own_a_place_and_a_data_source_that_can_be_chosen():
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"], panel["title"]
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24


def test_no_panel_lies_over_another():
    def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
        return (
            a["x"] < b["x"] + b["w"]
            and b["x"] < a["x"] + a["w"]
            and a["y"] < b["y"] + b["h"]
            and b["y"] < a["y"] + a["h"]
        )

    places = [(panel["title"], panel["gridPos"]) for panel in dashboard()["panels"]]
    assert [(a, b) for (a, at), (b, other) in combinations(places, 2) if overlap(at, other)] == []


def test_what_an_operator_looks_for_is_there():
    text = {title: " ".join(found) for title, found in expressions().items()}
    for title, metric in {
        "Requests by what was done": "requests_total",
        "Stopped or flagged, by hazard": "by (hazard)",
        "Added by screening": "added_seconds",
        "Model server": "upstream_seconds",
        "Hold-back of streams": "held_seconds",
        "Texts that could not be screened": "unavailable_total",
        "Wait for the encoder": "queue_seconds",
        "Bank by replica": "bank_info",
        "Flags that wait": "flags_kept",
        "Reviews": "reviews_kept",
        "Retraining gate": "retraining_refused",
        "Drift": "drift_index",
    }.items():
        assert metric in text[title], title
