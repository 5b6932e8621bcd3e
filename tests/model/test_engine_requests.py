"""What a request may ask for beyond tokens, and what the engine does under pressure."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch

from rollmill.model.config import ModelConfig
from rollmill.model.engine import Engine, EngineError, GenRequest, QueueFull, Token
from rollmill.model.model import Model

MakeConfig = Callable[..., ModelConfig]


@pytest.fixture(scope="module")
def model(make_config: MakeConfig) -> Model:
    torch.manual_seed(0)
    return Model(make_config())


@pytest.fixture(params=[True, False], ids=["native", "torch"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, 97, (length,), generator=rng).tolist())


def ask(**changes: object) -> GenRequest:
    settings: dict[str, object] = {"prompt_ids": prompt(9), "max_tokens": 20, "temperature": 0}
    return GenRequest(**(settings | changes))  # type: ignore[arg-type]


def one(engine: Engine, **changes: object) -> tuple[int, ...]:
    return engine.generate([ask(**changes)])[0].token_ids


def test_a_tight_cache_preempts_and_gives_the_same_tokens(model: Model, native: bool) -> None:
    requests = [
        ask(prompt_ids=prompt(30, seed), max_tokens=60, temperature=1, seed=seed)
        for seed in range(5)
    ]
    wide = Engine(model, slots=5, native=native)
    tight = Engine(model, slots=5, cache_tokens=128, native=native)
    expected = [each.token_ids for each in wide.generate(requests)]
    assert [each.token_ids for each in tight.generate(requests)] == expected
    assert tight.stats.preemptions > 0
    assert wide.stats.preemptions == 0
    assert tight.stats.running == tight.stats.waiting == 0


def test_the_smallest_cache_still_serves_a_prompt_that_fills_it(model: Model) -> None:
    engine = Engine(model, slots=2, cache_tokens=48)
    for seed in range(3):  # each time the tree must give up all of the last
        (result,) = engine.generate([ask(prompt_ids=prompt(47, seed), max_tokens=9)])
        assert result.finish_reason == "length"
        assert len(result.token_ids) == 1
    again = engine.generate([ask(prompt_ids=prompt(47, 2), max_tokens=9)] * 3)
    assert len({each.token_ids for each in again}) == 1


def test_a_group_computes_its_prompt_once(model: Model, native: bool) -> None:
    engine = Engine(model, slots=6, step_tokens=16, native=native)
    group = engine.generate(
        [ask(prompt_ids=prompt(80), temperature=1, seed=seed) for seed in range(6)]
    )
    assert [each.cached_tokens for each in group] == [0] + [79] * 5
    assert engine.stats.cached_tokens == 5 * 79


def test_deterministic_gives_the_same_bits_whatever_runs_beside(model: Model, native: bool) -> None:
    def logprobs(beside: Sequence[GenRequest], step_tokens: int) -> tuple[float, ...]:
        engine = Engine(model, slots=8, step_tokens=step_tokens, deterministic=True, native=native)
        return engine.generate([*beside, ask(prompt_ids=prompt(33), temperature=1, seed=5)])[
            -1
        ].logprobs

    crowd = [ask(prompt_ids=prompt(33)[:20] + prompt(9, seed), seed=seed) for seed in range(6)]
    assert logprobs([], 64) == logprobs(crowd, 8) == logprobs(crowd[:2], 11)


def test_native_and_torch_agree(model: Model) -> None:
    results = [
        Engine(model, slots=2, native=native).generate([ask(prompt_ids=prompt(50))])[0]
        for native in (True, False)
    ]
    assert results[0].token_ids == results[1].token_ids
    assert results[0].logprobs == pytest.approx(results[1].logprobs, abs=1e-4)


def test_routes_are_those_of_the_plain_forward_pass(model: Model, native: bool) -> None:
    engine = Engine(model, slots=2, step_tokens=16, record_routes=True, native=native)
    first, second = (
        engine.generate([ask(prompt_ids=prompt(40), routes=True)])[0] for _ in range(2)
    )
    tokens = torch.tensor(prompt(40) + first.token_ids[:-1])
    with torch.no_grad():
        model(tokens, [len(tokens)])
    layers = model.model.decoder_layers()
    expected = torch.stack([layer.block_sparse_moe.chosen for layer in layers], 1).sort(-1).values
    assert first.routes is not None
    assert second.routes is not None
    assert second.cached_tokens > 0
    assert first.routes.sort(-1).values.equal(expected.to(torch.int16))
    assert second.routes.equal(first.routes)
    with pytest.raises(EngineError, match="record_routes=True"):
        Engine(model).generate([ask(routes=True)])


def test_a_mask_allows_and_a_failing_one_fails_its_request_alone(model: Model) -> None:
    def even(token_ids: Sequence[int]) -> torch.Tensor | None:
        return torch.arange(97) % 2 == len(token_ids) % 2

    def broken(token_ids: Sequence[int]) -> torch.Tensor | None:
        raise LookupError("no state")

    engine = Engine(model, slots=4)
    free = one(engine, temperature=1)
    futures = [
        engine.submit(ask(temperature=1, mask=mask))
        for mask in (even, broken, None, lambda _: torch.zeros(97, dtype=torch.bool))
    ]
    while engine.busy:
        engine.step()
    assert [token % 2 for token in futures[0].result().token_ids] == [0, 1] * 10
    assert futures[2].result().token_ids == free
    for future, message in ((futures[1], "no state"), (futures[3], "at least one allowed")):
        with pytest.raises(EngineError, match=message):
            future.result()


def test_penalties_and_bias_shape_the_choice_but_not_the_logprobs(model: Model) -> None:
    engine = Engine(model, slots=2)
    plain = one(engine, max_tokens=60)
    for change in (
        {"presence_penalty": 1e4},
        {"frequency_penalty": 1e4},
        {"repetition_penalty": 1e6},
    ):
        assert len(set(one(engine, max_tokens=60, **change))) == 60 > len(set(plain))
    (biased,) = engine.generate([ask(logit_bias={11: 1e4})])
    assert set(biased.token_ids) == {11}
    assert max(biased.logprobs) < -0.5  # the model itself would not say so
    with pytest.raises(EngineError, match="logit_bias"):
        one(engine, logit_bias={97: 1.0})


def test_top_logprobs_are_the_likeliest_and_hold_the_greedy_choice(model: Model) -> None:
    (result,) = Engine(model).generate([ask(top_logprobs=4)])
    for token in result.tokens:
        values = [logprob for _, logprob in token.top]
        assert values == sorted(values, reverse=True)
        assert len(values) == 4
        assert token.top[0] == (token.token_id, token.logprob)


def test_plain_sampling_follows_the_distribution(model: Model) -> None:
    engine = Engine(model, slots=16)
    (first,) = engine.generate([ask(top_logprobs=97, temperature=1, max_tokens=1)])
    probs = {token: torch.tensor(logprob).exp().item() for token, logprob in first.tokens[0].top}
    draws = 2000
    counts = dict.fromkeys(range(97), 0)
    for result in engine.generate([ask(temperature=1, max_tokens=1, seed=s) for s in range(draws)]):
        counts[result.token_ids[0]] += 1
    likely = [token for token, share in probs.items() if share * draws >= 5]
    surprise = sum((counts[t] - draws * probs[t]) ** 2 / (draws * probs[t]) for t in likely)
    assert surprise < len(likely) + 6 * (2 * len(likely)) ** 0.5


def test_a_full_queue_refuses_and_goes_on(model: Model) -> None:
    engine = Engine(model, slots=1, max_waiting=2)
    futures = [engine.submit(ask()) for _ in range(3)]
    with pytest.raises(QueueFull, match="2 requests wait"):
        futures[2].result(timeout=0)
    while engine.busy:
        engine.step()
    assert len(futures[1].result().token_ids) == 20


def test_a_long_prompt_is_not_starved_by_short_ones(model: Model) -> None:
    engine = Engine(model, slots=4, cache_tokens=128)
    crowd = [
        ask(prompt_ids=prompt(20, seed), max_tokens=5 + seed * 7 % 23, client="crowd")
        for seed in range(100)
    ]
    futures = [engine.submit(request) for request in crowd]
    for _ in range(4):
        engine.step()
    long = engine.submit(ask(prompt_ids=prompt(100, 100), max_tokens=8, client="alone"))
    while not long.done():
        engine.step()
    passed = sum(future.done() for future in futures)
    assert passed <= 8  # those that ran already, and hardly more
    while engine.busy:
        engine.step()
    assert len(long.result().tokens) == 8
    assert [len(each.result().tokens) for each in futures] == [each.max_tokens for each in crowd]


def test_clients_take_turns_by_the_tokens_that_were_made(model: Model) -> None:
    engine = Engine(model, slots=1)
    order: list[str] = []

    def note(client: str, done: object) -> None:
        order.append(client)

    for client, limit, stop in [("talks", 50, ()), ("stops at once", 100, range(97))] * 20:
        request = ask(max_tokens=limit, stop_ids=frozenset(stop), client=client)
        engine.submit(request).add_done_callback(partial(note, client))
    while engine.busy:
        engine.step()
    assert order[:18].count("stops at once") >= 14


@pytest.mark.parametrize("recompute", [False, True])
def test_weights_change_between_steps_and_tokens_carry_their_version(
    make_config: MakeConfig, recompute: bool, native: bool
) -> None:
    torch.manual_seed(1)
    old, new = Model(make_config()), Model(make_config())
    expected_new = Engine(new, native=native).generate([ask()])[0].token_ids
    weights = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    engine = Engine(old, slots=2, native=native)
    engine.generate([ask()])  # fills the prefix cache with old keys
    running = engine.submit(ask(max_tokens=30))
    for _ in range(10):
        engine.step()
    swapped = engine.swap_weights(weights, 7, recompute=recompute)
    fresh = engine.submit(ask())
    while engine.busy:
        engine.step()
    swapped.result()
    assert fresh.result().token_ids == expected_new
    if not recompute:  # otherwise it may share what the running one computed anew
        assert fresh.result().cached_tokens == 0
    versions = [token.version for token in running.result().tokens]
    assert versions == [0] * 10 + [7] * 20
    assert engine.generate([ask()])[0].token_ids == expected_new
    if recompute:
        tokens = torch.tensor(ask().prompt_ids + running.result().token_ids)
        with torch.no_grad():
            greedy = new(tokens, [len(tokens)])[len(ask().prompt_ids) - 1 : -1].argmax(-1)
        assert greedy[10:].tolist() == list(running.result().token_ids[10:])


def test_weights_that_do_not_fit_change_nothing(model: Model) -> None:
    engine = Engine(model)
    before = one(engine)
    for weights in ({"lm_head.weight": torch.zeros(2, 2)}, {"nonsense": torch.zeros(1)}):
        refused = engine.swap_weights(weights, 1)
        engine.step()
        with pytest.raises(EngineError, match=next(iter(weights))):
            refused.result(timeout=0)
    assert (one(engine), engine.version) == (before, 0)


def test_tokens_are_told_as_they_are_made(model: Model) -> None:
    engine = Engine(model)
    heard: list[Token] = []
    future = engine.submit(ask(), heard.append)
    engine.step()
    assert len(heard) == 1
    while engine.busy:
        engine.step()
    assert tuple(heard) == future.result().tokens
