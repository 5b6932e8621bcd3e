"""Log-probabilities of given tokens from all logits at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def token_logprobs(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`log_softmax(hidden @ head.T)[targets]`, the softmax in fp32.

    Args:
        hidden: [N, H]
        head: [V, H]
        targets: [N] int64

    Returns:
        [N] in fp32.
    """
    logits = F.linear(hidden, head).float()
    return logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
