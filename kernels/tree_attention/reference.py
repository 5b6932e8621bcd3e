"""Attention in a forest of token prefixes, from the whole mask.

The tokens of the forest lie in one row, each node before its children (depth-first). Then token i
sees token j exactly when `j <= i < exits[j]`, where `exits[j]` is the row behind the last token
below j: one number a token says it all. Sequences without a shared prefix are trees of one node.
"""

from __future__ import annotations

import torch


def tree_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, exits: torch.Tensor
) -> torch.Tensor:
    """Softmax attention of each token to itself and to what stands above it.

    Args:
        q: [N, heads, D]
        k, v: [N, kv_heads, D]; each serves heads / kv_heads query heads in a row.
        exits: [N] int64, the end of the subtree below each token's node.

    Returns:
        [N, heads, D] in the type of `q`.
    """
    rows = torch.arange(len(q), device=q.device)
    seen = (rows <= rows[:, None]) & (rows[:, None] < exits)  # [N, N]
    group = q.shape[1] // k.shape[1]
    k, v = (each.repeat_interleave(group, dim=1).float() for each in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q.float(), k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hij,jhd->ihd", weights, v).to(q.dtype)
