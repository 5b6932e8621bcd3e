"""How much arithmetic a step needs, and how much this machine can do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache

import torch

from ..config import ModelConfig

_REPEATS = 6
_CPU = torch.device("cpu")


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
def measured_peak_flops(dtype: torch.dtype, device: torch.device = _CPU) -> float:
    """Operations per second of the best of a few matrix products, measured once.

    Of 1024 rows and columns on a CPU, of 8192 on a GPU.
    """
    size = 8192 if device.type == "cuda" else 1024
    left, right = torch.randn(2, size, size, dtype=dtype, device=device)
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)
