"""Batched generation against the plain forward pass, and requests against each other."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from rollmill.model.config import ModelConfig
from rollmill.model.engine import (
    AsyncEngine,
    Engine,
    EngineError,
    GenRequest,
    GenResult,
    PromptTooLong,
)
from rollmill.model.model import Model

MakeConfig = Callable[..., ModelConfig]


@pytest.fixture(scope="module")
def model(make_config: MakeConfig) -> Model:
    torch.manual_seed(0)
    return Model(make_config())


@pytest.fixture
def engine(model: Model) -> Engine:
    return Engine(model, slots=4, step_tokens=16)


@pytest.fixture
def front(engine: Engine) -> Iterator[AsyncEngine]:
    with AsyncEngine(engine) as front:
        yield front


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, 97, (length,), generator=rng).tolist())


def forward_logits(model: Model, request: GenRequest, result: GenResult) -> torch.Tensor:
    """The logits behind each sampled token, from one plain forward pass."""
    tokens = torch.tensor(request.prompt_ids + result.token_ids)
    with torch.no_grad():
        logits: torch.Tensor = model(tokens, [len(tokens)])
    return logits[len(request.prompt_ids) - 1 : -1]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 63])
def test_greedy_equals_step_by_step_argmax(length: int, engine: Engine, model: Model) -> None:
    request = GenRequest(prompt_ids=prompt(length), max_tokens=20, temperature=0)
    (result,) = engine.generate([request])
    assert len(result.token_ids) == 20
    assert forward_logits(model, request, result).argmax(-1).tolist() == list(result.token_ids)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_logprobs_are_those_of_the_whole_distribution(
    temperature: float, engine: Engine, model: Model
) -> None:
    request = GenRequest(
        prompt_ids=prompt(21), max_tokens=30, temperature=temperature, top_k=5, top_p=0.8, seed=3
    )
    (result,) = engine.generate([request])
    scores = (forward_logits(model, request, result) / temperature).log_softmax(-1)
    expected = scores.gather(1, torch.tensor(result.token_ids)[:, None]).squeeze(1)
    torch.testing.assert_close(torch.tensor(result.logprobs), expected, rtol=1e-4, atol=1e-4)


def test_a_request_gets_the_same_tokens_alone_and_in_a_crowd(model: Model) -> None:
    requests = [
        GenRequest(
            prompt_ids=prompt(3 + 5 * seed, seed), max_tokens=8 + seed, seed=seed, top_k=seed
        )
        for seed in range(11)
    ]
    crowd = Engine(model, slots=4, step_tokens=16).generate(requests)
    for request, together in zip(requests, crowd, strict=True):
        (alone,) = Engine(model, slots=1).generate([request])
        assert alone.token_ids == together.token_ids
        assert alone.logprobs == pytest.approx(together.logprobs, abs=1e-4)


def test_seeds_differ(engine: Engine) -> None:
    requests = [GenRequest(prompt_ids=prompt(9), max_tokens=12, seed=seed) for seed in (1, 2)]
    first, second = engine.generate(requests)
    assert first.token_ids != second.token_ids


def test_a_stop_id_ends_the_answer_and_is_kept(engine: Engine) -> None:
    request = GenRequest(prompt_ids=prompt(9), max_tokens=12, temperature=0)
    (free,) = engine.generate([request])
    stop = free.token_ids[5]
    first = free.token_ids.index(stop)
    (result,) = engine.generate(
        [GenRequest(prompt_ids=prompt(9), max_tokens=12, temperature=0, stop_ids=frozenset({stop}))]
    )
    assert (free.finish_reason, result.finish_reason) == ("length", "stop")
    assert result.token_ids == free.token_ids[: first + 1]


def test_a_conversation_goes_on_without_computing_its_past_again(
    engine: Engine, model: Model
) -> None:
    first = GenRequest(prompt_ids=prompt(30), max_tokens=10, temperature=0)
    (answer,) = engine.generate([first])
    longer = first.prompt_ids + answer.token_ids + prompt(12, seed=5)
    others = [GenRequest(prompt_ids=prompt(20, seed), max_tokens=5) for seed in (7, 8)]
    second = GenRequest(prompt_ids=longer, max_tokens=10, temperature=0)
    result = engine.generate([*others, second])[-1]
    assert result.cached_tokens == 30 + 10 - 1  # the last token was never fed
    assert forward_logits(model, second, result).argmax(-1).tolist() == list(result.token_ids)


def test_a_group_shares_its_prompt_and_a_branch_its_beginning(engine: Engine, model: Model) -> None:
    base = prompt(40)
    engine.generate([GenRequest(prompt_ids=base, max_tokens=4)])
    branches = [
        GenRequest(prompt_ids=base[:25] + prompt(9, seed), max_tokens=9, temperature=0)
        for seed in range(1, 7)
    ]
    for branch, result in zip(branches, engine.generate(branches), strict=True):
        assert result.cached_tokens >= 25
        greedy = forward_logits(model, branch, result).argmax(-1).tolist()
        assert greedy == list(result.token_ids)


def test_the_same_prompt_again_is_all_cached_but_its_last_token(engine: Engine) -> None:
    request = GenRequest(prompt_ids=prompt(30), max_tokens=3, temperature=0)
    first, second = (engine.generate([request])[0] for _ in range(2))
    assert (first.cached_tokens, second.cached_tokens) == (0, 29)
    assert first.token_ids == second.token_ids


def test_a_full_context_ends_the_answer(engine: Engine) -> None:
    (result,) = engine.generate([GenRequest(prompt_ids=prompt(120), max_tokens=50)])
    assert (len(result.token_ids), result.finish_reason) == (8, "length")


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (prompt(128), PromptTooLong, "fewer than 128 tokens, got 128"),
        ((1, 97), EngineError, "below 97"),
        ((-1, 5), EngineError, "below 97"),
    ],
    ids=["too long", "unknown", "negative"],
)
async def test_a_bad_request_fails_alone(
    ids: tuple[int, ...], error: type[EngineError], message: str, front: AsyncEngine
) -> None:
    good = GenRequest(prompt_ids=prompt(9), max_tokens=12)
    bad = GenRequest(prompt_ids=ids, max_tokens=12)
    first, broken, last = await asyncio.gather(
        *(front.complete(each) for each in (good, bad, good)), return_exceptions=True
    )
    assert isinstance(broken, error)
    assert message in str(broken)
    assert isinstance(first, GenResult)
    assert isinstance(last, GenResult)
    assert first.token_ids == last.token_ids


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_ids": ()},
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"temperature": float("nan")},
    ],
    ids=str,
)
def test_a_senseless_setting_is_refused_by_name(change: dict[str, object]) -> None:
    settings: dict[str, object] = {"prompt_ids": (1,), "max_tokens": 1}
    with pytest.raises(ValueError, match=next(iter(change))):
        GenRequest(**(settings | change))  # type: ignore[arg-type]


async def test_a_cancelled_request_frees_its_place(model: Model) -> None:
    def slowly(token_ids: Sequence[int]) -> None:
        time.sleep(0.01)  # a request of a second

    with AsyncEngine(Engine(model, slots=1)) as front:
        long = GenRequest(prompt_ids=prompt(9), max_tokens=100, mask=slowly)
        running = asyncio.create_task(front.complete(long))
        queued = asyncio.create_task(front.complete(long))
        await asyncio.sleep(0.01)
        running.cancel()
        queued.cancel()
        result = await front.complete(GenRequest(prompt_ids=prompt(5), max_tokens=3))
        assert len(result.token_ids) == 3
        await asyncio.gather(running, queued, return_exceptions=True)
        assert running.cancelled()
        assert queued.cancelled()


def test_requests_come_from_many_event_loops(front: AsyncEngine) -> None:
    request = GenRequest(prompt_ids=prompt(9), max_tokens=5, seed=2)
    first, second = (asyncio.run(front.complete(request)) for _ in range(2))
    assert first.token_ids == second.token_ids


async def test_closing_fails_what_runs_and_refuses_what_comes(engine: Engine) -> None:
    front = AsyncEngine(engine)
    running = [
        asyncio.create_task(front.complete(GenRequest(prompt_ids=prompt(5), max_tokens=120)))
        for _ in range(9)
    ]
    await asyncio.sleep(0)
    await asyncio.to_thread(front.close)
    front.close()
    results = await asyncio.gather(*running, return_exceptions=True)
    assert any(isinstance(result, EngineError) for result in results)
    with pytest.raises(EngineError, match="closed"):
        await front.complete(GenRequest(prompt_ids=(1,), max_tokens=1))


async def test_weights_that_are_no_numbers_give_errors_and_the_engine_lives(
    make_config: MakeConfig,
) -> None:
    model = Model(make_config())
    head = model.lm_head.weight.detach().clone()
    with AsyncEngine(Engine(model, slots=2)) as front:
        request = GenRequest(prompt_ids=prompt(5), max_tokens=3)
        model.lm_head.weight.data.fill_(float("nan"))
        with pytest.raises(EngineError, match="finite logits"):
            await front.complete(request)
        model.lm_head.weight.data.copy_(head)
        assert len((await front.complete(request)).token_ids) == 3


async def test_a_failing_forward_pass_fails_its_requests_and_the_engine_lives(
    make_config: MakeConfig,
) -> None:
    model = Model(make_config())
    whole = model.lm_head.weight.data
    with AsyncEngine(Engine(model, slots=2, native=False)) as front:
        request = GenRequest(prompt_ids=prompt(5), max_tokens=3)
        model.lm_head.weight.data = whole[:, :7]
        with pytest.raises(EngineError, match="the engine failed"):
            await front.complete(request)
        model.lm_head.weight.data = whole
        assert len((await front.complete(request)).token_ids) == 3


def test_bf16_generates(model: Model, make_config: MakeConfig) -> None:
    narrow = Model(make_config())
    for param in narrow.parameters():
        param.data = param.data.bfloat16()
    (result,) = Engine(narrow).generate([GenRequest(prompt_ids=prompt(20), max_tokens=5)])
    assert len(result.token_ids) == 5
