"""Asking any OpenAI-compatible model one question at a time: a pace, retries, and what its reply says in all."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import SecretStr, ValidationError

from gateway.errors import Overloaded, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.http_client import HttpReply
from gateway.settings import UpstreamSettings
from gateway.upstream import Call, Upstream
from gateway.wire.chat import Chat

MAX_REPLY_BYTES: Final = 1 << 20

_RETRIED: Final = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_HOPELESS: Final = {
    401: "it wants another key (--api-key-file)",
    403: "its key may not use this model",
    404: "check the address, up to and with /v1, and the model's name",
}
_FILTER_CODES: Final = frozenset(("content_filter", "content_policy_violation"))
_LONGEST_WAIT_S: Final = 60.0
_SHOWN_CHARS: Final = 300


class ProbeStopped(ValueError):
    """The run cannot go on; what was answered is kept, and the same command goes on from there."""


class Unanswered(Exception):
    """One question got no answer, after all tries. ``code`` is from a closed set, ``said`` what the server said."""

    def __init__(self, code: str, said: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.said = said


@dataclass(frozen=True, slots=True)
class Reply:
    """``text`` is all that a user, or the user's program, would read. ``withheld``: the server itself refused."""

    text: str
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """``concurrency`` questions at once, ``per_minute`` in all (None: no limit), ``tries`` for each.

    ``first_wait_s`` passes before the second try and doubles with each one; a server's Retry-After counts instead.
    """

    concurrency: int = 8
    per_minute: float | None = None
    tries: int = 5
    first_wait_s: float = 1.0


def asking_settings(base_url: str, api_key: SecretStr | None, pace: Pace, timeout_s: float) -> UpstreamSettings:
    """How a model is reached. Raises ``ValueError`` for an address that is none."""
    if not base_url.strip():
        raise ValueError("base_url is empty; it is an http or https URL up to and with /v1")
    try:
        return UpstreamSettings(
            base_url=base_url,
            api_key=api_key,
            read_timeout_s=timeout_s,
            total_timeout_s=timeout_s,
            max_connections=pace.concurrency,
            max_reply_bytes=MAX_REPLY_BYTES,
            breaker_failures=10_000,  # a failing server is waited for here, question by question
        )
    except ValidationError as error:
        said = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, said['loc']))}: {said['msg']}") from None


class Asker:
    """Asks one model. ``parameters`` are sent with each question, ``system`` before it where it is set."""

    def __init__(
        self,
        upstream: Upstream,
        model: str,
        *,
        pace: Pace,
        parameters: Mapping[str, Any] | None = None,
        system: str | None = None,
    ) -> None:
        self.pace = pace
        self._upstream = upstream
        self._model = model
        self._parameters = dict(parameters or {})
        self._system = system
        self._next_s = 0.0  # on the loop's clock: when the next request may leave

    async def ask(self, text: str) -> Reply:
        """The model's answer. Raises ``Unanswered``, or ``ProbeStopped`` where no question could be answered."""
        system = [{"role": "system", "content": self._system}] if self._system is not None else []
        messages = [*system, {"role": "user", "content": text}]
        body = orjson.dumps({**self._parameters, "model": self._model, "messages": messages})
        call = Call("POST", "/chat/completions", (("Content-Type", "application/json"),), body)
        failure = Unanswered("not_asked")
        for number in range(self.pace.tries):
            if number:
                await asyncio.sleep(min(self.pace.first_wait_s * 2 ** (number - 1), _LONGEST_WAIT_S))
            await self._turn()
            try:
                reply = await self._upstream.ask(call)
            except (UpstreamUnreachable, UpstreamTimeout, Overloaded) as error:
                failure = Unanswered(error.code, error.message)
                continue
            except UpstreamInvalid as error:
                raise Unanswered(error.code, error.message) from None
            if reply.status not in _RETRIED:
                return _read(reply)
            failure = Unanswered(f"http_{reply.status}", _said(reply))
            self._hold_back(reply)
        raise failure

    async def _turn(self) -> None:
        """Wait until this request may leave: one after the other at the pace, and none while all are held back."""
        now_s = asyncio.get_running_loop().time()
        leaves_s = max(now_s, self._next_s)
        if self.pace.per_minute is not None:
            self._next_s = leaves_s + 60 / self.pace.per_minute
        if leaves_s > now_s:
            await asyncio.sleep(leaves_s - now_s)

    def _hold_back(self, reply: HttpReply) -> None:
        """Nobody asks before the server said that one may."""
        said = next((value for name, value in reply.headers if name.lower() == "retry-after"), "")
        try:
            wait_s = float(said)
        except ValueError:  # none, or a date, which nobody sends for such a short time
            return
        if math.isfinite(wait_s) and wait_s > 0:
            now_s = asyncio.get_running_loop().time()
            self._next_s = max(self._next_s, now_s + min(wait_s, _LONGEST_WAIT_S))


def _read(reply: HttpReply) -> Reply:
    if reply.status in _HOPELESS:
        raise ProbeStopped(
            f"the model server answers {reply.status}: {_HOPELESS[reply.status]}. It says: {_said(reply)!r}"
        )
    body = _json(reply.body)
    if reply.status != 200:
        error = body.get("error") if isinstance(body, dict) else None
        if isinstance(error, dict) and error.get("code") in _FILTER_CODES:
            return Reply("", withheld=True)
        raise Unanswered(f"http_{reply.status}", _said(reply))
    try:
        texts = Chat().read_reply(body).texts
        choices = body["choices"]
        finishes = {choice.get("finish_reason") for choice in choices}
        refusals = [choice["message"].get("refusal") for choice in choices]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unanswered("not_chat", "the reply is no chat completion") from None
    return Reply("\n".join(text.text for text in texts), "content_filter" in finishes or any(refusals))


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _said(reply: HttpReply) -> str:
    """What an error reply says, for the person who runs the probe."""
    body = _json(reply.body)
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or "")[:_SHOWN_CHARS]
