"""Guessing ahead with MTP modules: the same tokens as without, in fewer steps when guesses fit."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch

from rollmill.model.config import ModelConfig
from rollmill.model.engine import Engine, GenRequest, GenResult
from rollmill.model.model import Model
from rollmill.model.mtp import MtpModules, mtp_from_trunk

MakeConfig = Callable[..., ModelConfig]
VOCAB = 5


@pytest.fixture(scope="module")
def model(make_config: MakeConfig) -> Model:
    torch.manual_seed(0)
    return Model(make_config(vocab_size=VOCAB, initializer_range=0.1))


@pytest.fixture(scope="module")
def certain(make_config: MakeConfig) -> tuple[Model, MtpModules]:
    """A model whose next token depends on the last one alone, and modules that know it."""
    torch.manual_seed(1)
    config = make_config(num_mtp_modules=3)
    model, mtp = Model(config), MtpModules(config)
    with torch.no_grad():
        for layer in [*model.model.decoder_layers(), *(m.block for m in mtp.modules_by_depth())]:
            layer.self_attn.o_proj.weight.zero_()
            layer.block_sparse_moe.experts.down_proj.zero_()
        for module in mtp.modules_by_depth():
            module.proj.weight.zero_()
            module.proj.weight[:, config.hidden_size :].fill_diagonal_(1.0)
    return model, mtp


def prompt(length: int, seed: int = 0, vocab: int = VOCAB) -> tuple[int, ...]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, vocab, (length,), generator=rng).tolist())


def odd_places(token_ids: Sequence[int]) -> torch.Tensor | None:
    """Forbids a token at every other place."""
    return torch.arange(VOCAB) != 2 if len(token_ids) % 2 else None


SETTINGS: dict[str, dict[str, object]] = {
    "greedy": {"temperature": 0},
    "plain": {},
    "hot": {"temperature": 1.7},
    "truncated": {"top_k": 4, "top_p": 0.8},
    "penalties": {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2},
    "mask": {"mask": odd_places},
    "bias": {"logit_bias": {1: 2.0}, "top_logprobs": 3},
}


def crowd(**changes: object) -> list[GenRequest]:
    settings = [changes] if changes else list(SETTINGS.values())
    return [
        GenRequest(prompt_ids=prompt(2 + 5 * seed, seed), max_tokens=30 + seed, seed=seed, **each)  # type: ignore[arg-type]
        for seed, each in enumerate(settings * (7 // len(settings)))
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
def test_guesses_change_no_token_whatever_the_settings(
    count: int, native: bool, model: Model
) -> None:
    plain = Engine(model, slots=4, step_tokens=16, native=native)
    ahead = Engine(model, mtp=mtp_from_trunk(model, count), slots=4, step_tokens=16, native=native)
    for expected, result in zip(plain.generate(crowd()), ahead.generate(crowd()), strict=True):
        assert result.token_ids == expected.token_ids
        assert result.finish_reason == expected.finish_reason
        assert result.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    stats = ahead.stats
    assert 0 < stats.accepted_tokens < stats.drafted_tokens
    assert stats.steps < plain.stats.steps
    assert stats.completion_tokens == plain.stats.completion_tokens


def test_deterministic_results_are_the_same_bits_with_guesses(model: Model) -> None:
    mtp = mtp_from_trunk(model, 3)
    plain = Engine(model, slots=1, deterministic=True)
    ahead = Engine(model, mtp=mtp, slots=5, step_tokens=9, deterministic=True)
    for expected, result in zip(plain.generate(crowd()), ahead.generate(crowd()), strict=True):
        assert result.tokens == expected.tokens


def joint(model: Model, start: tuple[int, ...], temperature: float) -> dict[tuple[int, ...], float]:
    """The probability of each three tokens behind `start`."""
    ways = list(product(range(VOCAB), repeat=3))
    tokens = torch.tensor([start + way for way in ways])
    with torch.no_grad():
        logits = model(tokens.flatten(), [tokens.shape[1]] * len(ways))
    scores = (logits.view(*tokens.shape, -1)[:, -4:-1] / temperature).log_softmax(-1)
    each = scores.gather(2, tokens[:, -3:, None]).sum((1, 2)).exp().tolist()
    return dict(zip(ways, each, strict=True))


def surprise(counts: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> float:
    """Pearson's statistic over its degrees of freedom; about 1 if the counts follow `expected`."""
    total = sum(counts.values())
    cells = [way for way, share in expected.items() if share * total >= 5]
    rest = 1 - sum(expected[way] for way in cells)
    parts = [(counts[way] - expected[way] * total) ** 2 / (expected[way] * total) for way in cells]
    others = total - sum(counts[way] for way in cells)
    return (sum(parts) + (others - rest * total) ** 2 / max(1.0, rest * total)) / len(cells)


def test_guessed_tokens_follow_the_joint_distribution(model: Model) -> None:
    start, draws = prompt(9), 6000
    counts: Counter[tuple[int, ...]] = Counter()
    engine = Engine(model, mtp=mtp_from_trunk(model, 2), slots=32, context=16)
    for result in engine.generate(
        [GenRequest(prompt_ids=start, max_tokens=3, seed=seed) for seed in range(draws)]
    ):
        counts[result.token_ids] += 1
    assert 0.2 < engine.stats.accepted_tokens / engine.stats.drafted_tokens < 0.9
    # 125 cells: the standard deviation is 0.13. The second line shows that the check can fail.
    assert surprise(counts, joint(model, start, 1.0)) < 1.6
    assert surprise(counts, joint(model, start, 1.5)) > 3


def test_right_guesses_save_steps(certain: tuple[Model, MtpModules]) -> None:
    model, mtp = certain
    engine = Engine(model, mtp=mtp, slots=2)
    request = GenRequest(prompt_ids=prompt(20, vocab=97), max_tokens=41, temperature=0)
    (result,) = engine.generate([request])
    assert engine.stats.steps == 1 + 10  # the prompt, then four tokens a step
    assert engine.stats.accepted_tokens == engine.stats.drafted_tokens == 30
    (expected,) = Engine(model).generate([request])
    assert result.token_ids == expected.token_ids


def test_a_stop_among_right_guesses_ends_the_answer_there(
    certain: tuple[Model, MtpModules],
) -> None:
    model, mtp = certain
    request = GenRequest(prompt_ids=prompt(20, vocab=97), max_tokens=12, temperature=0)
    (free,) = Engine(model).generate([request])
    engine = Engine(model, mtp=mtp)
    for at in range(1, 8):
        stop = free.token_ids[at]
        if free.token_ids.index(stop) < at:
            continue
        (result,) = engine.generate(
            [
                GenRequest(
                    prompt_ids=request.prompt_ids,
                    max_tokens=12,
                    temperature=0,
                    stop_ids=frozenset({stop}),
                )
            ]
        )
        assert result.token_ids == free.token_ids[: at + 1]
        assert result.finish_reason == "stop"
        follow_up = GenRequest(
            prompt_ids=request.prompt_ids + result.token_ids + (7,), max_tokens=5, temperature=0
        )
        (after,), (expected,) = (each.generate([follow_up]) for each in (engine, Engine(model)))
        assert after.token_ids == expected.token_ids
        assert after.cached_tokens == 20 + at  # the stop token was never fed


def test_a_tight_cache_preempts_and_gives_the_same_tokens(model: Model) -> None:
    wide = Engine(model, slots=5)
    tight = Engine(model, mtp=mtp_from_trunk(model, 3), slots=5, cache_tokens=128)
    requests = [
        GenRequest(prompt_ids=prompt(30, seed), max_tokens=60, seed=seed) for seed in range(5)
    ]
    expected = [each.token_ids for each in wide.generate(requests)]
    assert [each.token_ids for each in tight.generate(requests)] == expected
    assert tight.stats.preemptions > 0


def test_a_cancelled_request_leaves_the_others_their_guesses(model: Model) -> None:
    engine = Engine(model, mtp=mtp_from_trunk(model, 3), slots=3)
    futures = [engine.submit(each) for each in crowd()[:3]]
    for _ in range(3):
        engine.step()
    futures[1].cancel()
    while engine.busy:
        engine.step()
    expected = Engine(model).generate(crowd()[:3])
    for at in (0, 2):
        assert futures[at].result().token_ids == expected[at].token_ids
    assert engine.stats.running == 0


def test_modules_that_are_no_numbers_cost_time_and_nothing_else(model: Model) -> None:
    mtp = mtp_from_trunk(model, 2)
    for param in mtp.parameters():
        param.data.fill_(float("nan"))
    engine = Engine(model, mtp=mtp, slots=4)
    results: list[GenResult] = engine.generate(crowd())
    expected = Engine(model, slots=4).generate(crowd())
    assert [each.token_ids for each in results] == [each.token_ids for each in expected]
    assert engine.stats.drafted_tokens == 0


def test_new_weights_reach_the_modules_too(certain: tuple[Model, MtpModules]) -> None:
    model, mtp = certain
    blind = MtpModules(mtp.config)
    engine = Engine(model, mtp=blind, slots=2)
    swapped = engine.swap_weights(mtp.state_dict(), 3)
    engine.step()
    swapped.result(timeout=0)
    engine.generate([GenRequest(prompt_ids=prompt(9, vocab=97), max_tokens=41, temperature=0)])
    assert engine.stats.accepted_tokens == 30


def test_modules_of_another_model_are_refused(model: Model, make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match="hidden_size 60"):
        Engine(model, mtp=MtpModules(make_config(hidden_size=64, num_mtp_modules=1)))
