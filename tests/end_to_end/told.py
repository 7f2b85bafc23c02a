"""What a caller is told when something is wrong: one shape, OpenAI's, whatever the status."""

from __future__ import annotations

import json
from typing import Final

import httpx2
import openai

from tests.end_to_end.caller import Caller
from tests.end_to_end.exemplars import GOOD_REQUEST
from tests.fakes import ScriptedUpstream, whole
from tests.transcripts import Json, chat_completion

CHAT: Final = "/chat/completions"
RAISED: Final[dict[int, type[openai.APIStatusError]]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    429: openai.RateLimitError,
}
"""What the official client raises for a status, where it has a class of its own for it."""


def asking(text: str = GOOD_REQUEST, **more: object) -> Json:
    """A chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def assert_told(reply: httpx2.Response, status: int, code: str) -> str:
    """``reply`` is this error, and nothing else stands in it. Returns its message."""
    assert reply.status_code == status, reply.text
    return assert_error(reply.content, code)


def assert_error(body: bytes, code: str) -> str:
    """``body`` is an error with this code, in OpenAI's shape. Returns its message."""
    found = json.loads(body)
    assert set(found) == {"error"}
    assert set(found["error"]) == {"message", "type", "param", "code"}
    assert found["error"]["code"] == code
    message: str = found["error"]["message"]
    assert message
    return message


def raised_for(status: int) -> type[openai.APIStatusError]:
    """The class of exception that the official client's user catches for this status."""
    return openai.InternalServerError if status >= 500 else RAISED.get(status, openai.APIStatusError)


async def assert_still_serves(caller: Caller, upstream: ScriptedUpstream) -> None:
    """The next request is answered as if nothing had happened."""
    reply = chat_completion("Fine, and you?")
    upstream.on(CHAT, whole(reply))
    answer = await caller.http.post(CHAT, json=asking())
    assert answer.status_code == 200, answer.text
    assert answer.json() == reply
