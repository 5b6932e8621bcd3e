"""A mask under which a reply cannot hold a malformed tool call.

Follows the reply byte by byte and marker by marker: thinking, content, then calls of offered tools
whose arguments `cast_arguments` accepts, in the form that `chat.py` renders. What is inside objects
and arrays is any JSON. A reply cut by its token limit may still end inside a call.

Where the markers inside a call are text (`Tokenizer.spells_calls`), they are expected byte by byte,
an argument ends at its first `</parameter>`, and strings inside objects and arrays write `</` as
`<\\/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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
    TOOL_CALL,
    Special,
    Tokenizer,
)
from .vocabulary import Node, vocabulary

_Choices = tuple[tuple[bytes, Stack], ...]
_LINE: Symbol = ("text", b"\n")
_END = END_PARAMETER.encode()
_FREE = ("thinking", "content", "any")  # expectations that take every byte and stay
_JSON_TYPES = {"integer", "number", "boolean", "null", "object", "array"}


class CallGrammar:
    """A `LogitMask` for one request at a time; see the module."""

    def __init__(
        self,
        tools: Sequence[ToolSpec],
        tokenizer: Tokenizer,
        vocab_size: int,
        *,
        required: bool = False,
        single: bool = False,
    ) -> None:
        """Prepare for some tools.

        Args:
            vocab_size: of the model, which may exceed the tokenizer's.
            required: whether there must be a call.
            single: whether there may be no more than one.

        Raises:
            ValueError: a call is required and no tool is offered, a name holds `"` or a line break,
                or no argument can satisfy a tool's schema.
        """
        if required and not tools:
            raise ValueError("expected a tool to call, got none; offer tools or do not require one")
        self._tools = {tool.name: _values(tool, tokenizer.spells_calls) for tool in tools}
        self._needed = {tool.name: frozenset(tool.parameters.get("required", ())) for tool in tools}
        end: Stack = (("marker", END_TOOL_CALL), ("marker", END_MESSAGE))
        self._further: Stack = end if single else (("call", False),)
        self._spelled = tokenizer.spells_calls
        self._specials = tokenizer.markers
        self._markers = {token_id: special for special, token_id in self._specials.items()}
        self._vocabulary = vocabulary(tokenizer, vocab_size)
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
            given = self._vocabulary.bytes.get(token_id, (self._markers.get(token_id),))
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
        words = self._vocabulary
        if stack and stack[0][0] in _FREE:
            mask = words.text.clone()
        elif stack and stack[0][0] == "until":
            mask = self._checked(stack, words.text & ~words.closing)
        elif stack and stack[0] in (("string",), ("string, not /",)):
            sure = words.plain & ~words.tags if self._spelled else words.plain
            mask = self._checked(stack, sure)
        else:
            mask = torch.zeros_like(words.text)
            self._allow(words.tree, stack, mask)
        for special, token_id in self._specials.items():
            mask[token_id] = self._step(stack, special) is not None
        if not stack:
            mask[self._specials[END_MESSAGE]] = True
        return mask

    def _checked(self, stack: Stack, sure: torch.Tensor) -> torch.Tensor:
        """The tokens that are surely allowed, and those of the others that turn out to be."""
        mask, words = sure.clone(), self._vocabulary
        for token_id in (words.text & ~sure).nonzero().flatten().tolist():
            mask[token_id] = self._walk(stack, words.bytes[token_id]) is not None
        return mask

    def _allow(self, node: Node, stack: Stack, mask: torch.Tensor) -> None:
        for byte, child in node.children.items():
            if (further := self._step(stack, byte)) is not None:
                mask[child.ids] = True
                self._allow(child, further, mask)

    def _step(self, stack: Stack, given: int | Special) -> Stack | None:
        """What is expected after a byte or a marker; None = it is not allowed."""
        while stack:
            top, rest = stack[0], stack[1:]
            found = (
                self._marked(top, given) if isinstance(given, Special) else self._read(top, given)
            )
            if found is None:
                return None
            if found != SKIP:
                return (*found, *rest)
            stack = rest
        return None

    def _read(self, top: Symbol, byte: int) -> Stack | None:
        match top:
            case (kind, *_) if kind in _FREE:
                return (top,)
            case ("one of", choices):
                return _narrowed(choices, byte)
            case ("until", known):
                return _until(known, byte)
            case ("call" | "parameters", *_) if self._spelled:
                return _narrowed(self._spelled_out(top), byte)
            case ("marker" | "call" | "parameters", *_):
                return None
            case ("string",) if self._spelled and byte == ord("<"):
                return (("string, not /",),)
            case ("string, not /",):
                return None if byte == ord("/") else self._read(("string",), byte)
        return expand(top, byte)

    def _spelled_out(self, top: Symbol) -> _Choices:
        """What may come in place of the marker of a call that is text."""
        if top[0] == "call":
            calls = {name: (*_opened(name), *self._further) for name in self._tools}
            return _choices(calls, INVOKE)
        _, tool, used = top
        end = ((END_INVOKE.encode(), (_LINE,)),) if used >= self._needed[tool] else ()
        return _choices(self._open(tool, used), PARAMETER) + end

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
                calls = {name: _opened(name) for name in self._tools}
                return (("one of", _choices(calls)), *self._further)
            case ("call", False) if marker == END_TOOL_CALL:
                return (("marker", END_MESSAGE),)
            case ("parameters", tool, used) if marker == PARAMETER:
                left = self._open(tool, used)
                return (("one of", _choices(left)),) if left else None
            case ("parameters", tool, used) if marker == END_INVOKE and used >= self._needed[tool]:
                return (_LINE,)
            case ("any",):
                return SKIP
            case ("one of", choices):
                return SKIP if (b"", ()) in choices else None
        return SKIP if may_end(top) else None

    def _open(self, tool: str, used: frozenset[str]) -> Mapping[str, Stack]:
        return {
            name: (*self._closed(expected), _LINE, ("parameters", tool, used | {name}))
            for name, expected in self._tools[tool].items()
            if name not in used
        }

    def _closed(self, expected: Symbol) -> Stack:
        if not self._spelled:
            return (expected, ("marker", END_PARAMETER))
        if expected == ("any",):
            return (("until", 0),)
        return (expected, ("text", _END))


def _opened(tool: str) -> Stack:
    return (_LINE, ("parameters", tool, frozenset()))


def _choices(continuations: Mapping[str, Stack], before: str = "") -> _Choices:
    """Some names, closed, and then what belongs to each."""
    return tuple((f'{before}{name}">'.encode(), then) for name, then in continuations.items())


def _narrowed(choices: _Choices, byte: int) -> Stack | None:
    left = tuple((text[1:], then) for text, then in choices if text[:1] == bytes([byte]))
    if len(left) == 1 and not left[0][0]:
        return left[0][1]
    if not left and (b"", ()) in choices:
        return SKIP
    return (("one of", left),) if left else None


def _until(known: int, byte: int) -> Stack:
    """After `known` bytes of the end of a parameter: it starts anew at `<` alone."""
    if byte != _END[known]:
        return (("until", int(byte == _END[0])),)
    return (("until", known + 1),) if known + 1 < len(_END) else ()


def _values(tool: ToolSpec, spelled: bool) -> Mapping[str, Symbol]:
    """What each parameter of a tool expects; those that nothing satisfies are left out."""
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    for name in (tool.name, *properties):
        if '"' in name or "\n" in name:
            raise ValueError(f'expected names without " and line breaks, got {name!r}')
    found = {name: _value(tool, name, schema, spelled) for name, schema in properties.items()}
    for name in tool.parameters.get("required", ()):
        if found.get(name) is None:
            raise ValueError(
                f"expected a schema of {tool.name} that arguments can satisfy, but nothing fits "
                f"its required parameter {name}"
            )
    return {name: symbol for name, symbol in found.items() if symbol is not None}


def _value(
    tool: ToolSpec, name: str, schema: Mapping[str, Any] | bool, spelled: bool
) -> Symbol | None:
    if isinstance(schema, bool):
        return ("any",) if schema else None
    types = declared_types(schema)
    if "enum" in schema:
        texts = [
            each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)
            for each in schema["enum"]
        ]
        alone = ToolSpec(name=tool.name, description="", parameters={"properties": {name: schema}})
        fitting = [
            text
            for text in dict.fromkeys(texts)
            if _fits(alone, name, text) and not (spelled and END_PARAMETER in text)
        ]
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
