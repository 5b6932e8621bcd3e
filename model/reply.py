"""Reads what the model answered: thinking, content, tool calls. Never raises on any reply.

Token ids are read exactly, because a marker inside an argument is not a marker's token. In text,
and in ids of a tokenizer that has the markers of calls as text, the two look the same: there a
parameter ends at the first `</parameter>` that the format allows to end it. Nested schema types are
left to the tool.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from .arguments import ArgumentError, cast_arguments, shorten
from .messages import Message, ToolCall, ToolSpec
from .tokenizer import (
    CALL_MARKERS,
    END_INVOKE,
    END_MESSAGE,
    END_PARAMETER,
    END_THINK,
    END_TOOL_CALL,
    INVOKE,
    PARAMETER,
    SPECIALS,
    THINK,
    TOOL_CALL,
    Special,
    Tokenizer,
)


def parse_completion(
    ids: Sequence[int], tools: Sequence[ToolSpec], tokenizer: Tokenizer
) -> tuple[Message, str | None]:
    """Read sampled ids; the message keeps them. See `parse_reply`."""
    message, error = _parse(list(_pieces_of_ids(ids, tokenizer)), tools)
    return replace(message, token_ids=tuple(ids)), error


def _pieces_of_ids(ids: Sequence[int], tokenizer: Tokenizer) -> Iterator[str]:
    for piece in tokenizer.decode_pieces(ids):
        if tokenizer.spells_calls and not isinstance(piece, Special):
            yield from _pieces(piece, _CALL_MARKUP)
        else:
            yield piece


def parse_reply(text: str, tools: Sequence[ToolSpec]) -> tuple[Message, str | None]:
    """Read a reply that follows the generation prompt (an opening `<think>` is allowed).

    Returns:
        The message, and a sentence that says what was expected and what came, or None when the
        reply is well formed. With an error the message has no tool calls; its content is all
        that followed the thinking.
    """
    return _parse(_pieces(text, _MARKUP), tools)


def _markup(specials: Sequence[Special]) -> re.Pattern[str]:
    """Finds whole parameters, and markers elsewhere."""
    return re.compile(
        rf'({PARAMETER})([^"\n]*">.*?)({END_PARAMETER})(?=\s*(?:{PARAMETER}|{END_INVOKE}))'
        rf"|({'|'.join(map(re.escape, specials))})",
        re.DOTALL,
    )


_MARKUP, _CALL_MARKUP = _markup(SPECIALS), _markup(CALL_MARKERS)


def _pieces(text: str, markup: re.Pattern[str]) -> list[str]:
    pieces: list[str] = []
    position = 0
    for match in markup.finditer(text):
        pieces.append(text[position : match.start()])
        if match[1]:
            pieces += (PARAMETER, match[2], END_PARAMETER)
        else:
            pieces.append(Special(match[4]))
        position = match.end()
    return [piece for piece in (*pieces, text[position:]) if piece]


def _is(piece: str, special: Special) -> bool:
    return isinstance(piece, Special) and piece == special


def _parse(pieces: list[str], tools: Sequence[ToolSpec]) -> tuple[Message, str | None]:
    if pieces and _is(pieces[-1], END_MESSAGE):
        pieces = pieces[:-1]
    if pieces and _is(pieces[0], THINK):
        pieces = pieces[1:]
        if pieces and not isinstance(pieces[0], Special):
            pieces[0] = pieces[0].removeprefix("\n")
    thinking = list(takewhile(lambda piece: not _is(piece, END_THINK), pieces))
    reasoning = "".join(thinking).removesuffix("\n")
    if len(thinking) == len(pieces):
        return Message(role="assistant", reasoning=reasoning), (
            f"expected {END_THINK} after the thinking, got the end of the reply"
        )
    rest = pieces[len(thinking) + 1 :]
    before = list(takewhile(lambda piece: not _is(piece, TOOL_CALL), rest))
    content = re.sub(r"\A\n{1,2}", "", "".join(before))
    if len(before) == len(rest):
        return Message(role="assistant", content=content, reasoning=reasoning), None
    try:
        calls = _CallReader(rest[len(before) + 1 :], tools).read()
    except ArgumentError as error:
        everything = re.sub(r"\A\n{1,2}", "", "".join(rest))
        return Message(role="assistant", content=everything, reasoning=reasoning), str(error)
    return Message(
        role="assistant",
        content=content.removesuffix("\n"),
        reasoning=reasoning,
        tool_calls=calls,
    ), None


class _CallReader:
    """Reads what stands between `<minimax:tool_call>` and the end of the reply."""

    def __init__(self, pieces: Sequence[str], tools: Sequence[ToolSpec]) -> None:
        self._pieces = deque(pieces)
        self._tools = {tool.name: tool for tool in tools}

    def read(self) -> tuple[ToolCall, ...]:
        """The calls; raises `ArgumentError` when the format or a tool's schema is broken."""
        calls: list[ToolCall] = []
        self._space(f"{INVOKE}...")
        while not calls or self._at(INVOKE):
            calls.append(self._call())
        self._take(END_TOOL_CALL)
        self._space("the end of the message")
        if self._pieces:
            raise ArgumentError(f"expected the end of the message, got {shorten(self._pieces[0])}")
        return tuple(calls)

    def _call(self) -> ToolCall:
        self._take(INVOKE)
        name, rest = self._name()
        if name not in self._tools:
            raise ArgumentError(
                f"expected one of the tools {', '.join(self._tools) or '(none)'}, "
                f"got {shorten(name)}"
            )
        self._pieces.appendleft(rest)
        self._space(f"{PARAMETER}... or {END_INVOKE}")
        texts: dict[str, str] = {}
        while self._at(PARAMETER):
            self._parameter(texts)
        self._take(END_INVOKE)
        self._space(f"{INVOKE}... or {END_TOOL_CALL}")
        return ToolCall(name=name, arguments=cast_arguments(self._tools[name], texts))

    def _parameter(self, texts: dict[str, str]) -> None:
        self._take(PARAMETER)
        name, text = self._name()
        if name in texts:
            raise ArgumentError(f"expected the parameter {shorten(name)} once, got it twice")
        texts[name] = text
        self._take(END_PARAMETER)
        self._space(f"{PARAMETER}... or {END_INVOKE}")

    def _name(self) -> tuple[str, str]:
        """The name up to `">`, and the text after it."""
        text = self._text()
        name, closed, rest = text.partition('">')
        if not closed:
            raise ArgumentError(f'expected a name and ">, got {shorten(text)}')
        return name, rest

    def _at(self, special: Special) -> bool:
        return bool(self._pieces) and _is(self._pieces[0], special)

    def _take(self, special: Special) -> None:
        if not self._at(special):
            got = shorten(self._pieces[0]) if self._pieces else "the end of the reply"
            raise ArgumentError(f"expected {special}, got {got}")
        self._pieces.popleft()

    def _text(self) -> str:
        if self._pieces and not isinstance(self._pieces[0], Special):
            return self._pieces.popleft()
        return ""

    def _space(self, expected: str) -> None:
        text = self._text()
        if text.strip():
            raise ArgumentError(f"expected {expected}, got {shorten(text.strip())}")
