"""Tree attention run by run: the tokens of a node against its ancestors and itself.

Builds the mask of one node at a time, and none for a node without ancestors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def tree_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, exits: torch.Tensor
) -> torch.Tensor:
    """The same as `reference.tree_attention`."""
    out = [_attend(q[start:end], k, v, start, exits) for start, end in _runs(exits) if end > start]
    return torch.cat(out) if out else torch.empty_like(q)


def _runs(exits: torch.Tensor) -> list[tuple[int, int]]:
    """First and end row of each stretch in which every token sees all before it in the stretch.

    A new one starts where the exit changes or where the stretch before has ended.
    """
    ends = exits.tolist()
    starts = [0] if ends else []
    for row in range(1, len(ends)):
        if ends[row] != ends[row - 1] or ends[row - 1] == row:
            starts.append(row)
    return list(zip(starts, [*starts[1:], len(ends)], strict=True))


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int, exits: torch.Tensor
) -> torch.Tensor:
    """The tokens `q` [T, heads, D] of the stretch that begins at `start`."""
    length = len(q)
    above = (exits[:start] > start).nonzero().squeeze(1)
    rows = torch.cat([above, torch.arange(start, start + length)])
    # [1, heads, T, D]: the fast kernels want a batch
    q, k, v = (each.transpose(0, 1)[None] for each in (q, k[rows], v[rows]))
    mask = None
    if len(above):
        mask = torch.ones(length, len(rows), dtype=torch.bool).tril_(len(above))
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
    )
    return out[0].transpose(0, 1)
