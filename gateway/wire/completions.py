"""Legacy completions: ``POST /completions``, whole and streamed.

The prompt is a string, several strings, or token numbers, which cannot be screened. As in ``gateway.wire.chat``, every
string of a field that this file does not know counts as text. Source of the format: the ``openai`` package,
``types/completion*.py``, version 3.52, and vLLM's additions to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.streaming import Delta
from gateway.wire.choices import (
    NO_TOKENS,
    PLAIN_OF_CHOICE,
    PLAIN_OF_REPLY,
    ChoiceStream,
    choice_count,
    choice_number,
    other_texts,
)
from gateway.wire.places import Collector, Malformed, expected, is_identifier, is_text
from gateway.wire.surface import Answer, Extracted, Json, Named, Place, References, ReplyStream, Role

OBJECT = "text_completion"

_NOT_READ = frozenset(
    """prompt suffix model stream stream_options n best_of echo temperature top_p max_tokens stop seed logit_bias
    logprobs presence_penalty frequency_penalty user""".split()  # noqa: SIM905 - a block of words reads better
)


class Completions:
    """The surface of legacy completions."""

    name = "completions"
    path = "/completions"
    streams = True
    speaks = True
    has_words = True
    ends_with_done = True

    def read_request(self, body: Json) -> Extracted:
        """Prompts, the suffix, and whatever else may be read. All prompts are one turn: none is older than another."""
        found = Collector(Role.DEFINITION)
        try:
            for name, value in expected(body, dict, ()).items():
                if name not in _NOT_READ:
                    found.all_below((name,), value, is_identifier)
            found.role, found.turn = Role.USER, 0
            _read_prompt(found, body.get("prompt"))
            if body.get("suffix") is not None:
                found.text(("suffix",), body["suffix"])
        except Malformed as error:
            raise error.as_bad_request() from None
        return found.extracted()

    def references(self, body: Json) -> References:
        """None: nothing in the format stands for text kept elsewhere."""
        return References()

    def read_reply(self, body: Json) -> Extracted:
        """The text of every choice, and what its log probabilities spell out where that is something else."""
        found = Collector(Role.ASSISTANT)
        choices = expected(expected(body, dict, ()).get("choices"), list, ("choices",))
        for position, choice in enumerate(choices):
            place = ("choices", position)
            found.choice = choice_number(choice, position, place)
            text = "" if choice.get("text") is None else choice["text"]
            found.text((*place, "text"), text)
            spelt = _token_text(choice.get("logprobs"), (*place, "logprobs"))
            if is_text(spelt) and spelt != text:
                found.text((*place, "logprobs"), spelt)
            for field, value in choice.items():
                if field not in PLAIN_OF_CHOICE:
                    found.all_below((*place, field), value, is_identifier)
        found.choice = 0
        for name, value in body.items():
            if name not in PLAIN_OF_REPLY:
                found.all_below((name,), value, is_identifier)
        return found.extracted()

    def wants_structure(self, body: Json) -> bool:
        """False: the API knows no such format here."""
        return False

    def instruct(self, body: Json, instruction: str) -> Json:
        """The instruction before each prompt, a blank line between them. Token prompts stay as they are."""
        prompt = body.get("prompt")
        if isinstance(prompt, str):
            return {**body, "prompt": f"{instruction}\n\n{prompt}"}
        if isinstance(prompt, list):
            return {**body, "prompt": [f"{instruction}\n\n{p}" if isinstance(p, str) else p for p in prompt]}
        return dict(body)

    def choices(self, body: Json) -> int:
        """``n`` for each prompt."""
        return choice_count(body, prompts=_prompts(body), most=CompletionsStream.max_choices)

    def answer(self, answer: Answer) -> Json:
        """A completion of the given texts."""
        choices = [_choice(index, text, answer.finish) for index, text in enumerate(answer.texts)]
        return {**_head(answer), "choices": choices, "usage": NO_TOKENS}

    def answer_events(self, answer: Answer) -> Sequence[Named]:
        """For each choice its text and its end; then the usage, if the request asks for it."""
        head = _head(answer)
        if answer.include_usage:
            head["usage"] = None
        events: list[Named] = []
        for index, text in enumerate(answer.texts):
            events.append((None, {**head, "choices": [_choice(index, text, None)]}))
            events.append((None, {**head, "choices": [_choice(index, "", answer.finish)]}))
        if answer.include_usage:
            events.append((None, {**head, "choices": [], "usage": NO_TOKENS}))
        return events

    def reply_stream(self, request: Json) -> ReplyStream:
        return CompletionsStream(request)


class CompletionsStream(ChoiceStream):
    """Reads the chunks of one reply."""

    kind = OBJECT
    said_in = "text"
    max_choices = 1024

    def __init__(self, request: Json) -> None:
        super().__init__(request, prompts=_prompts(request))

    def _chunk(self, head: Json, index: int, *, finish: str) -> Json:
        return {**head, "choices": [_choice(index, "", finish)]}

    def _read_choice(self, index: int, choice: Json, place: Place) -> list[Delta]:
        found: list[Delta] = []
        text = choice.get("text")
        if text:
            found.append(Delta((index, "text"), expected(text, str, (*place, "text"))))
        if choice.get("logprobs") is not None:
            spelt = _token_text(choice["logprobs"], (*place, "logprobs"))
            if spelt and spelt != text:
                found.append(Delta((index, "logprobs"), spelt))
        if not choice.keys() <= PLAIN_OF_CHOICE:
            found += other_texts((index,), choice, PLAIN_OF_CHOICE)
        return found


def _prompts(body: Json) -> int:
    """How many prompts a request brings; a list of integers is one of token ids."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and any(not isinstance(each, int) for each in prompt):
        return len(prompt)
    return 1


def _read_prompt(found: Collector, prompt: object) -> None:
    """A string, a list of strings, a list of token numbers, or a list of such lists."""
    place: Place = ("prompt",)
    if prompt is None:  # the model starts from nothing
        return
    if isinstance(prompt, str):
        found.text(place, prompt)
        return
    if not isinstance(prompt, list):
        raise Malformed(place, "must be a string, an array of strings or an array of tokens")
    if prompt and all(isinstance(token, int) for token in prompt):
        found.unreadable(place, "tokens")
        return
    for position, each in enumerate(prompt):
        if isinstance(each, list) and all(isinstance(token, int) for token in each):
            found.unreadable((*place, position), "tokens")
        else:
            found.text((*place, position), each)


def _token_text(logprobs: object, place: Place) -> str:
    if logprobs is None:
        return ""
    tokens = expected(logprobs, dict, place).get("tokens")
    return "".join([expected(token, str, place) for token in expected(tokens or [], list, place)])


def _head(answer: Answer) -> Json:
    return {"id": answer.reply_id, "object": OBJECT, "created": answer.created_at, "model": answer.model}


def _choice(index: int, text: str, finish: str | None) -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
