"""A mask under which a reply cannot hold a malformed tool call.

Follows the reply byte by byte and marker by marker: thinking, content, then calls of offered tools
whose arguments `cast_arguments` accepts, in the form that `chat.py` renders. What is inside objects
and arrays is any JSON. A reply cut by its token limit may still end inside a call.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .arguments import ArgumentError, cast_arguments, declared_types
from .json_grammar import SKIP, Stack, Symbol, expand, may_end, value
from .messages import ToolSpec
from .tokenizer import (
    END_INVOKE,
    END_MESSAGE,
    END_PARAMETER,
    END_THINK,
    END_TOOL_CALL,
    INVOKE,
    PARAMETER,
    SPECIALS,
    TOOL_CALL,
    Special,
    Tokenizer,
)

_LINE: Symbol = ("text", b"\n")
_FREE = ("thinking", "content", "any")  # expectations that take every byte and stay
_JSON_TYPES = {"integer", "number", "boolean", "null", "object", "array"}


@dataclass(slots=True)
class _Node:
    """Of a tree of the tokens' bytes."""

    ids: list[int] = field(default_factory=list)
    children: dict[int, _Node] = field(default_factory=dict)


class CallGrammar:
    """A `LogitMask` for one request at a time; see the module."""

    def __init__(
        self,
        tools: Sequence[ToolSpec],
        tokenizer: Tokenizer,
        vocab_size: int,
        *,
        required: bool = False,
    ) -> None:
        """Prepare for some tools.

        Args:
            vocab_size: of the model, which may exceed the tokenizer's.
            required: whether there must be a call.

        Raises:
            ValueError: a call is required and no tool is offered, a name holds `"` or a line break,
                or no argument can satisfy a tool's schema.
        """
        if required and not tools:
            raise ValueError("expected a tool to call, got none; offer tools or do not require one")
        self._tools = {tool.name: _values(tool) for tool in tools}
        self._needed = {tool.name: frozenset(tool.parameters.get("required", ())) for tool in tools}
        self._specials = {special: tokenizer.special_id(special) for special in SPECIALS}
        self._markers = {token_id: special for special, token_id in self._specials.items()}
        self._tree = _Node()
        self._bytes: dict[int, bytes] = {}
        self._text = torch.zeros(vocab_size, dtype=torch.bool)
        self._plain = torch.zeros(vocab_size, dtype=torch.bool)  # text that ends no JSON string
        for token_id in range(min(vocab_size, tokenizer.vocab_size)):
            if text := tokenizer.token_bytes(token_id):
                self._plant(token_id, text)
        self._masks: dict[Stack, torch.Tensor] = {}
        self._ids: list[int] = []
        self._stacks: list[Stack] = [(("thinking", required),)]

    def __call__(self, token_ids: Sequence[int]) -> torch.Tensor:
        """See `LogitMask`.

        Raises:
            ValueError: `token_ids` hold something that was not allowed.
        """
        stack = self._after(token_ids)
        if stack not in self._masks:
            self._masks[stack] = self._mask(stack)
        return self._masks[stack]

    def _after(self, token_ids: Sequence[int]) -> Stack:
        known = len(self._ids)
        while self._ids[:known] != list(token_ids[:known]):
            known -= 1
        del self._ids[known:], self._stacks[known + 1 :]
        for token_id in token_ids[known:]:
            given = self._bytes.get(token_id, (self._markers.get(token_id),))
            stack = self._walk(self._stacks[-1], given)
            if stack is None:
                raise ValueError(f"expected an allowed token, got {token_id} at {len(self._ids)}")
            self._ids.append(token_id)
            self._stacks.append(stack)
        return self._stacks[-1]

    def _walk(self, stack: Stack, given: Iterable[int | Special | None]) -> Stack | None:
        for each in given:
            further = None if each is None else self._step(stack, each)
            if further is None:
                return None
            stack = further
        return stack

    def _mask(self, stack: Stack) -> torch.Tensor:
        if stack and stack[0][0] in _FREE:
            mask = self._text.clone()
        elif stack and stack[0] == ("string",):
            mask = self._plain.clone()
            for token_id in (self._text & ~self._plain).nonzero().flatten().tolist():
                mask[token_id] = self._walk(stack, self._bytes[token_id]) is not None
        else:
            mask = torch.zeros_like(self._text)
            self._allow(self._tree, stack, mask)
        for special, token_id in self._specials.items():
            mask[token_id] = self._step(stack, special) is not None
        if not stack:
            mask[self._specials[END_MESSAGE]] = True
        return mask

    def _allow(self, node: _Node, stack: Stack, mask: torch.Tensor) -> None:
        for byte, child in node.children.items():
            if (further := self._step(stack, byte)) is not None:
                mask[child.ids] = True
                self._allow(child, further, mask)

    def _plant(self, token_id: int, text: bytes) -> None:
        self._text[token_id] = True
        self._plain[token_id] = all(byte >= 0x20 and byte not in b'"\\' for byte in text)
        self._bytes[token_id] = text
        node = self._tree
        for byte in text:
            node = node.children.setdefault(byte, _Node())
        node.ids.append(token_id)

    def _step(self, stack: Stack, given: int | Special) -> Stack | None:
        """What is expected after a byte or a marker; None = it is not allowed."""
        while stack:
            top, rest = stack[0], stack[1:]
            if isinstance(given, Special):
                found = self._marked(top, given)
            elif top[0] in _FREE:
                found = (top,)
            elif top[0] == "one of":
                found = _narrowed(top[1], given)
            elif top[0] in ("marker", "call", "parameters"):
                found = None
            else:
                found = expand(top, given)
            if found is None:
                return None
            if found != SKIP:
                return (*found, *rest)
            stack = rest
        return None

    def _marked(self, top: Symbol, marker: Special) -> Stack | None:
        match top:
            case ("thinking", required) if marker == END_THINK:
                return (("content", required),)
            case ("content", _) if marker == TOOL_CALL and self._tools:
                return (_LINE, ("call", True))
            case ("content", False) if marker == END_MESSAGE:
                return ()
            case ("marker", expected) if marker == expected:
                return ()
            case ("call", _) if marker == INVOKE:
                return (_choice({name: _opened(name) for name in self._tools}), ("call", False))
            case ("call", False) if marker == END_TOOL_CALL:
                return (("marker", END_MESSAGE),)
            case ("parameters", tool, used) if marker == PARAMETER:
                left = self._open(tool, used)
                return (_choice(left),) if left else None
            case ("parameters", tool, used) if marker == END_INVOKE and used >= self._needed[tool]:
                return (_LINE,)
            case ("any",):
                return SKIP
            case ("one of", choices):
                return SKIP if (b"", ()) in choices else None
        return SKIP if may_end(top) else None

    def _open(self, tool: str, used: frozenset[str]) -> Mapping[str, Stack]:
        return {
            name: (expected, ("marker", END_PARAMETER), _LINE, ("parameters", tool, used | {name}))
            for name, expected in self._tools[tool].items()
            if name not in used
        }


def _opened(tool: str) -> Stack:
    return (_LINE, ("parameters", tool, frozenset()))


def _choice(continuations: Mapping[str, Stack]) -> Symbol:
    """Expects one of some names, closed, and then what belongs to it."""
    return ("one of", tuple((f'{name}">'.encode(), then) for name, then in continuations.items()))


def _narrowed(choices: Sequence[tuple[bytes, Stack]], byte: int) -> Stack | None:
    left = tuple((text[1:], then) for text, then in choices if text[:1] == bytes([byte]))
    if len(left) == 1 and not left[0][0]:
        return left[0][1]
    return (("one of", left),) if left else None


def _values(tool: ToolSpec) -> Mapping[str, Symbol]:
    """What each parameter of a tool expects; those that nothing satisfies are left out."""
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    for name in (tool.name, *properties):
        if '"' in name or "\n" in name:
            raise ValueError(f'expected names without " and line breaks, got {name!r}')
    found = {name: _value(tool, name, schema) for name, schema in properties.items()}
    for name in tool.parameters.get("required", ()):
        if found.get(name) is None:
            raise ValueError(
                f"expected a schema of {tool.name} that arguments can satisfy, but nothing fits "
                f"its required parameter {name}"
            )
    return {name: symbol for name, symbol in found.items() if symbol is not None}


def _value(tool: ToolSpec, name: str, schema: Mapping[str, Any] | bool) -> Symbol | None:
    if isinstance(schema, bool):
        return ("any",) if schema else None
    types = declared_types(schema)
    if "enum" in schema:
        texts = [
            each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)
            for each in schema["enum"]
        ]
        alone = ToolSpec(name=tool.name, description="", parameters={"properties": {name: schema}})
        fitting = [text for text in dict.fromkeys(texts) if _fits(alone, name, text)]
        return ("one of", tuple((text.encode(), ()) for text in fitting)) if fitting else None
    if not types or "string" in types or not _JSON_TYPES.issuperset(types):
        return ("any",)
    return value(types)


def _fits(tool: ToolSpec, name: str, text: str) -> bool:
    try:
        cast_arguments(tool, {name: text})
    except ArgumentError:
        return False
    return True
