"""The responses API: ``/responses``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.wire.places import KEY, Malformed, expected
from gateway.wire.response_items import Reading
from gateway.wire.responses_reply import answer_events, read_response, wants_structure, whole_answer
from gateway.wire.responses_stream import ResponsesStream
from gateway.wire.surface import JSON, Answer, Extracted, Json, Named, Place, References, ReplyStream, Role

_CLIENT_TOOLS = frozenset(
    ("function", "custom", "namespace", "local_shell", "apply_patch", "computer", "computer_use_preview")
)
"""Tools that the caller's own program runs, so that what they say comes back as an item and is screened."""


class Responses:
    """Reads and answers ``POST /responses``; stored responses are read by ``read_reply`` as well."""

    name = "responses"
    path = "/responses"
    streams = True
    speaks = True
    has_words = True
    ends_with_done = False

    def read_request(self, body: Json) -> Extracted:
        """Every text the model would read: instructions, tools, answer format, prompt variables, input.

        Items are numbered as turns; a text outside the input has turn -1. Ids, settings, metadata and the secrets of
        MCP servers are no texts: the model never reads them. Raises ``BadRequest`` on wrong types.
        """
        reading = Reading()
        try:
            _read_frame(body, reading)
            _read_input(body.get("input"), reading)
            _check_references(body)
        except Malformed as error:
            raise error.as_bad_request() from None
        return reading.extracted()

    def references(self, body: Json) -> References:
        """What the upstream would add to the request: stored responses, conversations and prompts, hosted tools.

        A hosted tool is any that the caller's program does not run, of a known type or not. ``item_reference`` items
        are not listed here but as unreadable parts. Raises ``BadRequest`` on wrong types.
        """
        try:
            return _check_references(body)
        except Malformed as error:
            raise error.as_bad_request() from None

    def read_reply(self, body: Json) -> Extracted:
        """Every text of a response, new or stored, or of a list of its input items (``GET .../input_items``).

        What repeats the request (instructions, tools, metadata) is left out: it was screened as a request. Images
        that a hosted tool made are unreadable. Raises ``ValueError`` on an unreadable reply.
        """
        reading = Reading(of_reply=True)
        if body.get("object") == "list":
            for index, item in enumerate(expected(body.get("data"), list, ("data",))):
                reading.item(item, ("data", index), turn=index, stranger=Role.ASSISTANT)
        else:
            if body.get("deleted") is not True:  # what tells of a deletion says nothing else
                expected(body.get("output"), list, ("output",))
            read_response(body, reading)
        return reading.extracted()

    def wants_structure(self, body: Json) -> bool:
        """Whether ``text.format`` asks for JSON."""
        return wants_structure(body)

    def instruct(self, body: Json, instruction: str) -> Json:
        """A copy of the request with ``instruction`` before its ``instructions``.

        Where a stored prompt brings instructions of its own, which ``instructions`` might replace, the instruction is
        a developer message at the head of the input instead.
        """
        given = body.get("instructions")
        if body.get("prompt") is None or given:
            return {**body, "instructions": f"{instruction}\n\n{given}" if given else instruction}
        asked = body.get("input")
        if isinstance(asked, str):
            asked = [{"role": "user", "content": asked}]
        return {**body, "input": [{"role": "developer", "content": instruction}, *(asked or ())]}

    def choices(self, body: Json) -> int:
        """One: the API has no choices."""
        return 1

    def answer(self, answer: Answer) -> Json:
        """A whole response that says ``answer.texts``; ``whole_answer`` tells how a refusal is said."""
        return whole_answer(answer)

    def answer_events(self, answer: Answer) -> Sequence[Named]:
        """The same as a stream."""
        return answer_events(answer)

    def reply_stream(self, request: Json) -> ReplyStream:
        """A reader for the streamed reply to ``request``."""
        return ResponsesStream(request)


def _read_frame(body: Json, reading: Reading) -> None:
    """What stands around the input."""
    instructions = body.get("instructions")
    if instructions is not None:
        reading.value(expected(instructions, str, ("instructions",)), ("instructions",), Role.SYSTEM, turn=-1)
    tools = body.get("tools")
    for index, tool in enumerate(() if tools is None else expected(tools, list, ("tools",))):
        place: Place = ("tools", index)
        reading.value(expected(tool, dict, place), place, Role.DEFINITION, turn=-1)
    text = body.get("text")
    form = None if text is None else expected(text, dict, ("text",)).get("format")
    if form is not None:
        place = ("text", "format")
        reading.value(expected(form, dict, place), place, Role.DEFINITION, turn=-1, structured=True)
    prompt = body.get("prompt")
    variables = None if prompt is None else expected(prompt, dict, ("prompt",)).get("variables")
    for name, value in ({} if variables is None else expected(variables, dict, ("prompt", "variables"))).items():
        place = ("prompt", "variables", name)
        if name in (JSON, KEY):
            raise Malformed(place[:2], "has a reserved key")
        if isinstance(value, str):
            reading.value(value, place, Role.USER, turn=-1)
        else:
            reading.part(value, place, Role.USER, turn=-1)


def _read_input(value: object, reading: Reading) -> None:
    if value is None:
        return
    if isinstance(value, str):
        reading.value(value, ("input",), Role.USER, turn=0)
        return
    for index, item in enumerate(expected(value, list, ("input",))):
        reading.item(item, ("input", index), turn=index, stranger=Role.USER)


def _check_references(body: Json) -> References:
    previous = body.get("previous_response_id")
    conversation = body.get("conversation")
    if isinstance(conversation, dict):
        conversation = expected(conversation.get("id"), str, ("conversation", "id"))
    prompt = body.get("prompt")
    stored = None if prompt is None else expected(expected(prompt, dict, ("prompt",)).get("id"), str, ("prompt", "id"))
    background = body.get("background")
    if background is not None and not isinstance(background, bool):
        raise Malformed(("background",), "must be a boolean")
    include = body.get("include")
    for index, wanted in enumerate(() if include is None else expected(include, list, ("include",))):
        expected(wanted, str, ("include", index))
    return References(
        responses=_one(previous, ("previous_response_id",)),
        conversations=_one(conversation, ("conversation",)),
        stored_prompts=() if stored is None else (stored,),
        hosted_tools=tuple(dict.fromkeys(_hosted_tools(body))),
        background=bool(background),
    )


def _one(value: object, place: Place) -> tuple[str, ...]:
    return () if value is None else (expected(value, str, place),)


def _hosted_tools(body: Json) -> Iterator[str]:
    """The types of all tools that run upstream: those of the request, and those that items of the input add."""
    lists: list[tuple[object, Place]] = [(body.get("tools"), ("tools",))]
    asked = body.get("input")
    for index, item in enumerate(asked if isinstance(asked, list) else ()):
        if isinstance(item, dict) and item.get("type") != "mcp_list_tools":
            lists.append((item.get("tools"), ("input", index, "tools")))
    while lists:
        tools, place = lists.pop()
        for index, tool in enumerate(() if tools is None else expected(tools, list, place)):
            here = (*place, index)
            kind = expected(expected(tool, dict, here).get("type"), str, (*here, "type"))
            if kind == "namespace":
                lists.append((tool.get("tools"), (*here, "tools")))
            elif not _runs_at_the_client(kind, tool):
                yield kind


def _runs_at_the_client(kind: str, tool: Json) -> bool:
    if kind == "shell":
        environment = tool.get("environment")
        return isinstance(environment, dict) and environment.get("type") == "local"
    return kind in _CLIENT_TOOLS or (kind == "tool_search" and tool.get("execution") == "client")
