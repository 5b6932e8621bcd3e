"""An engine behind a thread of its own: requests come from any event loop or thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress

import torch

from .engine import Engine
from .request import EngineError, GenRequest, GenResult, Token
from .stats import EngineStats


class AsyncEngine:
    """Owns an engine and the thread that steps it. Close it, or use it as a context manager."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="rollmill-engine", daemon=True)
        self._thread.start()

    async def complete(self, request: GenRequest) -> GenResult:
        """Complete one request; cancelling the awaiting task frees its place in the batch.

        Raises:
            PromptTooLong: the context has no room for an answer.
            EngineError: this request cannot be answered, or the engine is closed.
        """
        return await asyncio.wrap_future(self._submit(request))

    async def stream(self, request: GenRequest) -> AsyncGenerator[Token]:
        """The tokens of one completion as they are made; closing the generator cancels it.

        A request with `prompt_logprobs` gets `GenResult.prompt_tokens` first.

        Raises: as `complete`.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Token | None] = asyncio.Queue()

        def hear(token: Token | None) -> None:
            with suppress(RuntimeError):  # the loop was closed, so nobody listens
                loop.call_soon_threadsafe(queue.put_nowait, token)

        future = self._submit(request, hear)
        future.add_done_callback(lambda _: hear(None))
        try:
            while (token := await queue.get()) is not None:
                yield token
            future.result(timeout=0)
        finally:
            future.cancel()

    async def swap_weights(
        self, weights: Mapping[str, torch.Tensor], version: int, *, recompute: bool = False
    ) -> None:
        """See `Engine.swap_weights`; returns when the weights are in use.

        Cancelling the awaiting task drops weights that were not taken yet.

        Raises:
            EngineError: as `Engine.swap_weights`, or the engine is closed.
        """
        with self._changed:
            self._refuse_if_closed()
            future = self._engine.swap_weights(weights, version, recompute=recompute)
            self._changed.notify()
        await asyncio.wrap_future(future)

    @property
    def stats(self) -> EngineStats:
        """See `Engine.stats`; a snapshot that may be torn by the step in progress."""
        return self._engine.stats

    def close(self) -> None:
        """Give up what is running and end the thread. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def __enter__(self) -> AsyncEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _submit(
        self, request: GenRequest, on_token: Callable[[Token], None] | None = None
    ) -> Future[GenResult]:
        with self._changed:
            self._refuse_if_closed()
            future = self._engine.submit(request, on_token)
            self._changed.notify()
            return future

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise EngineError("expected an open engine, got one that was closed; make another")

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._engine.step()
            except Exception as error:  # the thread must outlive any failure of a forward pass
                self._engine.fail_all(EngineError(f"the engine failed: {error!r}"))
        self._engine.give_up(EngineError("the engine was closed before it was done"))

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; False when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._engine.busy)
            return not self._closed
