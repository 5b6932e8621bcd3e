"""Tree attention in C++, fp32 or bf16 in memory; keeps one number a query for the backward pass.

Threads share out trees and key heads, so one long tree with one key head has one thread.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..native import call


def tree_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, exits: torch.Tensor
) -> torch.Tensor:
    """The same as `reference.tree_attention`."""
    return _TreeAttention.apply(q, k, v, exits)  # type: ignore[no-any-return, no-untyped-call]


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, exits: torch.Tensor
    ) -> torch.Tensor:
        q, k, v = (each.to(q.dtype).contiguous() for each in (q, k, v))
        exits = exits.long().contiguous()
        out = torch.empty_like(q)
        total = q.new_empty(q.shape[:2], dtype=torch.float32)
        call(__package__, "forward", q.dtype, q, k, v, exits, out, total, *_sizes(q, k))
        ctx.save_for_backward(q, k, v, exits, out, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors
        q, k, v = saved[:3]
        made = [torch.empty_like(each) for each in (q, k, v)]
        tensors = (*saved, grad.contiguous(), *made)
        call(__package__, "backward", q.dtype, *tensors, *_sizes(q, k))
        return (*made, None)


def _sizes(q: torch.Tensor, k: torch.Tensor) -> tuple[int, ...]:
    return (*q.shape[:2], k.shape[1], q.shape[2])
