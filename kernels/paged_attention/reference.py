"""Attention over a paged cache, sequence by sequence as the formula reads."""

from __future__ import annotations

import torch


def paged_attention(
    q: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """Softmax attention of each sequence's newest token over its whole cache, itself included.

    Args:
        q: [B, heads, D]
        k_pages, v_pages: [pages, page, kv_heads, D]; what lies behind a sequence's end is not read.
        table: [B, most] int64, the pages of each sequence in order; what lies behind its last is
            not read.
        lengths: [B] int64, tokens of each sequence, at least 1.

    Returns:
        [B, heads, D] in the type of `q`.
    """
    group = q.shape[1] // k_pages.shape[2]
    page = k_pages.shape[1]
    out = torch.empty_like(q)
    for row, length in enumerate(lengths.tolist()):
        pages = table[row, : -(-length // page)]
        k, v = (
            each[pages].flatten(0, 1)[:length].repeat_interleave(group, dim=1).float()
            for each in (k_pages, v_pages)
        )
        scores = torch.einsum("hd,thd->ht", q[row].float(), k) / q.shape[-1] ** 0.5
        out[row] = torch.einsum("ht,thd->hd", scores.softmax(-1), v).to(q.dtype)
    return out
