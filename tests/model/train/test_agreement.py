import dataclasses

import pytest
import torch

from rollmill.model.config import ModelConfig
from rollmill.model.engine import GenRequest
from rollmill.model.model import Model
from rollmill.model.train.agreement import bf16_gap, logprob_gap


@pytest.fixture(scope="module")
def model(tiny: ModelConfig) -> Model:
    torch.manual_seed(3)
    wide = dataclasses.replace(tiny, max_position_embeddings=128, initializer_range=0.3)
    return Model(wide)


@pytest.mark.parametrize("native", [True, False], ids=["compiled decoder", "PyTorch"])
def test_engine_and_trainer_agree_on_every_sampled_token_in_fp32(
    model: Model, native: bool
) -> None:
    shared = tuple(range(1, 40))  # one prompt's pages serve two requests
    prompts = [(5,), (*shared, 7), (*shared, 8), tuple(range(60, 90))]
    requests = [
        GenRequest(prompt_ids=prompt, max_tokens=30, seed=seed)
        for seed, prompt in enumerate(prompts)
    ]
    gap = logprob_gap(model, requests, native=native)
    assert gap.tokens == 4 * 30
    assert gap.largest < 1e-4


def test_the_gap_in_bf16_is_measured_and_is_a_rounding_not_a_fault(model: Model) -> None:
    gap = bf16_gap(model, prompts=2, prompt_tokens=20, made=20)
    assert gap.tokens == 40
    assert 1e-5 < gap.mean < 0.1
    assert gap.mean <= gap.largest


def test_a_trainer_with_other_weights_would_be_seen(model: Model) -> None:
    other = Model(model.config)

    class Drifting(Model):
        """Samples from one set of weights, trains another."""

        def hidden(self, tokens: torch.Tensor, seq_lens: list[int]) -> torch.Tensor:  # type: ignore[override]
            return other.hidden(tokens, seq_lens)

    torch.manual_seed(3)
    drifting = Drifting(model.config)
    assert logprob_gap(drifting, [GenRequest(prompt_ids=(1, 2), max_tokens=20)]).largest > 1e-2
