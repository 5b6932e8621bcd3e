"""How much arithmetic a step needs, and how much this machine can do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache

import torch

from ..config import ModelConfig

_SIZE = 1024
_REPEATS = 5


def step_flops(config: ModelConfig, seq_lens: Sequence[int], learned_tokens: int) -> int:
    """Floating-point operations of forward and backward over a packed batch.

    Counted: the matrices that a token meets (its experts, not all), causal attention, and the head
    where a token is learned. Not counted: norms, softmax, MTP modules, and what is computed twice,
    so that a step does not look faster for it.
    """
    q_dim = config.num_attention_heads * config.head_dim
    kv_dim = config.num_key_value_heads * config.head_dim
    attention = config.hidden_size * (2 * q_dim + 2 * kv_dim)
    experts = config.num_experts_per_tok * 3 * config.hidden_size * config.intermediate_size
    router = config.hidden_size * config.num_local_experts
    a_token = 2 * config.num_hidden_layers * (attention + experts + router)
    scores = sum(2 * q_dim * each * (each + 1) for each in seq_lens) * config.num_hidden_layers
    head = 2 * config.hidden_size * config.vocab_size * learned_tokens
    return 3 * (a_token * sum(seq_lens) + scores + head)


@cache
def measured_peak_flops(dtype: torch.dtype) -> float:
    """Operations per second of the best of a few matrix products of 1024, measured once."""
    left, right = torch.ones(2, _SIZE, _SIZE, dtype=dtype)
    torch.mm(left, right)
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - started)
    return 2 * _SIZE**3 / min(times)
