"""A model server on loopback that answers as it is scripted to: real HTTP, no patching."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from rollmill.model import Message
from rollmill.pipelines.rollout.policy import Sampling, TurnRequest
from rollmill.pipelines.rollout.tools import TOOLS

from .handmade import bug_task

SPECS = tuple(tool.spec for tool in TOOLS.values())


@dataclass
class ModelServer:
    url: str = ""
    script: list[Response] = field(default_factory=list)
    """Answers in order; the last one repeats."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    models: Response = field(default_factory=lambda: Response(status_code=404))


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    app, state = FastAPI(), ModelServer()

    @app.get("/v1/models")
    async def models() -> Response:
        return state.models

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        state.seen.append(await request.json())
        state.headers.append(dict(request.headers))
        return state.script.pop(0) if len(state.script) > 1 else state.script[0]

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        state.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        running = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        serving = asyncio.create_task(running.serve(sockets=[listener]))
        while not running.started:
            await asyncio.sleep(0.01)
        yield state
        running.should_exit = True
        await serving


@pytest.fixture
def request_() -> TurnRequest:
    task = bug_task()
    return TurnRequest(
        messages=(Message(role="user", content=task.instruction),),
        tools=SPECS,
        sampling=Sampling(seed=7),
        task=task,
        turn_index=0,
    )
