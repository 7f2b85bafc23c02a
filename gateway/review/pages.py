"""Pages: templates filled in (always escaped), static files, and the headers that every answer here carries."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import time
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from antiprompt_bank import HAZARDS
from gateway.errors import UnknownRoute

_HERE: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".txt": "text/plain", ".svg": "image/svg+xml"}

CSP: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""No inline script or style, nothing from elsewhere, in no frame."""

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "content-security-policy": CSP,
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
    }
)


def _static() -> dict[str, tuple[bytes, str]]:
    """Each static file's content and the start of its hash, by name; read once."""
    found = {}
    for path in sorted((_HERE / "static").iterdir()):
        content = path.read_bytes()
        found[path.name] = (content, hashlib.sha256(content).hexdigest()[:12])
    return found


_STATIC: Final = _static()


async def static_file(request: Request) -> Response:
    """A file that ships with the dashboard; its address names its content, so browsers may keep it."""
    name = request.path_params["name"]
    if name not in _STATIC:
        raise UnknownRoute("there is no such file")
    content, _ = _STATIC[name]
    headers = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}
    return Response(content, 200, headers, media_type=_TYPES.get(Path(name).suffix, "application/octet-stream"))


def static_url(name: str) -> str:
    """The address of a static file, with the hash of its content."""
    return f"/review/static/{name}?v={_STATIC[name][1]}"


def marked(text: str, start: int, end: int) -> Markup:
    """``text``, escaped, with the characters ``[start, end)`` marked."""
    start = max(0, min(start, len(text)))
    end = max(start, min(end, len(text)))
    middle = Markup("<mark>{}</mark>").format(text[start:end]) if end > start else Markup("")
    return escape(text[:start]) + middle + escape(text[end:])


def age(moment: float) -> str:
    """How long ago a moment (UTC seconds since 1970) was, in one short word."""
    passed_s = max(0.0, time() - moment)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if passed_s >= size:
            return f"{int(passed_s // size)} {unit}"
    return f"{int(passed_s)} s"


def span(seconds: float) -> str:
    """A length of time, in one short word."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def moment(value: float) -> str:
    """A moment (UTC seconds since 1970) as people write it."""
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M")


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.1f} %"


def hazard_title(slug: str | None) -> str:
    """What people call a hazard."""
    if slug is None:
        return "No hazard named"
    return HAZARDS[slug].title if slug in HAZARDS else slug


def query(values: Mapping[str, Any], **changed: Any) -> str:
    """A query string of what is set in ``values``, with some of it changed (None takes it away)."""
    together = {**values, **changed}
    kept = {name: value for name, value in together.items() if value not in (None, "")}
    return "?" + urlencode(kept) if kept else ""


_templates: Final = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "age": age,
    "span": span,
    "moment": moment,
    "percent": percent,
    "hazard": hazard_title,
    "number": lambda value: f"{value:,}",
}
_templates.globals |= {
    "static": static_url,
    "marked": marked,
    "query": query,
    "hazards": {slug: hazard for slug, hazard in HAZARDS.items() if hazard.carries_text},
    "all_hazards": HAZARDS,
    "now": time,
}


def page(template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """A filled-in template with the headers of the dashboard."""
    return HTMLResponse(_templates.get_template(template).render(**values), status, dict(HEADERS))
