"""The in-process policy, with a tiny checkpoint of random weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rollmill.model import Message
from rollmill.model.checkpoint import save_checkpoint
from rollmill.model.config import ModelConfig
from rollmill.model.grammar import CallGrammar
from rollmill.model.model import Model
from rollmill.model.tokenizer import Tokenizer
from rollmill.pipelines.rollout.bundled import BundledPolicy
from rollmill.pipelines.rollout.policies import open_policy
from rollmill.pipelines.rollout.policy import ContextOverflow, PolicyError, TurnRequest
from rollmill.pipelines.rollout.transcript import Transcript


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices on a busy machine: threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = Tokenizer.train(["You work in /workspace with bash.\n"] * 4, vocab_size=320)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rotary_dim=4,
        intermediate_size=32,
        num_local_experts=4,
        num_experts_per_tok=2,
        eos_token_id=tokenizer.eos_id,
    )
    torch.manual_seed(0)
    save_checkpoint(Model(config), folder)
    tokenizer.save(folder / "tokenizer.json")
    return folder


@pytest.fixture
async def policy(checkpoint: Path) -> AsyncIterator[BundledPolicy]:
    opened = BundledPolicy(checkpoint)
    yield opened
    await opened.close()
    await opened.close()


@pytest.fixture
def short(request_: TurnRequest) -> TurnRequest:
    return replace(request_, sampling=replace(request_.sampling, max_tokens=12))


async def test_every_token_comes_with_its_logprob_and_the_weights_version(
    policy: BundledPolicy, short: TurnRequest
) -> None:
    got = await policy.complete(short)
    assert 0 < len(got.completion_ids) == len(got.logprobs) <= 12
    assert all(logprob <= 0 for logprob in got.logprobs)
    assert got.message.token_ids == got.completion_ids
    assert len(got.version) == 16
    assert got.format_error is not None  # random weights do not close their thinking


async def test_turns_extend_each_other_token_by_token(
    policy: BundledPolicy, short: TurnRequest
) -> None:
    log = Transcript()
    log.say(short.messages[0])
    for turn in range(3):
        seeded = replace(short.sampling, seed=turn)
        request = replace(short, messages=tuple(log.messages), sampling=seeded, turn_index=turn)
        log.record(await policy.complete(request), format_error=None, policy_s=0.0)
        log.say(Message(role="user", content="go on"))
    assert [turn.parent for turn in log.turns] == [None, 0, 1]


async def test_a_seed_gives_the_same_tokens_whatever_else_is_asked_for(
    policy: BundledPolicy, short: TurnRequest
) -> None:
    alone = await policy.complete(short)
    others = [replace(short, sampling=replace(short.sampling, seed=seed)) for seed in range(5)]
    together = await asyncio.gather(*map(policy.complete, [short, *others]))
    assert together[0].completion_ids == alone.completion_ids
    assert len({got.completion_ids for got in together}) > 1


async def test_a_conversation_too_long_is_an_overflow_for_that_request_alone(
    policy: BundledPolicy, short: TurnRequest
) -> None:
    long = replace(short, messages=(Message(role="user", content="x y " * 4000),))
    overflow, fine = await asyncio.gather(
        policy.complete(long), policy.complete(short), return_exceptions=True
    )
    assert isinstance(overflow, ContextOverflow)
    assert not isinstance(fine, BaseException)


@pytest.mark.parametrize("broken", ["tokenizer.json", "config.json", "model.safetensors"])
async def test_a_checkpoint_that_lacks_or_tears_a_file_is_one_sentence(
    checkpoint: Path, tmp_path: Path, broken: str
) -> None:
    for file in checkpoint.iterdir():
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data[: len(data) // 2] if file.name == broken else data)
    for _ in range(2):
        policy = BundledPolicy(tmp_path)
        with pytest.raises(PolicyError, match=r"expected a checkpoint .* train one"):
            await policy.check()
        await policy.close()
        (tmp_path / broken).unlink(missing_ok=True)


async def test_a_checkpoint_opens_by_its_folder_with_or_without_the_name(checkpoint: Path) -> None:
    for spec in (str(checkpoint), f"bundled:{checkpoint}"):
        policy = open_policy(spec)
        assert policy.name == f"bundled:{checkpoint}"
        await policy.check()
        assert policy.tokenizer == Tokenizer.load(checkpoint).fingerprint
        await policy.close()


async def test_under_a_grammar_no_token_breaks_the_format_of_calls(
    checkpoint: Path, request_: TurnRequest
) -> None:
    tokenizer = Tokenizer.load(checkpoint)
    long = replace(request_, sampling=replace(request_.sampling, max_tokens=200, temperature=1.0))
    for only_calls in (True, False):
        policy = BundledPolicy(checkpoint, only_calls=only_calls)
        said = (await policy.complete(long)).completion_ids
        await policy.close()
        grammar = CallGrammar(long.tools, tokenizer, tokenizer.vocab_size, required=True)
        if only_calls:
            grammar(said)
        else:  # a random model soon breaks it
            with pytest.raises(ValueError, match="expected an allowed token"):
                grammar(said)
