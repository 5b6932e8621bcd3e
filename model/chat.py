"""MiniMax-M2's chat format, rendered in token space. `reply.py` reads what the model answers.

Rendering is prefix-stable: a prompt followed by its completion is a prefix of every later prompt.
It follows M2's published template except in two points: a system message after the first keeps
its place, and an assistant message without reasoning has an empty thinking block, because every
completion starts inside one. Earlier thinking is kept; M2's template drops it before the last
user message.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .messages import Message, ToolSpec
from .reply import parse_completion, parse_reply
from .tokenizer import (
    BEGIN_MESSAGE,
    BEGIN_TEXT,
    END_INVOKE,
    END_MESSAGE,
    END_PARAMETER,
    END_THINK,
    END_TOOL_CALL,
    INVOKE,
    PARAMETER,
    THINK,
    TOOL_CALL,
    Tokenizer,
)

__all__ = [
    "DEFAULT_SYSTEM",
    "parse_completion",
    "parse_reply",
    "render",
    "render_assistant",
    "render_parts",
    "render_text",
]

DEFAULT_SYSTEM = "You are a helpful assistant."
_GENERATION_PROMPT = (BEGIN_MESSAGE, "ai\n", THINK, "\n")


def render(
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    tokenizer: Tokenizer,
    *,
    add_generation_prompt: bool,
) -> list[int]:
    """The token ids of a conversation, ready to sample from when `add_generation_prompt`.

    An assistant message with `token_ids` contributes exactly those and, if it was cut, the end of
    message that they lack.
    """
    ids = [token_id for part, _ in render_parts(messages, tools, tokenizer) for token_id in part]
    return ids + tokenizer.encode_pieces(_GENERATION_PROMPT) if add_generation_prompt else ids


def render_parts(
    messages: Sequence[Message], tools: Sequence[ToolSpec], tokenizer: Tokenizer
) -> Iterator[tuple[Sequence[int], bool]]:
    """The token ids of a conversation in order; True = a completion, which a sampler made."""
    conversation = _with_system(messages)
    for index, message in enumerate(conversation):
        if message.role != "assistant":
            yield tokenizer.encode_pieces(_given(conversation, index, tools)), False
            continue
        completion = message.token_ids
        if completion is None:
            completion = tuple(render_assistant(message, tokenizer))
        yield tokenizer.encode_pieces(_GENERATION_PROMPT), False
        yield completion, True
        cut = completion[-1:] != (tokenizer.eos_id,)
        yield tokenizer.encode_pieces([END_MESSAGE, "\n"] if cut else ["\n"]), False


def render_assistant(message: Message, tokenizer: Tokenizer) -> list[int]:
    """The completion a sampler would have produced for `message`, its end of message included."""
    return tokenizer.encode_pieces(_completion(message))


def render_text(
    messages: Sequence[Message], tools: Sequence[ToolSpec], *, add_generation_prompt: bool = False
) -> str:
    """The conversation as text, for people; `token_ids` are not looked at."""
    conversation = _with_system(messages)
    pieces: list[str] = []
    for index, message in enumerate(conversation):
        if message.role == "assistant":
            pieces += (*_GENERATION_PROMPT, *_completion(message), "\n")
        else:
            pieces += _given(conversation, index, tools)
    if add_generation_prompt:
        pieces += _GENERATION_PROMPT
    return "".join(pieces)


def _with_system(messages: Sequence[Message]) -> Sequence[Message]:
    if messages and messages[0].role == "system":
        return messages
    return [Message(role="system", content=DEFAULT_SYSTEM), *messages]


def _given(conversation: Sequence[Message], index: int, tools: Sequence[ToolSpec]) -> Iterator[str]:
    """A message that the model reads. Tool results in a row share one turn."""
    message = conversation[index]
    if message.role == "tool":
        if conversation[index - 1].role != "tool":
            yield from (BEGIN_MESSAGE, "tool")
        yield f"\n<response>{message.content}</response>"
        if [following.role for following in conversation[index + 1 : index + 2]] == ["tool"]:
            return
    else:
        if index == 0:
            yield BEGIN_TEXT
        yield from (BEGIN_MESSAGE, f"{message.role}\n{message.content}")
        if index == 0 and tools:
            yield from _offer(tools)
    yield from (END_MESSAGE, "\n")


def _offer(tools: Sequence[ToolSpec]) -> Iterator[str]:
    """The part of the system message that shows the tools and how to call them."""
    yield (
        "\n\n# Tools\nYou may call one or more tools to assist with the user query.\n"
        "Here are the tools available in JSONSchema format:\n\n<tools>\n"
    )
    for tool in tools:
        schema = {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        }
        yield f"<tool>{json.dumps(schema, ensure_ascii=False)}</tool>\n"
    yield "</tools>\n\n"
    yield "When making tool calls, use XML format to invoke tools and pass parameters:\n\n"
    example = {"param-key-1": "param-value-1", "param-key-2": "param-value-2"}
    yield from (TOOL_CALL, "\n", INVOKE, 'tool-name-1">\n', *_parameters(example), "...\n")
    yield from (END_INVOKE, "\n", END_TOOL_CALL)


def _completion(message: Message) -> Iterator[str]:
    """What follows the generation prompt. An empty thinking block is closed at once."""
    if message.reasoning:
        yield f"{message.reasoning}\n"
    yield from (END_THINK, f"\n\n{message.content}")
    if message.tool_calls:
        yield from ("\n", TOOL_CALL, "\n")
        for call in message.tool_calls:
            yield from (INVOKE, f'{call.name}">\n', *_parameters(call.arguments))
            yield from (END_INVOKE, "\n")
        yield END_TOOL_CALL
    yield END_MESSAGE


def _parameters(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Strings stand as they are, everything else as JSON."""
    for name, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield from (PARAMETER, f'{name}">{text}', END_PARAMETER, "\n")
