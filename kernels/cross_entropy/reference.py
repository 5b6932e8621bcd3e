"""Summed cross-entropy from all logits at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def cross_entropy(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`-sum(log_softmax(hidden @ head.T)[targets])`, the softmax in fp32.

    Args:
        hidden: [N, H]
        head: [V, H]
        targets: [N] int64

    Returns:
        A scalar in fp32; 0 for no tokens.
    """
    return F.cross_entropy(F.linear(hidden, head).float(), targets, reduction="sum")
