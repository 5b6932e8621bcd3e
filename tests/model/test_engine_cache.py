"""Pages, the radix tree and the queue: what is shared, what is given up, who is next."""

from collections.abc import Callable
from concurrent.futures import Future
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.model.config import ModelConfig
from rollmill.model.engine import GenRequest, GenResult
from rollmill.model.engine.pages import PAGE, Pages
from rollmill.model.engine.queue import FairQueue
from rollmill.model.engine.radix import RadixTree
from rollmill.model.engine.sequence import Running

TOKENS = st.lists(st.integers(0, 2), max_size=70)


@pytest.fixture(scope="module")
def make_pages(make_config: Callable[..., ModelConfig]) -> Callable[[int], Pages]:
    return lambda count: Pages(
        make_config(),
        count=count,
        dtype=torch.float32,
        device=torch.device("cpu"),
        with_routes=False,
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(TOKENS, max_size=12), TOKENS)
def test_a_match_is_the_longest_common_start_of_all_that_was_inserted(
    make_pages: Callable[[int], Pages], inserted: list[list[int]], wanted: list[int]
) -> None:
    pages = make_pages(100)
    tree = RadixTree(pages)
    content: dict[int, list[int]] = {}
    for tokens in inserted:
        mine = [pages.take() for _ in range(0, len(tokens), PAGE)]
        known = tree.match(tokens)
        tree.insert(tokens, mine)
        for page, start in zip(mine, range(0, len(tokens), PAGE), strict=True):
            if pages.holders(page) == 2:
                content[page] = tokens[start : start + PAGE]
        pages.release(mine)
        assert tree.match(tokens).tokens == len(tokens) >= known.tokens
    match = tree.match(wanted)
    longest = max((len(common(tokens, wanted)) for tokens in inserted), default=0)
    assert match.tokens == longest
    held = [token for page in match.pages for token in content[page]]
    if match.partial:
        held += content[match.partial[0]][: match.partial[1]]
    assert held == wanted[:longest]
    assert len(tree) == pages.count - pages.free
    tree.clear()
    assert pages.free == pages.count


def common(left: list[int], right: list[int]) -> list[int]:
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return left[:length]


def test_eviction_takes_the_oldest_unused_leaves_and_no_page_in_use(
    make_pages: Callable[[int], Pages],
) -> None:
    pages = make_pages(8)
    tree = RadixTree(pages)
    used, old, new = ([at] * 2 * PAGE for at in (1, 2, 3))
    kept = [pages.take() for _ in range(2)]
    tree.insert(used, kept)
    for tokens in (old, new):
        mine = [pages.take() for _ in range(2)]
        tree.insert(tokens, mine)
        pages.release(mine)
    tree.match(old)  # now `new` is the oldest
    assert tree.evict(1) == 1
    assert [tree.match(each).tokens for each in (old, new)] == [2 * PAGE, PAGE]
    assert tree.evict(8) == 3
    assert tree.match(used).tokens == 2 * PAGE


def waiting(client: str, size: int = 10, limit: int = 1) -> Running:
    request = GenRequest(prompt_ids=(1,) * size, max_tokens=limit, client=client)
    future: Future[GenResult] = Future()
    return Running(request=request, future=future, on_token=None, rng=Random(0))


def drain(queue: FairQueue) -> list[str]:
    order = []
    while len(queue):
        first = next(queue.in_turn())
        queue.take(first)
        order.append(first.request.client)
    return order


def test_a_crowd_of_one_client_does_not_hold_up_another() -> None:
    queue = FairQueue()
    for client in ["crowd"] * 6 + ["late"] * 3:
        queue.put(waiting(client))
    assert drain(queue)[:6].count("late") == 3


def test_long_requests_count_for_more() -> None:
    queue = FairQueue()
    for client, size in [("long", 40)] * 4 + [("short", 10)] * 8:
        queue.put(waiting(client, size))
    assert drain(queue)[:10].count("short") >= 6


def test_a_high_limit_costs_no_turns_but_what_was_made_does() -> None:
    queue = FairQueue()
    for _ in range(20):
        queue.put(waiting("unlimited", limit=8000))
        queue.put(waiting("brief", limit=8))
    assert drain(queue)[:20].count("unlimited") == 10
    for _ in range(20):
        queue.put(waiting("talks"))
        queue.put(waiting("is silent"))
    queue.charge("talks", 100)
    assert drain(queue)[:20].count("talks") == 5


def test_who_comes_to_an_empty_queue_has_no_credit() -> None:
    queue = FairQueue()
    for _ in range(50):
        queue.put(waiting("steady"))
        drain(queue)
    for client in ["new"] * 10 + ["steady"] * 10:
        queue.put(waiting(client))
    assert drain(queue)[:10].count("steady") >= 4


def test_what_was_given_back_goes_first_and_cancelled_requests_leave() -> None:
    queue = FairQueue()
    first, second, back = waiting("a"), waiting("a"), waiting("b")
    queue.put(first)
    queue.put(second)
    queue.give_back(back)
    first.future.cancel()
    queue.drop_cancelled()
    assert next(queue.in_turn()) is back
    assert drain(queue) == ["b", "a"]
