"""Several choices as one stream of pieces, for as long as somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TypeVar

from starlette.requests import Request

from .answer import Piece

T = TypeVar("T")


async def merge(choices: Sequence[AsyncIterator[Piece]]) -> AsyncIterator[tuple[int, Piece]]:
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


async def chain(
    first: tuple[int, Piece], rest: AsyncIterator[tuple[int, Piece]]
) -> AsyncIterator[tuple[int, Piece]]:
    """What was already taken, and what follows it."""
    yield first
    async for each in rest:
        yield each


async def collect(events: AsyncIterator[tuple[int, Piece]], count: int) -> list[list[Piece]]:
    """All pieces of each of `count` choices."""
    parts: list[list[Piece]] = [[] for _ in range(count)]
    async for index, piece in events:
        parts[index].append(piece)
    return parts


async def unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """What `work` gives; None when the client hangs up first, and then the work is cancelled."""
    doing, gone = asyncio.ensure_future(work), asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait([doing, gone], return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        gone.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
