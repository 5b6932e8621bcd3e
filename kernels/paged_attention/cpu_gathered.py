"""Attention over a paged cache with torch's fused kernel, a sequence at a time.

The query heads that share a key head are rows of one small matrix, so no key is repeated.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def paged_attention(
    q: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """The same as `reference.paged_attention`."""
    page, kv_heads, dim = k_pages.shape[1:]
    grouped = q.view(len(q), kv_heads, q.shape[1] // kv_heads, dim)  # [B, kv_heads, group, D]
    out = torch.empty_like(grouped)
    for row, length in enumerate(lengths.tolist()):
        pages = table[row, : -(-length // page)]
        k, v = (
            each.index_select(0, pages).flatten(0, 1)[:length].transpose(0, 1)
            for each in (k_pages, v_pages)
        )
        out[row] = F.scaled_dot_product_attention(grouped[row][None], k[None], v[None])[0]
    return out.view_as(q)
