"""What one request is answered with: prompts rendered, choices sampled, pieces shaped.

Knows the engine and the tokenizer; `app.py` has the endpoints.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from ..chat import render
from ..engine import AsyncEngine, EngineError, GenRequest, LogitMask
from ..grammar import CallGrammar
from ..tokenizer import Tokenizer
from .answer import Piece, chat_pieces, plain_pieces
from .merging import chain, collect, merge, unless_gone
from .replies import Answer, event, refusal, usage
from .shape import ChatShape, TextShape
from .wire import ChatRequest, CompletionRequest, Sampling

Pieces = Callable[[GenRequest], AsyncIterator[Piece]]
GONE = 499
"""The status of an answer that nobody waits for any more, as nginx counts it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """What the application serves."""

    name: str
    """Of the model, as clients see it; they may ask for any."""
    fingerprint: str
    """Of the weights; becomes `system_fingerprint`."""
    context: int
    """Tokens of prompt and completion together."""
    vocab_size: int
    """Of the model."""


class Service:
    """Turns a request into an answer."""

    def __init__(self, engine: AsyncEngine, tokenizer: Tokenizer, settings: ServerSettings) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._settings = settings

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """A reply to a conversation."""
        try:
            messages, mask = body.conversation(), self._grammar(body)
        except ValueError as error:
            return refusal(400, str(error))
        tools = body.offered
        prompt = render(messages, tools, self._tokenizer, add_generation_prompt=True)
        room = self._settings.context - len(prompt)
        pieces = partial(
            chat_pieces, self._engine, stops=body.stops, tokenizer=self._tokenizer, tools=tools
        )
        shape = ChatShape(self._tokenizer, logprobs=body.logprobs, token_ids=body.return_token_ids)
        limit = body.max_completion_tokens or body.max_tokens or max(1, room)
        top = body.top_logprobs if body.logprobs else 0
        return await self._answer(body, request, [prompt], limit, top, pieces, shape, mask)

    def _grammar(self, body: ChatRequest) -> Callable[[], CallGrammar] | None:
        """Makes the mask of each choice; None = anything may be said."""
        if not (body.must_call or body.constrain_calls or body.one_call):
            return None
        make = partial(
            CallGrammar,
            body.callable,
            self._tokenizer,
            self._settings.vocab_size,
            required=body.must_call,
            single=body.one_call,
        )
        make()  # tells at once what is wrong with the tools
        return make

    async def complete(self, body: CompletionRequest, request: Request) -> Response:
        """Completions of one or several texts."""
        prompts = [
            self._tokenizer.encode(each) if isinstance(each, str) else each for each in body.prompts
        ]
        pieces = partial(
            plain_pieces,
            self._engine,
            stops=body.stops,
            tokenizer=self._tokenizer,
            echo=body.echo,
            empty=body.max_tokens == 0,
        )
        shape = TextShape(
            self._tokenizer,
            logprobs=body.logprobs is not None,
            token_ids=body.return_token_ids,
        )
        top = body.logprobs or 0
        limit = max(1, body.max_tokens)
        return await self._answer(body, request, prompts, limit, top, pieces, shape)

    async def _answer(
        self,
        body: Sampling,
        request: Request,
        prompts: Sequence[Sequence[int]],
        limit: int,
        top: int,
        pieces: Pieces,
        shape: ChatShape | TextShape,
        mask: Callable[[], LogitMask] | None = None,
    ) -> Response:
        try:
            wanted = [
                each for ids in prompts for each in self._requests(body, ids, limit, top, mask)
            ]
        except ValueError as error:
            return refusal(400, str(error))
        head = self._head(body, prompts, shape)
        given = sum(map(len, prompts))
        events = merge([pieces(each) for each in wanted])
        if body.stream:
            # A refused request fails before the stream begins.
            first = await unless_gone(request, anext(events))
            if first is None:
                return Response(status_code=GONE)
            chunks = _stream(
                chain(first, events), head | {"object": shape.chunk}, shape, body, given
            )
            return StreamingResponse(chunks, media_type="text/event-stream")
        parts = await unless_gone(request, collect(events, len(wanted)))
        if parts is None:
            return Response(status_code=GONE)
        made = sum(len(piece.tokens) for part in parts for piece in part)
        choices = [shape.choice(at, part, streamed=False) for at, part in enumerate(parts)]
        whole = {"object": shape.whole, "choices": choices, "usage": usage(given, made)}
        return Answer(head | whole)

    def _head(
        self, body: Sampling, prompts: Sequence[Sequence[int]], shape: ChatShape | TextShape
    ) -> dict[str, Any]:
        head: dict[str, Any] = {
            "id": f"{shape.prefix}-{uuid4().hex}",
            "created": int(time.time()),
            "model": self._settings.name,
            "system_fingerprint": self._settings.fingerprint,
        }
        if body.return_token_ids:
            several = isinstance(body, CompletionRequest) and body.several
            ids = [list(each) for each in prompts]
            head["prompt_token_ids"] = ids if several else ids[0]
        return head

    def _requests(
        self,
        body: Sampling,
        prompt: Sequence[int],
        limit: int,
        top: int,
        mask: Callable[[], LogitMask] | None,
    ) -> list[GenRequest]:
        seed = random.getrandbits(48) if body.seed is None else body.seed
        return [
            GenRequest(
                prompt_ids=tuple(prompt),
                max_tokens=limit,
                temperature=body.temperature,
                top_p=body.top_p,
                top_k=body.top_k,
                repetition_penalty=body.repetition_penalty,
                frequency_penalty=body.frequency_penalty,
                presence_penalty=body.presence_penalty,
                logit_bias=body.logit_bias or {},
                mask=mask() if mask else None,
                seed=seed + choice,
                stop_ids=frozenset({self._tokenizer.eos_id}),
                top_logprobs=top,
                prompt_logprobs=body.scores_prompt,
                client=body.user,
            )
            for choice in range(body.n)
        ]


async def _stream(
    events: AsyncIterator[tuple[int, Piece]],
    head: dict[str, Any],
    shape: ChatShape | TextShape,
    body: Sampling,
    prompt: int,
) -> AsyncIterator[bytes]:
    made = 0
    try:
        async for index, piece in events:
            made += len(piece.tokens)
            yield event(head | {"choices": [shape.choice(index, [piece], streamed=True)]})
    except EngineError as error:  # too late for a status
        yield event({"error": {"message": str(error), "type": "server_error"}})
    if body.wants_usage:
        yield event(head | {"choices": [], "usage": usage(prompt, made)})
    yield b"data: [DONE]\n\n"
