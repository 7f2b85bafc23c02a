"""The audit log: what people did, newest first."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from gateway.review.guard import Visit

PAGE_ENTRIES: Final = 100


async def show_audit(visit: Visit) -> Response:
    """A hundred entries, and the way to older ones."""
    entries = await visit.parts.reviews.audit(after=visit.form.text("after", most=64), limit=PAGE_ENTRIES)
    following = entries[-1].id if len(entries) == PAGE_ENTRIES else None
    return visit.page("audit.html", tab="audit", entries=entries, following=following)
