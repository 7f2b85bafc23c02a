"""What OpenAI documents that its fine-tuning accepts, checked line by line before anybody uploads a file.

Rules from the fine-tuning guide (supervised and preference formats) and the cookbook's "Data preparation and analysis
for chat model fine-tuning". Tokens are estimated from bytes, on the safe side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

MIN_EXAMPLES: Final = 10
MAX_EXAMPLE_TOKENS: Final = 65_536
MAX_FILE_BYTES: Final = 512 << 20
_BYTES_A_TOKEN: Final = 4
_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_MESSAGE_KEYS: Final = {"role", "content", "name", "function_call", "tool_calls", "tool_call_id", "weight", "refusal"}
_ROW_KEYS: Final = {"messages", "tools", "parallel_tool_calls", "functions"}
_INPUT_KEYS: Final = {"messages", "tools", "parallel_tool_calls"}
_PREFERENCE_KEYS: Final = {"input", "preferred_output", "non_preferred_output"}


def sft_problems(rows: Sequence[Any]) -> list[str]:
    """What is wrong with rows of the supervised format; empty where nothing is."""
    return [*_of_file(rows), *(f"line {n}: {why}" for n, row in enumerate(rows, 1) for why in _sft(row))]


def preference_problems(rows: Sequence[Any]) -> list[str]:
    """What is wrong with rows of the preference format; empty where nothing is."""
    return [*_of_file(rows), *(f"line {n}: {why}" for n, row in enumerate(rows, 1) for why in _preference(row))]


def _of_file(rows: Sequence[Any]) -> Iterator[str]:
    if len(rows) < MIN_EXAMPLES:
        yield f"{len(rows)} examples, and the service wants {MIN_EXAMPLES} at least"
    if sum(_bytes(row) for row in rows) > MAX_FILE_BYTES:
        yield f"more than {MAX_FILE_BYTES >> 20} MiB"


def _sft(row: Any) -> Iterator[str]:
    yield from _keys(row, _ROW_KEYS, {"messages"})
    if isinstance(row, Mapping):
        messages = row.get("messages")
        yield from _messages(messages, "messages")
        if isinstance(messages, list) and messages and _role(messages[-1]) != "assistant":
            yield "the last message is not the assistant's"
        yield from _length(row)


def _preference(row: Any) -> Iterator[str]:
    yield from _keys(row, _PREFERENCE_KEYS, _PREFERENCE_KEYS)
    if not isinstance(row, Mapping):
        return
    given = row.get("input")
    yield from _keys(given, _INPUT_KEYS, {"messages"})
    if isinstance(given, Mapping):
        messages = given.get("messages")
        yield from _messages(messages, "input.messages")
        if isinstance(messages, list) and messages and _role(messages[-1]) == "assistant":
            yield "the last message of the input is the assistant's"
    outputs = []
    for name in ("preferred_output", "non_preferred_output"):
        output = row.get(name)
        yield from _messages(output, name)
        if not isinstance(output, list) or len(output) != 1 or _role(output[0]) != "assistant":
            yield f"{name} is not exactly one message of the assistant"
        outputs.append(output)
    if outputs[0] == outputs[1]:
        yield "both outputs are the same"
    yield from _length(row)


def _keys(value: Any, known: set[str], needed: set[str]) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield "not an object"
        return
    for key in sorted(set(value) - known):
        yield f"unknown key {key!r}"
    for key in sorted(needed - set(value)):
        yield f"{key} is missing"


def _messages(messages: Any, where: str) -> Iterator[str]:
    if not isinstance(messages, list) or not messages:
        yield f"{where} is not a list of messages"
        return
    for message in messages:
        yield from (f"{where}: {why}" for why in _keys(message, _MESSAGE_KEYS, {"role"}))
        if _role(message) not in _ROLES:
            yield f"{where}: unknown role"
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, str) or not content:
            yield f"{where}: a message without text"


def _length(row: Mapping[str, Any]) -> Iterator[str]:
    if _bytes(row) > MAX_EXAMPLE_TOKENS * _BYTES_A_TOKEN:
        yield f"longer than {MAX_EXAMPLE_TOKENS} tokens, as estimated from its bytes"


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _bytes(value: Any) -> int:
    """Bytes of all texts in a value."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return sum(_bytes(each) for each in value.values())
    return sum(_bytes(each) for each in value) if isinstance(value, list) else 0
