"""The Grafana dashboard that ships, as its tests read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "helm" / "antiprompt" / "files" / "dashboard.json"
METRIC = re.compile(r"\b(?:antiprompt|process)_[a-z0-9_]+")


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return read


def panels() -> list[dict[str, Any]]:
    """All panels but the titles of rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, list[str]]:
    """By the panel's title."""
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in panels()}


def filled_in(expression: str, *, interval: str) -> str:
    """An expression as Grafana sends it for all replicas."""
    return expression.replace("$instance", ".*").replace("$__rate_interval", interval)
