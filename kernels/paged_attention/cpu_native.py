"""Attention over a paged cache in C++, for pages of 16 tokens; others go to `cpu_gathered`.

No mask, no copy of keys; tokens of one sequence, and sequences that share pages, read them once.
"""

from __future__ import annotations

import torch

from ..native import call
from . import cpu_gathered

_PAGE, _WIDEST = 16, 256  # lanes of a vector, and the largest head; as attention.h has them


def paged_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    owner: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """The same as `reference.paged_attention`."""
    _, kv_heads, dim, page = keys.shape
    if page != _PAGE or dim > _WIDEST or keys.dtype != q.dtype:
        return cpu_gathered.paged_attention(q, keys, values, table, owner, positions)
    given = (q, keys, values, table.int(), owner.long(), positions.long())
    tensors = [each.contiguous() for each in given]
    out = torch.empty_like(tensors[0])
    sizes = (len(q), q.shape[1], kv_heads, dim, table.shape[1])
    call(__package__, "paged_attention", q.dtype, *tensors, out, *sizes)
    return out
