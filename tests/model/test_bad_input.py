"""Bad input costs the request that brought it, and no other.

Broken configs and weight files: `test_config.py`, `test_checkpoint.py`.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from rollmill.model.config import ModelConfig
from rollmill.model.engine import Engine, EngineError, GenRequest, GenResult, PromptTooLong
from rollmill.model.model import Model
from rollmill.model.mtp import mtp_from_trunk

BAD_TOKEN = 42
START = tuple(range(1, 24))  # one full page and a part of the next


def ask(*ids: int, seed: int = 0) -> GenRequest:
    return GenRequest(prompt_ids=START + ids, max_tokens=8, temperature=0, seed=seed)


@pytest.fixture(scope="module")
def model(make_config: Callable[..., ModelConfig]) -> Model:
    torch.manual_seed(0)
    return Model(make_config())


@pytest.fixture(scope="module")
def expected(model: Model) -> list[tuple[int, ...]]:
    return [each.token_ids for each in Engine(model).generate([ask(50, 51), ask(60), ask(61)])]


@pytest.mark.parametrize("guesses", [0, 2])
@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
def test_a_weight_that_is_no_number_fails_the_prompt_that_reads_it_alone(
    guesses: int, native: bool, model: Model, expected: list[tuple[int, ...]]
) -> None:
    assert all(BAD_TOKEN not in ids for ids in expected)
    row = model.model.embed_tokens.weight.data[BAD_TOKEN].clone()
    model.model.embed_tokens.weight.data[BAD_TOKEN] = float("nan")
    mtp = mtp_from_trunk(model, guesses) if guesses else None
    engine = Engine(model, mtp=mtp, slots=4, native=native)
    bad = engine.submit(ask(BAD_TOKEN, 51))
    good = [engine.submit(each) for each in (ask(50, 51), ask(60))]
    while engine.busy:
        engine.step()
    (later,) = engine.generate([ask(61)])  # goes on from what the bad one computed of its start
    model.model.embed_tokens.weight.data[BAD_TOKEN] = row
    with pytest.raises(EngineError, match="expected finite logits, got NaN"):
        bad.result()
    assert [each.result().token_ids for each in good] == expected[:2]
    assert later.token_ids == expected[2]
    assert later.cached_tokens > 0


def test_every_kind_of_bad_request_leaves_its_neighbours_alone(
    model: Model, expected: list[tuple[int, ...]]
) -> None:
    def broken(token_ids: Sequence[int]) -> torch.Tensor:
        raise KeyError("the caller's mask")

    engine = Engine(model, slots=3)
    refused: list[tuple[GenRequest, type[EngineError], str]] = [
        (ask(*[5] * 200), PromptTooLong, "fewer than 128 tokens, got 223"),
        (ask(97), EngineError, "token ids below 97"),
        (ask(-1), EngineError, "token ids below 97"),
        (ask(2**40), EngineError, "token ids below 97"),
        (
            GenRequest(prompt_ids=(1,), max_tokens=2, logit_bias={97: 1.0}),
            EngineError,
            "logit_bias",
        ),
        (GenRequest(prompt_ids=(1,), max_tokens=2, mask=broken), EngineError, "the caller's mask"),
        (GenRequest(prompt_ids=(1,), max_tokens=2, routes=True), EngineError, "record_routes"),
    ]
    good = engine.submit(ask(50, 51))
    futures = [engine.submit(request) for request, _, _ in refused]
    last = engine.submit(ask(60))
    while engine.busy:
        engine.step()
    for future, (_, kind, message) in zip(futures, refused, strict=True):
        with pytest.raises(kind, match=message):
            future.result(timeout=0)
    assert [good.result().token_ids, last.result().token_ids] == expected[:2]


def beside_a_good_one(model: Model, **settings: Any) -> tuple[Future[GenResult], tuple[int, ...]]:
    """What comes of a request with such settings, and the tokens of its neighbour."""
    engine = Engine(model, slots=2)
    good = engine.submit(ask(50, 51))
    request = {"prompt_ids": (*START, 60), "max_tokens": 8, "top_logprobs": 97, **settings}
    future = engine.submit(GenRequest(**request))
    while engine.busy:
        engine.step()
    return future, good.result(timeout=0).token_ids


@pytest.mark.parametrize("truncation", [{}, {"top_k": 3}, {"top_p": 0.9}], ids=str)
@pytest.mark.parametrize("temperature", [1e-30, 1e-38, 1e-40, 1e-320])
def test_the_coldest_temperatures_are_greedy_and_their_logprobs_numbers(
    temperature: float, truncation: dict[str, Any], model: Model, expected: list[tuple[int, ...]]
) -> None:
    future, neighbour = beside_a_good_one(model, temperature=temperature, **truncation)
    result = future.result(timeout=0)
    assert (result.token_ids, neighbour) == (expected[1], expected[0])
    assert result.logprobs == (0.0,) * 8
    for token in result.tokens:
        assert token.top[0] == (token.token_id, 0.0)
        assert len(token.top) == 97
        assert all(-math.inf < logprob < -1e20 for _, logprob in token.top[1:])


@pytest.mark.parametrize(
    "settings", [{"top_k": 2**70}, {"top_p": 1e-50}, {"temperature": 1e300, "top_k": 3}], ids=str
)
def test_settings_beyond_every_number_type_are_still_answered(
    settings: dict[str, Any], model: Model, expected: list[tuple[int, ...]]
) -> None:
    forbidden = dict.fromkeys(range(0, 97, 2), -math.inf)
    future, neighbour = beside_a_good_one(model, logit_bias=forbidden, **settings)
    assert all(token % 2 for token in future.result(timeout=0).token_ids)
    assert neighbour == expected[0]


@pytest.mark.parametrize("truncation", [{}, {"top_k": 3}, {"top_p": 0.5}], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1e-39},
        {"repetition_penalty": 1e-300},
        {"frequency_penalty": -1e308},
        {"logit_bias": {5: 3e38, 6: 1e39}},
    ],
    ids=str,
)
def test_settings_that_leave_no_finite_logits_fail_their_request_alone(
    settings: dict[str, Any],
    truncation: dict[str, Any],
    model: Model,
    expected: list[tuple[int, ...]],
) -> None:
    future, neighbour = beside_a_good_one(model, **settings, **truncation)
    with pytest.raises(EngineError, match="penalties, bias or mask failed"):
        future.result(timeout=0)
    assert neighbour == expected[0]


@pytest.mark.parametrize("bias", [math.inf, math.nan])
def test_a_bias_that_would_drown_all_others_is_refused(bias: float) -> None:
    with pytest.raises(ValueError, match="finite numbers or -inf"):
        GenRequest(prompt_ids=(1,), max_tokens=1, logit_bias={5: bias})


@pytest.mark.parametrize(
    "sizes",
    [{"context": -5}, {"slots": 0}, {"step_tokens": 1}, {"cache_tokens": 3}, {"max_waiting": -1}],
    ids=str,
)
def test_an_engine_of_sizes_that_make_no_sense_is_refused(
    sizes: dict[str, int], make_config: Callable[..., ModelConfig]
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(sizes))}={next(iter(sizes.values()))}"):
        Engine(Model(make_config()), **{"slots": 2, **sizes})  # type: ignore[arg-type]
