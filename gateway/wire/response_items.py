"""The items of the responses API: which of their strings the model or the user reads, and who speaks in each.

Requests, replies and stream events hold the same items, so all three read them here. Every string of an item counts
as text, unless its key is known to hold an identifier or a fixed word and its value looks like one, or it is data
that cannot be read (an image, a file, encrypted reasoning), which is reported as ``Unreadable``. A kind of item or
part that is not known is read in full and reported as ``Unreadable`` besides, since part of it may stand for text
kept elsewhere. Source of the formats: the ``openai`` package, ``types/responses``, version 3.52.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.wire.places import KEY, Malformed, expected, is_text, json_leaves, leaves
from gateway.wire.surface import JSON, Extracted, Json, Place, Role, Text, Unreadable

_USER_ITEMS = ("mcp_approval_response", "compaction_trigger", "item_reference")
_ASSISTANT_ITEMS = (
    "reasoning",
    "compaction",
    "function_call",
    "custom_tool_call",
    "computer_call",
    "file_search_call",
    "web_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "mcp_call",
    "mcp_approval_request",
    "tool_search_call",
    "program",
)
_TOOL_ITEMS = (
    "function_call_output",
    "custom_tool_call_output",
    "computer_call_output",
    "local_shell_call_output",
    "shell_call_output",
    "apply_patch_call_output",
    "program_output",
)
_DEFINITION_ITEMS = ("additional_tools", "tool_search_output", "mcp_list_tools", "configuration_update")

_ROLES: Final[Mapping[str, Role]] = {
    **dict.fromkeys(_USER_ITEMS, Role.USER),
    **dict.fromkeys(_ASSISTANT_ITEMS, Role.ASSISTANT),
    **dict.fromkeys(_TOOL_ITEMS, Role.TOOL),
    **dict.fromkeys(_DEFINITION_ITEMS, Role.DEFINITION),
}
_MESSAGE_ROLES: Final[Mapping[str, Role]] = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}

_FROM_TOOLS = frozenset(("output", "outputs", "result", "results", "error"))
"""Fields of a call that hold what the tool said, in the hosted calls that carry call and result in one item."""

_TEXT_PARTS: Final[Mapping[str, str]] = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
_OPAQUE_PARTS: Final[Mapping[str, Literal["image", "audio", "file"]]] = {
    "input_image": "image",
    "computer_screenshot": "image",
    "image": "image",
    "input_file": "file",
    "base64": "file",  # the zip archive of an inline skill
    "input_audio": "audio",
}
_PAYLOADS = frozenset(("image_url", "file_id", "file_data", "file_url", "url", "data", "input_audio"))
"""What an opaque part carries; its other strings, such as ``filename``, are read."""

_PART_LISTS: Final[Mapping[str, str]] = {
    "message": "content",
    "function_call_output": "output",
    "custom_tool_call_output": "output",
}

_FREE_FORM = frozenset(("parameters", "schema", "input_schema", "output_schema", "attributes", "env"))
"""Fields whose keys are the caller's own, so that none of them can be taken for an identifier."""

_SECRETS = frozenset(("authorization", "headers"))
"""What goes to an MCP server in place of the model."""

_IDENTIFIERS = frozenset(
    """id type status call_id item_id container_id file_id approval_request_id caller_id created_by role phase
    execution fingerprint detail mode ttl button action background quality size output_format object media_type
    memory_limit connector_id tunnel_id model moderation""".split()  # noqa: SIM905 - a block of words reads better
)
_IDENTIFIER = re.compile(r"[\w.:/+=@-]{0,256}", re.ASCII)

_Reading = Literal["format", "free", "json"]
"""How to read a value: by the rules of the format, as anybody's JSON, or as a string that holds JSON."""


@dataclass(slots=True)
class Reading:
    """What has been found so far in one body or event.

    ``decode`` says whether JSON in arguments is opened, ``json_answer`` whether the model was asked to answer in JSON.
    In a reply (``of_reply``) what is encrypted is not reported: no user can read it. In a request it may be anything.
    """

    decode: bool = True
    of_reply: bool = False
    json_answer: bool = False
    texts: list[Text] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def extracted(self) -> Extracted:
        return Extracted(tuple(self.texts), tuple(self.unreadable))

    def item(self, item: object, place: Place, *, turn: int, stranger: Role) -> None:
        """Read one item. ``stranger`` speaks where kind or role of the item is unknown. Raises ``Malformed``."""
        item = expected(item, dict, place)
        kind = _kind(item)
        role = _MESSAGE_ROLES.get(str(item.get("role")), stranger) if kind == "message" else _ROLES.get(kind)
        if role is None:
            self.unreadable.append(Unreadable(place, "other"))
            self.value(item, place, stranger, turn=turn, how="free")
            return
        if kind == "item_reference":
            self.unreadable.append(Unreadable(place, "other"))
        call = role is Role.ASSISTANT and kind not in ("message", "reasoning")
        for key, child, how in self._fields(item, place):
            below = (*place, key)
            speaker = Role.TOOL if call and key in _FROM_TOOLS else role
            if key == _PART_LISTS.get(kind):
                self.parts(child, below, speaker, turn=turn)
            elif kind == "image_generation_call" and key == "result":
                if child:
                    self.unreadable.append(Unreadable(below, "image"))
            else:
                if key == "arguments" and kind == "function_call":
                    expected(child, str, below)
                self.value(child, below, speaker, turn=turn, structured=call and speaker is role, how=how)

    def parts(self, value: object, place: Place, role: Role, *, turn: int) -> None:
        """Read content: a string, or a list of parts. Raises ``Malformed``."""
        if value is None:
            return
        if isinstance(value, str):
            self.value(value, place, role, turn=turn)
            return
        for index, part in enumerate(expected(value, list, place)):
            self.part(part, (*place, index), role, turn=turn)

    def part(self, part: object, place: Place, role: Role, *, turn: int) -> None:
        """Read one content part. Raises ``Malformed``."""
        part = expected(part, dict, place)
        kind = str(part.get("type"))
        wanted = _TEXT_PARTS.get(kind)
        if wanted is not None:
            expected(part.get(wanted), str, (*place, wanted))
        known = wanted is not None or kind in _OPAQUE_PARTS
        if not known:
            self.unreadable.append(Unreadable(place, "other"))
        answer = kind == "output_text" and role is Role.ASSISTANT
        structured = answer and (self.json_answer or part["text"].lstrip()[:1] in ("{", "["))
        if structured and self.decode and "\\u" in part["text"]:
            # JSON may spell a word in escapes, which a program undoes before anybody reads it.
            self.value(part["text"], (*place, "text"), role, turn=turn, structured=True, how="json")
            part = {key: value for key, value in part.items() if key != "text"}
        self.value(part, place, role, turn=turn, structured=structured, how="format" if known else "free")

    def value(
        self,
        value: object,
        place: Place,
        role: Role,
        *,
        turn: int,
        structured: bool = False,
        how: _Reading = "format",
    ) -> None:
        """Read every text at or below ``value``, with a stack of its own: no nesting is too deep for it."""
        stack: list[tuple[Place, Any, _Reading]] = [(place, value, how)]
        while stack:
            here, current, how = stack.pop()
            found: Iterable[tuple[Place, str]] = ()
            if isinstance(current, str):
                found = json_leaves(current, here) if how == "json" else [(here, current)]
            elif how != "format":
                found = leaves(current, here)
            elif isinstance(current, dict):
                below = [((*here, key), child, read) for key, child, read in self._fields(current, here)]
                stack.extend(reversed(below))
            elif isinstance(current, list):
                stack.extend(((*here, i), current[i], how) for i in range(len(current) - 1, -1, -1))
            for at, text in found:
                if is_text(text) and not (role is Role.DEFINITION and _names_a_type(at, text)):
                    self.texts.append(Text(at, text, role, turn=turn, structured=structured))

    def _fields(self, value: Json, place: Place) -> Iterator[tuple[str, Any, _Reading]]:
        """The fields of an object of the format that may hold text; opaque data is reported and left out."""
        opaque = _OPAQUE_PARTS.get(str(value.get("type")))
        if opaque is not None:
            self.unreadable.append(Unreadable(place, opaque))
        for key, child in value.items():
            if key in (JSON, KEY):
                raise Malformed(place, "has a reserved key")
            if child is None or (opaque is not None and key in _PAYLOADS):
                continue
            if key == "encrypted_content":
                if not self.of_reply:
                    self.unreadable.append(Unreadable((*place, key), "other"))
            elif key == "image_url" and opaque is None:
                self.unreadable.append(Unreadable((*place, key), "image"))
            elif key in _IDENTIFIERS and isinstance(child, str) and _IDENTIFIER.fullmatch(child):
                continue
            elif key == "logprobs" and value.get("type") == "output_text":
                continue  # they spell out the part's own text, token by token
            elif key in _SECRETS and value.get("type") == "mcp":
                continue
            elif key == "arguments":
                yield key, child, "free" if not isinstance(child, str) else "json" if self.decode else "format"
            else:
                yield key, child, "free" if key in _FREE_FORM else "format"


def _kind(item: Json) -> str:
    """The item's type, where it may be left out as well: in messages and in references to an item."""
    kind = item.get("type")
    if kind is None:
        return "message" if "role" in item else "item_reference" if item.keys() <= {"id", "type"} else ""
    return kind if isinstance(kind, str) else ""


def _names_a_type(place: Place, text: str) -> bool:
    """Whether this is ``"type": "object"`` or the like in a schema, which says nothing by itself."""
    return place[-1] == "type" and len(text) <= 64 and _IDENTIFIER.fullmatch(text) is not None
