"""Answers as OpenAI's clients read them, whole and in chunks."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from ..engine import Token
from ..messages import ToolCall
from ..tokenizer import Tokenizer
from .answer import Piece, PlainStream


class ChatShape:
    """Chat completions."""

    whole, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool, token_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._token_ids = token_ids

    def choice(self, index: int, pieces: Sequence[Piece], *, streamed: bool) -> dict[str, Any]:
        """Some pieces of a choice, or all of it."""
        text = "".join(piece.text for piece in pieces)
        thinking = "".join(piece.reasoning for piece in pieces)
        tokens = [token for piece in pieces for token in piece.tokens]
        message: dict[str, Any] = {"role": "assistant"}
        if text or not streamed:
            message["content"] = text
        if thinking:
            message["reasoning_content"] = thinking
        if calls := [call for piece in pieces for call in piece.calls]:
            message["tool_calls"] = [_call(at, call, streamed) for at, call in enumerate(calls)]
        last = pieces[-1]
        choice: dict[str, Any] = {
            "index": index,
            "delta" if streamed else "message": message,
            "finish_reason": last.finish,
            "logprobs": None,
        }
        if self._logprobs:
            choice["logprobs"] = {"content": [self._logprob(token) for token in tokens]}
        if self._token_ids:
            choice["token_ids"] = [token.token_id for token in tokens]
        if last.format_error:
            choice["format_error"] = last.format_error
        return choice

    def _logprob(self, token: Token) -> dict[str, Any]:
        return self._scored(token.token_id, token.logprob) | {
            "top_logprobs": [self._scored(*each) for each in token.top]
        }

    def _scored(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self._tokenizer.decode([token_id])
        raw = _bytes(self._tokenizer, token_id)
        return {"token": text, "logprob": logprob, "bytes": list(raw)}


class TextShape:
    """Completions of a text."""

    whole, chunk, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool, token_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._token_ids = token_ids
        self._offsets: defaultdict[int, _Offsets] = defaultdict(lambda: _Offsets(tokenizer))

    def choice(self, index: int, pieces: Sequence[Piece], *, streamed: bool) -> dict[str, Any]:
        """The next pieces of a choice, or all of it; chunks look like the whole."""
        tokens = [token for piece in pieces for token in piece.tokens]
        choice: dict[str, Any] = {
            "index": index,
            "text": "".join(piece.text for piece in pieces),
            "finish_reason": pieces[-1].finish,
            "logprobs": self._scores(index, pieces) if self._logprobs else None,
        }
        if self._token_ids:
            choice["token_ids"] = [token.token_id for token in tokens]
        return choice

    def _scores(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        offsets = self._offsets[index]
        prompt = [each for piece in pieces for each in piece.prompt]
        made = [(token.token_id, token) for piece in pieces for token in piece.tokens]
        places = [offsets.of(token_id) for token_id, _ in prompt]
        if prompt:
            offsets.close()
        scored = [*prompt, *made]
        return {
            "tokens": [self._name(token_id) for token_id, _ in scored],
            "token_logprobs": [token and token.logprob for _, token in scored],
            "top_logprobs": [token and self._top(token) for _, token in scored],
            "text_offset": [*places, *(offsets.of(token_id) for token_id, _ in made)],
        }

    def _top(self, token: Token) -> dict[str, float]:
        return {self._name(token_id): logprob for token_id, logprob in token.top}

    def _name(self, token_id: int) -> str:
        """The token's text, or its bytes as OpenAI writes those that are part of a character."""
        raw = _bytes(self._tokenizer, token_id)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class _Offsets:
    """Where the tokens of a choice begin in its text, in characters, one after another.

    Tokens that share a character begin where it does.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = PlainStream(tokenizer)
        self._at = 0

    def of(self, token_id: int) -> int:
        """Of the next token."""
        at = self._at
        self._at += len(self._stream.feed(token_id))
        return at

    def close(self) -> None:
        """Share no character between what came and what comes."""
        self._at += len(self._stream.finish())
        self._stream = PlainStream(self._tokenizer)


def _bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """What a token stands for, markers spelled out; empty for an id beyond the tokenizer's."""
    special = tokenizer.special(token_id)
    return (tokenizer.token_bytes(token_id) or b"") if special is None else special.encode()


def _call(index: int, call: ToolCall, streamed: bool) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    shaped = {"id": f"call_{uuid4().hex[:24]}", "type": "function", "function": function}
    return {"index": index, **shaped} if streamed else shaped
