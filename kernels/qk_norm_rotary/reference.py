"""Whole-vector norm and partial rotary one after the other, as the formulas read.

Rotary embedding in halves (Su et al., arXiv 2104.09864, as Hugging Face lays it out): dimension i
turns together with i + R/2. What lies beyond the table's width R passes through untouched.
"""

from __future__ import annotations

import torch

from ..rms_norm import reference as norms


def qk_norm_rotary(
    x: torch.Tensor, weight: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, eps: float
) -> torch.Tensor:
    """Norm each token's whole vector, split it into heads, turn each by the token's position.

    Args:
        x: [N, heads, D], contiguous
        weight: [heads * D]
        cos, sin: [N, R/2], R <= D, as `rotary_table` makes them

    Returns:
        [N, heads, D] in the type of `x`.
    """
    normed = norms.rms_norm(x.flatten(1), weight, eps)
    return rotary(normed.view_as(x), cos, sin)


def rotary_table(
    positions: torch.Tensor, rotary_dim: int, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of positions.

    Args:
        positions: [N] int64
        rotary_dim: R

    Returns:
        Two tensors [N, R/2] in fp32.
    """
    exponents = torch.arange(0, rotary_dim, 2, dtype=torch.float32, device=positions.device)
    frequencies = 1.0 / (theta ** (exponents / rotary_dim))
    angles = positions.float()[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each head by its token's position.

    Args:
        x: [N, heads, D]
        cos, sin: [N, R/2], R <= D

    Returns:
        [N, heads, D] in the type of `x`.
    """
    half = cos.shape[-1]
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)  # [N, 1, R/2]
    first, second, rest = torch.tensor_split(x, [half, 2 * half], dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)
