"""Attention over a paged cache, row by row as the formula reads."""

from __future__ import annotations

import torch


def paged_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    owner: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """Softmax attention of tokens over what their sequences hold up to them, themselves included.

    Args:
        q: [N, heads, D]
        keys: [pages, kv_heads, D, page], tokens innermost. What lies behind a token is not read.
        values: [pages, kv_heads, page, D]
        table: [sequences, most] int32, the pages of each in order; what lies behind its last is
            not read.
        owner: [N] int64, the sequence of each token. Its tokens stand together, in order.
        positions: [N] int64, of each token in its sequence.

    Returns:
        [N, heads, D] in the type of `q`.
    """
    group = q.shape[1] // keys.shape[1]
    page = keys.shape[3]
    out = torch.empty_like(q)
    for row, (mine, position) in enumerate(zip(owner.tolist(), positions.tolist(), strict=True)):
        pages = table[mine, : position // page + 1].long()
        k = keys[pages].permute(1, 0, 3, 2).flatten(1, 2)[:, : position + 1].float()
        v = values[pages].transpose(0, 1).flatten(1, 2)[:, : position + 1].float()
        k, v = (each.repeat_interleave(group, dim=0) for each in (k, v))  # [heads, T, D]
        scores = torch.einsum("hd,htd->ht", q[row].float(), k) / q.shape[-1] ** 0.5
        out[row] = torch.einsum("ht,htd->hd", scores.softmax(-1), v).to(q.dtype)
    return out
