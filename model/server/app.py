"""The HTTP application: OpenAI's endpoints over one engine, health and metrics.

No authentication: bind it to an address that only its users reach.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from ..chat import render
from ..engine import AsyncEngine, EngineError, GenRequest, LogitMask, PromptTooLong, QueueFull
from ..grammar import CallGrammar
from ..tokenizer import Tokenizer
from .answer import Piece, chat_pieces, plain_pieces
from .metrics import Metrics
from .shape import ChatShape, TextShape
from .wire import ChatRequest, CompletionRequest, Sampling

Pieces = Callable[[GenRequest], AsyncIterator[Piece]]


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


def build_app(engine: AsyncEngine, tokenizer: Tokenizer, settings: ServerSettings) -> FastAPI:
    """The application; whoever made the engine closes it."""
    app = FastAPI(title="rollmill", openapi_url=None)
    metrics = Metrics()
    service = _Service(engine, tokenizer, settings)

    @app.middleware("http")
    async def count(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        known = request.scope.get("route")
        metrics.count(getattr(known, "path", "other"), response.status_code)
        return response

    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(EngineError, _failed)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest) -> Response:
        return await service.chat(body)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest) -> Response:
        return await service.complete(body)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        model = {"id": settings.name, "object": "model", "owned_by": "rollmill", "created": 0}
        return {"object": "list", "data": [model | {"max_model_len": settings.context}]}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "version": engine.stats.version}

    @app.get("/metrics")
    async def scrape() -> PlainTextResponse:
        return PlainTextResponse(metrics.text(engine), media_type="text/plain; version=0.0.4")

    return app


class _Service:
    """Turns a request into an answer."""

    def __init__(self, engine: AsyncEngine, tokenizer: Tokenizer, settings: ServerSettings) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._settings = settings

    async def chat(self, body: ChatRequest) -> Response:
        try:
            messages, mask = body.conversation(), self._grammar(body)
        except ValueError as error:
            return _error(400, str(error))
        tools = body.offered
        prompt = render(messages, tools, self._tokenizer, add_generation_prompt=True)
        room = self._settings.context - len(prompt)
        pieces = partial(
            chat_pieces, self._engine, stops=body.stops, tokenizer=self._tokenizer, tools=tools
        )
        shape = ChatShape(self._tokenizer, logprobs=body.logprobs, token_ids=body.return_token_ids)
        limit = body.max_completion_tokens or body.max_tokens or max(1, room)
        top = body.top_logprobs if body.logprobs else 0
        return await self._answer(body, prompt, limit, top, pieces, shape, mask)

    def _grammar(self, body: ChatRequest) -> Callable[[], CallGrammar] | None:
        """Makes the mask of each choice; None = anything may be said."""
        if not body.must_call and not body.constrain_calls:
            return None
        make = partial(
            CallGrammar,
            body.callable,
            self._tokenizer,
            self._settings.vocab_size,
            required=body.must_call,
        )
        make()  # tells at once what is wrong with the tools
        return make

    async def complete(self, body: CompletionRequest) -> Response:
        given = body.prompt
        prompt = self._tokenizer.encode(given) if isinstance(given, str) else given
        pieces = partial(plain_pieces, self._engine, stops=body.stops, tokenizer=self._tokenizer)
        shape = TextShape(
            self._tokenizer,
            logprobs=body.logprobs is not None,
            token_ids=body.return_token_ids,
        )
        return await self._answer(body, prompt, body.max_tokens, body.logprobs or 0, pieces, shape)

    async def _answer(
        self,
        body: Sampling,
        prompt: Sequence[int],
        limit: int,
        top: int,
        pieces: Pieces,
        shape: ChatShape | TextShape,
        mask: Callable[[], LogitMask] | None = None,
    ) -> Response:
        try:
            requests = self._requests(body, prompt, limit, top, mask)
        except ValueError as error:
            return _error(400, str(error))
        head = {
            "id": f"{shape.prefix}-{uuid4().hex}",
            "created": int(time.time()),
            "model": self._settings.name,
            "system_fingerprint": self._settings.fingerprint,
        }
        if body.return_token_ids:
            head["prompt_token_ids"] = list(prompt)
        merged = _merge([pieces(request) for request in requests])
        first = await anext(merged)  # a refused request fails before the stream begins
        events = _chain(first, merged)
        if body.stream:
            lines = _stream(events, head | {"object": shape.chunk}, shape, body, len(prompt))
            return StreamingResponse(lines, media_type="text/event-stream")
        parts: list[list[Piece]] = [[] for _ in requests]
        async for index, piece in events:
            parts[index].append(piece)
        made = sum(len(piece.tokens) for part in parts for piece in part)
        choices = [shape.choice(at, part, streamed=False) for at, part in enumerate(parts)]
        whole = {"object": shape.whole, "choices": choices, "usage": _usage(len(prompt), made)}
        return JSONResponse(head | whole)

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
                client=body.user,
            )
            for choice in range(body.n)
        ]


async def _merge(choices: Sequence[AsyncIterator[Piece]]) -> AsyncIterator[tuple[int, Piece]]:
    """The pieces of several choices as they come. Whoever stops listening cancels them all."""
    queue: asyncio.Queue[tuple[int, Piece | None]] = asyncio.Queue()

    async def pump(index: int, pieces: AsyncIterator[Piece]) -> None:
        async for piece in pieces:
            queue.put_nowait((index, piece))

    async def pump_all() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index, pieces in enumerate(choices):
                    group.create_task(pump(index, pieces))
        finally:
            queue.put_nowait((0, None))

    pumping = asyncio.create_task(pump_all())
    try:
        while (item := await queue.get())[1] is not None:
            yield item[0], item[1]
        await pumping
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    finally:
        pumping.cancel()
        await asyncio.wait([pumping])


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _chain(
    first: tuple[int, Piece], rest: AsyncIterator[tuple[int, Piece]]
) -> AsyncIterator[tuple[int, Piece]]:
    yield first
    async for each in rest:
        yield each


async def _stream(
    events: AsyncIterator[tuple[int, Piece]],
    head: dict[str, Any],
    shape: ChatShape | TextShape,
    body: Sampling,
    prompt: int,
) -> AsyncIterator[str]:
    made = 0
    try:
        async for index, piece in events:
            made += len(piece.tokens)
            yield _event(head | {"choices": [shape.choice(index, [piece], streamed=True)]})
    except EngineError as error:  # too late for a status
        yield _event({"error": {"message": str(error), "type": "server_error"}})
    if body.wants_usage:
        yield _event(head | {"choices": [], "usage": _usage(prompt, made)})
    yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _usage(prompt: int, made: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def _error(status: int, message: str, code: str | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 429 else "server_error"
    detail = {"message": message, "type": kind, "code": code, "param": None}
    headers = {"Retry-After": "1"} if status == 429 else None
    return JSONResponse({"error": detail}, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return _error(400, "; ".join(problems))


async def _failed(_: Request, error: Exception) -> Response:
    if isinstance(error, PromptTooLong):
        return _error(400, str(error), "context_length_exceeded")
    if isinstance(error, QueueFull):
        return _error(429, str(error))
    return _error(400 if "token ids" in str(error) else 500, str(error))
