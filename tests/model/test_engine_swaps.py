"""New weights that never arrive: cancelled, superseded, too late, or no good."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import torch

from rollmill.model.config import ModelConfig
from rollmill.model.engine import AsyncEngine, Engine, EngineError, GenRequest
from rollmill.model.model import Model

REQUEST = GenRequest(prompt_ids=(1, 2, 3), max_tokens=60, temperature=0)


@pytest.fixture(scope="module")
def model(make_config: Callable[..., ModelConfig]) -> Model:
    torch.manual_seed(0)
    return Model(make_config())


@pytest.fixture(scope="module")
def weights(model: Model) -> Mapping[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_cancelled_swap_is_dropped_and_running_requests_go_on(
    model: Model, weights: Mapping[str, torch.Tensor]
) -> None:
    engine = Engine(model)
    running = engine.submit(REQUEST)
    engine.step()
    assert engine.swap_weights(weights, 1).cancel()
    while engine.busy:
        engine.step()
    assert len(running.result(timeout=0).tokens) == 60
    assert engine.version == 0


def test_cancelling_at_any_moment_fails_no_request(
    model: Model, weights: Mapping[str, torch.Tensor]
) -> None:
    async def cancel_after(delay_s: float, front: AsyncEngine) -> int:
        running = asyncio.create_task(front.complete(REQUEST))
        await asyncio.sleep(0.005)  # so that a step is in progress
        swap = asyncio.create_task(front.swap_weights(weights, 1))
        await asyncio.sleep(delay_s)
        swap.cancel()
        return len((await running).tokens)

    async def cancel_often() -> list[int]:
        with AsyncEngine(Engine(model)) as front:
            return [await cancel_after(at % 4 * 1e-4, front) for at in range(20)]

    assert asyncio.run(cancel_often()) == [60] * 20


def test_superseded_weights_fail_and_the_latest_are_taken(
    model: Model, weights: Mapping[str, torch.Tensor]
) -> None:
    engine = Engine(model)
    first, second, third = (engine.swap_weights(weights, version) for version in (1, 2, 3))
    second.cancel()
    engine.step()
    with pytest.raises(EngineError, match="version 1 were superseded by version 2"):
        first.result(timeout=0)
    assert third.result(timeout=0) is None
    assert engine.version == 3


def test_no_swap_waits_for_an_engine_that_was_closed(
    model: Model, weights: Mapping[str, torch.Tensor]
) -> None:
    engine = Engine(model)
    waiting = engine.swap_weights(weights, 1)
    engine.give_up(EngineError("the end"))
    with pytest.raises(EngineError, match="the end"):
        waiting.result(timeout=0)
    assert not engine.busy

    async def too_late() -> None:
        front = AsyncEngine(engine)
        front.close()
        await asyncio.wait_for(front.swap_weights(weights, 1), timeout=30)

    with pytest.raises(EngineError, match="got one that was closed"):
        asyncio.run(too_late())


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_whole(
    number: float, model: Model, weights: Mapping[str, torch.Tensor]
) -> None:
    engine = Engine(model)
    before = engine.generate([REQUEST])
    changed = {name: tensor * 2 for name, tensor in weights.items()}
    changed["lm_head.weight"][3, 5] = number
    refused = engine.swap_weights(changed, 1)
    assert [each.token_ids for each in engine.generate([REQUEST])] == [before[0].token_ids]
    with pytest.raises(EngineError, match=r"expected finite weights.*lm_head\.weight"):
        refused.result(timeout=0)
    assert engine.version == 0
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_weights_of_few_bits_are_refused(
    dtype: torch.dtype, model: Model, weights: Mapping[str, torch.Tensor]
) -> None:
    engine = Engine(model)
    running = engine.submit(REQUEST)
    refused = engine.swap_weights({"lm_head.weight": weights["lm_head.weight"].to(dtype)}, 1)
    engine.step()
    with pytest.raises(EngineError, match="16 bits or more for lm_head"):
        refused.result(timeout=0)
    assert not running.done()
