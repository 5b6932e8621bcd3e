"""Attention over a paged cache with torch's fused kernels, a sequence at a time.

For processors without a compiler; builds a mask where a sequence held something before.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def paged_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    owner: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """The same as `reference.paged_attention`."""
    page, out, first = keys.shape[3], torch.empty_like(q), 0
    for mine, rows in zip(*torch.unique_consecutive(owner, return_counts=True), strict=True):
        end = first + int(rows)
        held = int(positions[end - 1]) + 1
        pages = table[mine, : -(-held // page)].long()
        k = keys[pages].permute(1, 0, 3, 2).flatten(1, 2)[:, :held]
        v = values[pages].transpose(0, 1).flatten(1, 2)[:, :held]
        seen = torch.arange(held, device=q.device) <= positions[first:end, None]
        out[first:end] = _attend(q[first:end], k[None], v[None], seen)
        first = end
    return out


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Queries [T, heads, D] over keys and values [1, kv_heads, L, D], as `seen` [T, L] allows."""
    new, heads, dim = q.shape
    if new == 1:
        # One query sees everything, so the heads that share keys go as one head's queries.
        q = q.view(1, k.shape[1], -1, dim)
        return F.scaled_dot_product_attention(q, k, v).reshape(1, heads, dim)
    # The fast kernels want as many key heads as query heads.
    k, v = (each.repeat_interleave(heads // each.shape[1], dim=1) for each in (k, v))
    mask = None if new == k.shape[2] else seen
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], k, v, mask, is_causal=mask is None
    )
    return out[0].transpose(0, 1)
