"""Work done at the same time, with results in the order it was given."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


AHEAD = 4
"""How many times `at_once` results may wait for an earlier one. A straggler holds up nobody, and
little is done again where a run is killed."""


@asynccontextmanager
async def in_order(
    work: Callable[[ItemT], Awaitable[ResultT]], items: Iterable[ItemT], *, at_once: int
) -> AsyncIterator[AsyncIterator[ResultT]]:
    """Results of `work` in the order of `items`, up to `at_once` of them under way.

    What is still under way when the block is left is cancelled and waited for.
    """
    window: deque[asyncio.Future[ResultT]] = deque()

    def busy() -> list[asyncio.Future[ResultT]]:
        return [future for future in window if not future.done()]

    async def results() -> AsyncGenerator[ResultT, None]:
        rest = iter(items)
        while True:
            while len(busy()) < at_once and len(window) < AHEAD * at_once:
                try:
                    window.append(asyncio.ensure_future(work(next(rest))))
                except StopIteration:
                    break
            if not window:
                return
            if window[0].done():
                yield window.popleft().result()
            else:
                await asyncio.wait(busy(), return_when=asyncio.FIRST_COMPLETED)

    stream = results()
    try:
        yield stream
    finally:
        for future in window:
            future.cancel()
        await asyncio.gather(*window, return_exceptions=True)
        await stream.aclose()
