"""Results come in the order of the work, and nothing goes on once the block is left."""

import asyncio

import pytest

from rollmill.flows.ordered import in_order


async def test_results_keep_the_order_and_the_limit_holds() -> None:
    under_way = 0
    most = 0

    async def work(item: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.002 * (7 - item % 7))
        under_way -= 1
        return item

    async with in_order(work, range(63), at_once=5) as results:
        assert [result async for result in results] == list(range(63))
    assert most == 5


async def test_a_straggler_holds_up_nobody_for_a_while() -> None:
    begun: list[int] = []
    straggler = asyncio.Event()

    async def work(item: int) -> int:
        begun.append(item)
        if item == 0:
            await straggler.wait()
        elif item == 7:
            straggler.set()
        return item

    async with asyncio.timeout(10), in_order(work, range(20), at_once=2) as results:
        assert await anext(results) == 0
        assert begun == list(range(8))  # and not all of them: the results take room
        assert [result async for result in results] == list(range(1, 20))


async def test_leaving_early_cancels_what_is_under_way() -> None:
    ended: list[int] = []

    async def work(item: int) -> int:
        try:
            await asyncio.sleep(0 if item == 0 else 60)
        finally:
            ended.append(item)
        return item

    async with in_order(work, range(100), at_once=4) as results:
        async for _ in results:
            break
    assert sorted(ended) == [0, 1, 2, 3]


async def test_an_error_ends_the_others() -> None:
    ended: list[int] = []

    async def work(item: int) -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(item)
            raise
        return item

    async def fail_first(item: int) -> int:
        if item == 0:
            raise ValueError("first")
        return await work(item)

    async def everything() -> None:
        async with in_order(fail_first, range(10), at_once=3) as results:
            async for _ in results:
                pass

    with pytest.raises(ValueError, match="first"):
        await everything()
    assert sorted(ended) in ([1, 2], [])  # a task cancelled before its first step never ran
