"""The HTTP application: OpenAI's endpoints over one engine, health and metrics.

No authentication: bind it to an address that only its users reach.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..engine import AsyncEngine, EngineError, PromptTooLong, QueueFull
from ..tokenizer import Tokenizer
from .metrics import Metrics
from .replies import refusal
from .service import ServerSettings, Service
from .wire import ChatRequest, CompletionRequest

_log = logging.getLogger(__name__)


def build_app(engine: AsyncEngine, tokenizer: Tokenizer, settings: ServerSettings) -> FastAPI:
    """The application; whoever made the engine closes it."""
    app = FastAPI(title="rollmill", openapi_url=None)
    metrics = Metrics()
    service = Service(engine, tokenizer, settings)

    app.add_middleware(_Counted, metrics=metrics)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(EngineError, _failed)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await service.chat(body, request)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await service.complete(body, request)

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


class _Counted:
    """Counts answers by endpoint and status; a bug of ours is an answer too, with status 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def note(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                path = getattr(scope.get("route"), "path", "other")
                self._metrics.count(path, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception:  # whatever nobody foresaw: the log has it, the others go on
            _log.exception("a request failed")
            if begun:
                raise
            answer = refusal(500, "the server failed at this request; its log says why")
            await answer(scope, receive, note)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return refusal(400, "; ".join(map(_problem, error.errors())))


def _problem(one: dict[str, Any]) -> str:
    message = one["msg"].removeprefix("Value error, ")
    field = ".".join(map(str, one["loc"][1:]))
    return f"{field}: {message}" if field else message


async def _failed(_: Request, error: Exception) -> Response:
    if isinstance(error, PromptTooLong):
        return refusal(400, str(error), "context_length_exceeded")
    if isinstance(error, QueueFull):
        return refusal(429, str(error))
    return refusal(400 if "token ids" in str(error) else 500, str(error))
