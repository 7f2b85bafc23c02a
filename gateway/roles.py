"""Roles: who may do what on the dashboard, as one table. What is not in the table is denied to everybody.

A route is ``METHOD /path`` with the names of its parameters in braces, as the dashboard registers it. Each route
lists its roles in full, so that a reader sees at a glance who can do it, and one who adds a route must decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Role(StrEnum):
    """What an account is for."""

    MODERATOR = "moderator"  # works through the queue
    LEAD = "lead"  # also second opinions, the bank and the policy
    ANALYST = "analyst"  # reads everything, changes nothing
    ADMIN = "admin"  # everything


_EVERYBODY: Final = frozenset(Role)
_REVIEWERS: Final = frozenset({Role.MODERATOR, Role.LEAD, Role.ADMIN})
_LEADS: Final = frozenset({Role.LEAD, Role.ADMIN})
_OVERSEERS: Final = frozenset({Role.LEAD, Role.ANALYST, Role.ADMIN})

PERMITTED: Final[Mapping[str, frozenset[Role]]] = MappingProxyType(
    {
        "GET /review": _EVERYBODY,
        "POST /review/log-out": _EVERYBODY,
        "GET /review/queue": _EVERYBODY,
        "POST /review/next": _REVIEWERS,
        "POST /review/claim": _REVIEWERS,
        "POST /review/release": _REVIEWERS,
        "POST /review/decide": _REVIEWERS,
        "POST /review/undo": _REVIEWERS,
        "GET /review/flags/{flag_id}": _EVERYBODY,
        "GET /review/flags/{flag_id}/influence": _EVERYBODY,
        "POST /review/flags/{flag_id}/comment": _REVIEWERS,
        "GET /review/bank": _EVERYBODY,
        "GET /review/bank/map": _EVERYBODY,
        "GET /review/bank/exemplars/{exemplar_id}": _EVERYBODY,
        "POST /review/bank/exemplars/{exemplar_id}": _LEADS,
        "POST /review/bank/second": _LEADS,
        "GET /review/versions": _EVERYBODY,
        "GET /review/versions/diff": _EVERYBODY,
        "POST /review/versions/publish": _LEADS,
        "POST /review/versions/rollback": _LEADS,
        "GET /review/policy": _EVERYBODY,
        "POST /review/policy/preview": _OVERSEERS,
        "POST /review/policy": _LEADS,
        "GET /review/playground": _EVERYBODY,
        "POST /review/playground": _EVERYBODY,
        "GET /review/numbers": _EVERYBODY,
        "POST /review/strikes/clear": _LEADS,
        "GET /review/audit": _OVERSEERS,
    }
)
"""Route -> the roles that may use it. Logging in and the static files need no role, and are not here."""


def permitted(role: Role, method: str, path: str) -> bool:
    """Whether ``role`` may use a route; one that is not in the table is nobody's."""
    return role in PERMITTED.get(f"{method} {path}", frozenset())
