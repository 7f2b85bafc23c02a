"""The moderators' dashboard at ``/review``: server-rendered pages, no build step, everything usable by keyboard.

``guard``        session, role, origin and CSRF token, before anything else; errors told as pages
``forms``        what browsers send, within limits
``pages``        templates (``templates/``, always escaped), static files (``static/``), the strict headers
``log_in``       log-in and log-out; ``outside`` by an identity provider
``queue``        what waits for a person; ``alike`` which flags are nearly the same
``flag``         one flag: texts, what the bank knows near them, what policy did; decide, undo, comment
``bank``         exemplars: search, provenance, states; ``bank_map`` a picture of them
``versions``     versions of the bank: differences, publish, roll back
``thresholds``   the policy: risks from which rules act, what others would have done; ``backtest`` and ``curves``
``playground``   any text: how it is read, what is near, what policy would do
``numbers``      how the work goes, who is blocked often
``audit``        what people did

Every route stands in the table of ``gateway.roles``; one that does not is denied to everybody. Without JavaScript the
pages do the same by plain forms. htmx (``static/htmx.min.js``, Zero-Clause BSD, ``static/htmx.LICENSE.txt``) saves
reloads; it may neither evaluate code nor insert styles, so that the content security policy stays strict.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from starlette.routing import BaseRoute, Route

from gateway.review import (
    audit,
    bank,
    bank_map,
    flag,
    log_in,
    numbers,
    outside,
    playground,
    queue,
    thresholds,
    versions,
)
from gateway.review.guard import LOG_IN, Endpoint, guarded, nothing_here, told
from gateway.review.pages import static_file

ENDPOINTS: Final[Mapping[str, Endpoint]] = MappingProxyType(
    {
        "GET /review": log_in.start,
        "POST /review/log-out": log_in.log_out,
        "GET /review/queue": queue.show_queue,
        "POST /review/next": queue.take_next,
        "POST /review/claim": queue.claim,
        "POST /review/release": queue.release,
        "POST /review/decide": flag.decide,
        "POST /review/undo": flag.undo,
        "GET /review/flags/{flag_id}": flag.show_flag,
        "GET /review/flags/{flag_id}/influence": flag.show_influence,
        "POST /review/flags/{flag_id}/comment": flag.comment,
        "GET /review/bank": bank.show_bank,
        "GET /review/bank/map": bank_map.show_map,
        "GET /review/bank/exemplars/{exemplar_id}": bank.show_exemplar,
        "POST /review/bank/exemplars/{exemplar_id}": bank.change_exemplar,
        "POST /review/bank/second": bank.second,
        "GET /review/versions": versions.show_versions,
        "GET /review/versions/diff": versions.show_difference,
        "POST /review/versions/publish": versions.publish,
        "POST /review/versions/rollback": versions.roll_back,
        "GET /review/policy": thresholds.show_policy,
        "POST /review/policy/preview": thresholds.preview,
        "POST /review/policy": thresholds.save,
        "GET /review/playground": playground.show_playground,
        "POST /review/playground": playground.try_out,
        "GET /review/numbers": numbers.show_numbers,
        "POST /review/strikes/clear": numbers.clear_strikes,
        "GET /review/audit": audit.show_audit,
    }
)
"""Every page for people who are logged in, by its route."""


def routes() -> list[BaseRoute]:
    """All routes of the dashboard, for an application whose ``state`` has the parts and the metrics."""
    return [
        *(guarded(route, endpoint) for route, endpoint in ENDPOINTS.items()),
        Route(LOG_IN, told(log_in.show_log_in), methods=["GET"]),
        Route(LOG_IN, told(log_in.log_in), methods=["POST"]),
        Route(outside.LEAVE, told(outside.leave), methods=["GET"]),
        Route(outside.BACK, told(outside.arrive), methods=["GET"]),
        Route("/review/static/{name}", told(static_file), methods=["GET"]),
        Route("/review/{rest:path}", told(nothing_here), methods=["GET"]),
    ]
