"""One choice of an answer: tokens from the engine into text, until a stop text or the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from ..engine import AsyncEngine, GenRequest, Token
from ..messages import ToolCall, ToolSpec
from ..streaming import Delta, ReplyStream
from ..tokenizer import Tokenizer


@dataclass(kw_only=True, slots=True)
class Piece:
    """What one step added to a choice."""

    text: str = ""
    reasoning: str = ""
    tokens: list[Token] = field(default_factory=list)
    prompt: Sequence[tuple[int, Token | None]] = ()
    """The ids of an echoed prompt that was scored; nothing stands before the first."""
    calls: tuple[ToolCall, ...] = ()
    finish: str | None = None
    """`stop`, `length` or `tool_calls` in the last piece."""
    format_error: str | None = None
    """Of the last piece: why the reply could not be read as calls; then `text` shows it raw."""


class TextStops:
    """Finds the first of some texts in a text that comes in pieces."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False

    def feed(self, text: str, *, last: bool = False) -> str:
        """The text that certainly stands before any stop text."""
        if self.found:
            return ""
        self._held += text
        hits = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if hits:
            self.found = True
            return self._held[: min(hits)]
        keep = 0 if last else max((_overlap(self._held, stop) for stop in self._stops), default=0)
        sure = self._held[: len(self._held) - keep]
        self._held = self._held[len(sure) :]
        return sure


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class PlainStream:
    """Text of ids, told when no later id can change it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._run: list[int] = []

    def feed(self, token_id: int) -> str:
        """The text that became certain."""
        self._run.append(token_id)
        text = self._tokenizer.decode(self._run)
        if text.endswith("\ufffd") and self._tokenizer.special(token_id) is None:
            return ""
        self._run.clear()
        return text

    def finish(self) -> str:
        """What was not certain."""
        return self._tokenizer.decode(self._run)


async def plain_pieces(
    engine: AsyncEngine,
    request: GenRequest,
    stops: Sequence[str],
    tokenizer: Tokenizer,
    *,
    echo: bool = False,
    empty: bool = False,
) -> AsyncIterator[Piece]:
    """A completion of a text, behind its prompt when `echo`; its end of message is not shown.

    Args:
        empty: show nothing of what is made, for the sake of the prompt's scores.
    """
    stream, found = PlainStream(tokenizer), TextStops(stops)
    before = tokenizer.decode(request.prompt_ids) if echo else ""
    ended = False
    async with aclosing(engine.stream(request)) as tokens:
        if request.prompt_logprobs:
            scored = [await anext(tokens) for _ in request.prompt_ids[1:]]
            ids = zip(request.prompt_ids, [None, *scored], strict=True)
            yield Piece(text=before, prompt=tuple(ids))
            before = ""
        async for token in tokens:
            if empty:
                yield Piece(text=before, finish="length")
                return
            ended = token.token_id in request.stop_ids
            text = "" if ended else stream.feed(token.token_id)
            yield Piece(text=before + found.feed(text), tokens=[token])
            before = ""
            if found.found:
                yield Piece(finish="stop")
                return
    rest = found.feed(stream.finish(), last=True)
    yield Piece(text=rest, finish="stop" if ended or found.found else "length")


async def chat_pieces(
    engine: AsyncEngine,
    request: GenRequest,
    stops: Sequence[str],
    tokenizer: Tokenizer,
    tools: Sequence[ToolSpec],
) -> AsyncIterator[Piece]:
    """A reply in the chat format; calls come whole in the last piece."""
    stream, found = ReplyStream(tools, tokenizer), TextStops(stops)
    ended = False
    async with aclosing(engine.stream(request)) as tokens:
        async for token in tokens:
            ended = token.token_id in request.stop_ids
            delta = stream.feed(token.token_id)
            yield Piece(text=found.feed(delta.content), reasoning=delta.reasoning, tokens=[token])
            if found.found:
                yield Piece(finish="stop")
                return
    rest, message, error = stream.finish()
    yield _last(rest, message.tool_calls, error, ended, found)


def _last(
    rest: Delta, calls: tuple[ToolCall, ...], error: str | None, ended: bool, found: TextStops
) -> Piece:
    text = found.feed(rest.content, last=True)
    if found.found:
        calls = ()
    finish = "tool_calls" if calls else "stop" if ended or found.found else "length"
    return Piece(
        text=text, reasoning=rest.reasoning, calls=calls, finish=finish, format_error=error
    )
