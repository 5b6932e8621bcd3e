"""Work done at the same time, with results in the order it was given."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@asynccontextmanager
async def in_order(
    work: Callable[[ItemT], Awaitable[ResultT]], items: Iterable[ItemT], *, at_once: int
) -> AsyncIterator[AsyncIterator[ResultT]]:
    """Results of `work` in the order of `items`, up to `at_once` of them under way.

    What is still under way when the block is left is cancelled and waited for.
    """
    window: deque[asyncio.Future[ResultT]] = deque()

    async def results() -> AsyncGenerator[ResultT, None]:
        for item in items:
            window.append(asyncio.ensure_future(work(item)))
            if len(window) >= at_once:
                yield await window[0]
                window.popleft()
        while window:
            yield await window[0]
            window.popleft()

    stream = results()
    try:
        yield stream
    finally:
        for future in window:
            future.cancel()
        await asyncio.gather(*window, return_exceptions=True)
        await stream.aclose()
