"""The architecture against transformers' implementation, on random weights."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from rollmill.kernels.token_logprobs import token_logprobs
from rollmill.model.config import ModelConfig
from rollmill.model.model import Model

MakeConfig = Callable[..., ModelConfig]
CHANGES: list[dict[str, Any]] = [
    {},
    {"num_key_value_heads": 6, "rotary_dim": 20},
    {"num_key_value_heads": 1, "rotary_dim": 2, "num_experts_per_tok": 1},
    {"num_local_experts": 3, "num_experts_per_tok": 3, "rope_theta": 1e4, "rms_norm_eps": 1e-3},
    {"hidden_size": 63, "head_dim": 30, "intermediate_size": 17, "num_hidden_layers": 3},
]
each_config = pytest.mark.parametrize("changes", CHANGES, ids=str)


def pair(config: ModelConfig) -> tuple[Model, torch.nn.Module]:
    """Ours and theirs with the same weights; no norm is 1 and no router bias 0."""
    torch.manual_seed(0)
    ours = Model(config)
    for name, tensor in ours.state_dict().items():
        if "norm" in name or "bias" in name:
            tensor.add_(0.3 * torch.randn_like(tensor))
    # Its grouped GEMM refuses odd sizes; eager is the plain formula.
    theirs = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        transformers.MiniMaxM2Config(**json.loads(config.to_json())),
        experts_implementation="eager",
    ).eval()
    renamed = {
        name.replace("block_sparse_moe", "mlp"): tensor
        for name, tensor in ours.state_dict().items()
    }
    theirs.load_state_dict(renamed)
    return ours, theirs


def theirs_on(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(tokens[None]).logits[0]
    return logits


@each_config
def test_logits_equal_transformers(changes: dict[str, Any], make_config: MakeConfig) -> None:
    ours, theirs = pair(make_config(**changes))
    tokens = torch.randint(0, 97, (63,))
    torch.testing.assert_close(ours(tokens, [63]), theirs_on(theirs, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", CHANGES[:2], ids=str)
def test_gradients_equal_transformers(changes: dict[str, Any], make_config: MakeConfig) -> None:
    ours, theirs = pair(make_config(**changes))
    tokens, targets = torch.randint(0, 97, (2, 63))
    hidden = ours.hidden(tokens, [63])
    torch.autograd.backward(
        [
            -token_logprobs(hidden, ours.lm_head.weight, targets).mean(),
            torch.nn.functional.cross_entropy(theirs_on(theirs, tokens), targets),
        ]
    )
    expected = dict(theirs.named_parameters())
    for name, param in ours.named_parameters():
        twin = expected[name.replace("block_sparse_moe", "mlp")]
        assert param.grad is not None, name
        assert param.grad.any(), name
        torch.testing.assert_close(param.grad, twin.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_packed_segments_do_not_see_each_other(make_config: MakeConfig) -> None:
    model = Model(make_config())
    tokens = torch.randint(0, 97, (66,))
    lengths = [1, 40, 2, 23]
    packed = model(tokens, lengths)
    alone = [model(part, [len(part)]) for part in torch.split(tokens, lengths)]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_no_token_sees_what_follows(make_config: MakeConfig) -> None:
    model = Model(make_config())
    tokens = torch.randint(0, 97, (40,))
    changed = tokens.clone()
    changed[25:] = (changed[25:] + 1) % 97
    before, after = model(tokens, [40]), model(changed, [40])
    torch.testing.assert_close(before[:25], after[:25], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before[25:], after[25:], atol=1e-2)


def test_the_bias_moves_load_to_idle_experts_and_weights_ignore_it(
    make_config: MakeConfig,
) -> None:
    torch.manual_seed(0)
    model = Model(make_config())
    tokens = torch.randint(0, 97, (128,))
    model(tokens, [128])
    first = model.expert_load()
    assert first.shape == (2, 7)
    assert first.sum(-1).tolist() == [3 * 128] * 2
    for _ in range(50):
        model(tokens, [128])
        model.update_router_bias(model.expert_load(), 0.05)
    assert (model.expert_load().amax(-1) < first.amax(-1)).all()
    moe = model.model.decoder_layers()[0].block_sparse_moe
    _, weights = moe.route(torch.randn(63, 60))
    torch.testing.assert_close(weights.sum(-1), torch.ones(63))


@pytest.mark.parametrize("lengths", [[], [10, 54], [63, 0], [129]], ids=str)
def test_lengths_that_do_not_fit_are_refused(lengths: list[int], make_config: MakeConfig) -> None:
    tokens = torch.zeros(129 if lengths == [129] else 63, dtype=torch.int64)
    with pytest.raises(ValueError, match="expected seq_lens of 1 to 128"):
        Model(make_config())(tokens, lengths)


def test_bf16_weights_train_to_finite_gradients(make_config: MakeConfig) -> None:
    model = Model(make_config())
    for param in model.parameters():
        param.data = param.data.bfloat16()
    tokens = torch.randint(0, 97, (63,))
    loss = -token_logprobs(model.hidden(tokens, [63]), model.lm_head.weight, tokens).mean()
    torch.autograd.backward(loss)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
