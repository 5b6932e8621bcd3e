"""Mixture of SwiGLU experts, token by token as the formula reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def grouped_experts(
    x: torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    """`sum_k weights[:, k] * expert[experts[:, k]](x)`.

    Args:
        x: [N, H]
        experts: [N, K] int64, which experts each token goes to
        weights: [N, K]
        gate_up: [E, 2I, H], gate above up
        down: [E, H, I]

    Returns:
        [N, H] in the type of `x`.
    """
    out = torch.zeros_like(x)
    for expert in range(gate_up.shape[0]):
        tokens, slots = torch.where(experts == expert)
        gate, up = F.linear(x[tokens], gate_up[expert]).chunk(2, dim=-1)
        y = F.linear(F.silu(gate) * up, down[expert]) * weights[tokens, slots, None].to(x.dtype)
        out = out.index_add(0, tokens, y)
    return out
