"""How likely the tokens of a prompt were."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from rollmill.model.config import ModelConfig
from rollmill.model.engine import Engine, EngineError, GenRequest, Token
from rollmill.model.model import Model
from rollmill.model.mtp import MtpModules


@pytest.fixture(scope="module")
def model(make_config: Callable[..., ModelConfig]) -> Model:
    torch.manual_seed(0)
    return Model(make_config())


@pytest.fixture(params=[True, False], ids=["native", "torch"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def ask(length: int, seed: int = 0, **changes: object) -> GenRequest:
    rng = torch.Generator().manual_seed(seed)
    settings: dict[str, object] = {
        "prompt_ids": tuple(torch.randint(0, 97, (length,), generator=rng).tolist()),
        "max_tokens": 5,
        "seed": seed,
        "prompt_logprobs": True,
    }
    return GenRequest(**(settings | changes))  # type: ignore[arg-type]


@torch.no_grad()
def forward(model: Model, request: GenRequest) -> torch.Tensor:
    """[prompt - 1, vocab] fp32, by the plain pass of the model."""
    ids = torch.tensor(request.prompt_ids)
    logits: torch.Tensor = model(ids, [len(ids)])[:-1]
    return (logits / (request.temperature or 1)).log_softmax(-1)


def check(model: Model, request: GenRequest, tokens: tuple[Token, ...] | None) -> None:
    assert tokens is not None
    expected = forward(model, request)
    following = torch.tensor(request.prompt_ids[1:])
    assert [each.token_id for each in tokens] == following.tolist()
    logprobs = torch.tensor([each.logprob for each in tokens])
    chosen = expected.gather(1, following[:, None])[:, 0]
    torch.testing.assert_close(logprobs, chosen, rtol=1e-4, atol=1e-4)
    if request.top_logprobs:
        tops = torch.tensor([[logprob for _, logprob in each.top] for each in tokens])
        likeliest = expected.topk(request.top_logprobs).values
        torch.testing.assert_close(tops, likeliest, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("step_tokens", [16, 300])
def test_scores_are_those_of_the_plain_pass(model: Model, native: bool, step_tokens: int) -> None:
    requests = [
        ask(120, 1, top_logprobs=3),
        ask(40, 2, temperature=0),
        ask(30, 3, prompt_logprobs=False),
        ask(33, 4, temperature=0.5, top_logprobs=1),
        ask(2, 5),
    ]
    engine = Engine(model, step_tokens=step_tokens, native=native)
    results = engine.generate(requests)
    for request, result in zip(requests, results, strict=True):
        if request.prompt_logprobs:
            check(model, request, result.prompt_tokens)
        else:
            assert result.prompt_tokens is None
    plain = engine.generate([replace(each, prompt_logprobs=False) for each in requests])
    assert [each.token_ids for each in plain] == [each.token_ids for each in results]


def test_what_is_cached_is_scored_anew_and_serves_others_afterwards(
    model: Model, native: bool
) -> None:
    engine = Engine(model, native=native)
    request = ask(50)
    engine.generate([replace(request, prompt_logprobs=False)])
    group = engine.generate([request] * 3)
    for each in group:
        assert each.cached_tokens == 0
        check(model, request, each.prompt_tokens)
    (later,) = engine.generate([replace(request, prompt_logprobs=False)])
    assert later.cached_tokens == 49
    assert later.token_ids == group[0].token_ids


def test_a_tight_cache_preempts_and_gives_the_same_scores(model: Model, native: bool) -> None:
    requests = [ask(30, seed, max_tokens=60) for seed in range(5)]
    engine = Engine(model, slots=5, cache_tokens=128, native=native)
    for request, result in zip(requests, engine.generate(requests), strict=True):
        check(model, request, result.prompt_tokens)
        assert len(result.token_ids) == 60
    assert engine.stats.preemptions > 0


def test_modules_that_guess_change_no_score(model: Model, native: bool) -> None:
    torch.manual_seed(1)
    modules = MtpModules(replace(model.config, num_mtp_modules=2))
    requests = [ask(40, seed, temperature=0) for seed in range(3)]
    engine = Engine(model, mtp=modules, native=native, step_tokens=24)
    for request, result in zip(requests, engine.generate(requests), strict=True):
        check(model, request, result.prompt_tokens)


def test_deterministic_scores_have_the_same_bits_whatever_runs_beside(
    model: Model, native: bool
) -> None:
    def scores(beside: int, step_tokens: int, slots: int = 16) -> tuple[Token, ...] | None:
        engine = Engine(
            model, slots=slots, step_tokens=step_tokens, deterministic=True, native=native
        )
        others = [ask(20 + seed, seed) for seed in range(1, beside + 1)]
        return engine.generate([ask(70, 0), *others])[0].prompt_tokens

    alone = scores(0, 1024)
    assert alone == scores(5, 1024)
    assert alone == scores(5, 17)
    assert alone == scores(0, 2, slots=1)


def test_scores_are_told_before_what_is_made(model: Model) -> None:
    told: list[Token] = []
    engine = Engine(model, step_tokens=16)
    future = engine.submit(ask(40), told.append)
    while not future.done():
        engine.step()
    result = future.result()
    assert tuple(told) == (*(result.prompt_tokens or ()), *result.tokens)
    (shortest,) = engine.generate([ask(1)])
    assert shortest.prompt_tokens == ()


def test_scores_that_are_no_numbers_fail_their_request_alone(
    make_config: Callable[..., ModelConfig], native: bool
) -> None:
    torch.manual_seed(0)
    model = Model(make_config())
    good, bad = ask(20, 1), ask(20, 2)
    only = next(each for each in bad.prompt_ids[:-1] if each not in good.prompt_ids)
    told: list[Token] = []
    with torch.no_grad():
        model.model.embed_tokens.weight[only] = float("nan")
    engine = Engine(model, native=native)
    failing, fine = engine.submit(bad, told.append), engine.submit(good)
    while not (failing.done() and fine.done()):
        engine.step()
    with pytest.raises(EngineError, match="expected finite logits"):
        failing.result()
    assert told == []
    check(model, good, fine.result().prompt_tokens)


def test_scores_that_overflow_fail_their_request_though_the_next_token_would_not(
    make_config: Callable[..., ModelConfig], native: bool
) -> None:
    torch.manual_seed(0)
    model = Model(make_config())
    request = ask(40, max_tokens=1, temperature=0)
    ids = torch.tensor(request.prompt_ids)
    with torch.no_grad():
        states = model.hidden(ids, [len(ids)])
        # A weight so large that one of the states overflows with it, and the last one does not.
        fits = (states[:-1].amax(0) > 1.3) & (states[-1].abs() < 0.9)
        model.lm_head.weight[7].zero_()[int(fits.nonzero()[0])] = torch.finfo(torch.float32).max
    engine = Engine(model, native=native)
    engine.generate([replace(request, prompt_logprobs=False)])
    with pytest.raises(EngineError, match="expected finite logits"):
        engine.generate([request])
