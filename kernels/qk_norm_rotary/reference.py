"""Whole-vector norm and rotary one after the other, as the formulas read."""

from __future__ import annotations

import torch

from ..rms_norm import reference as norms
from ..rotary import reference as rotations


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
    return rotations.rotary(normed.view_as(x), cos, sin)
