"""Mixture of SwiGLU experts on tokens sorted by expert: one GEMM an expert, backward by hand.

The routing weight is applied before the down-projection, where rows are narrower. Only the
gate and up projections are kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

Spans = list[tuple[int, int, int]]
"""(expert, first row, end row) of the experts that got tokens."""


def grouped_experts(
    x: torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    """The same as `reference.grouped_experts`."""
    return _GroupedExperts.apply(x, experts, weights, gate_up, down)  # type: ignore[no-any-return, no-untyped-call]


class _GroupedExperts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        experts: torch.Tensor,
        weights: torch.Tensor,
        gate_up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:
        top_k = experts.shape[1]
        order = torch.argsort(experts.flatten(), stable=True)  # [N*K], sorted row -> N*K slot
        spans = spans_of(torch.bincount(experts.flatten(), minlength=gate_up.shape[0]).cumsum(0))
        rows = x.index_select(0, order // top_k)
        hidden = by_expert(spans, rows, gate_up)  # [N*K, 2I]
        gate, up = hidden.chunk(2, dim=-1)
        scale = weights.flatten()[order, None].to(x.dtype)
        out = by_expert(spans, F.silu(gate).mul_(up).mul_(scale), down)  # [N*K, H]
        ctx.spans, ctx.top_k = spans, top_k
        ctx.save_for_backward(x, order, weights, hidden, gate_up, down)
        return _sum_slots(out, order, top_k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, order, weights, hidden, gate_up, down = ctx.saved_tensors
        tokens = order // ctx.top_k
        gate, up = hidden.chunk(2, dim=-1)
        scale = weights.flatten()[order, None].to(x.dtype)
        d_out = grad.index_select(0, tokens)  # [N*K, H]

        gated = F.silu(gate)
        active = gated * up
        d_active = by_expert(ctx.spans, d_out, down.mT)  # of the scaled activation
        d_scale = torch.linalg.vecdot(d_active, active)  # [N*K]
        d_down = outer(ctx.spans, d_out, active.mul_(scale), down)

        d_active.mul_(scale)
        d_hidden = torch.empty_like(hidden)
        torch.mul(d_active, gated, out=d_hidden[:, up.shape[1] :])
        d_hidden[:, : up.shape[1]] = torch.ops.aten.silu_backward(d_active.mul_(up), gate)
        d_gate_up = outer(ctx.spans, d_hidden, x.index_select(0, tokens), gate_up)
        d_x = _sum_slots(by_expert(ctx.spans, d_hidden, gate_up.mT), order, ctx.top_k)
        d_weights = torch.empty_like(weights).flatten()
        d_weights[order] = d_scale.to(weights.dtype)
        return d_x, None, d_weights.view_as(weights), d_gate_up, d_down


def spans_of(row_ends: torch.Tensor) -> Spans:
    """Experts and their rows, from where the rows of each expert end, [E]."""
    ends = row_ends.tolist()
    starts = [0, *ends]
    return [
        (expert, start, end)
        for expert, (start, end) in enumerate(zip(starts, ends, strict=False))
        if end > start
    ]


def by_expert(spans: Spans, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Each span of `rows` [M, A] times its expert's `weight` [E, B, A], giving [M, B]."""
    out = rows.new_empty(rows.shape[0], weight.shape[1])
    for expert, start, end in spans:
        torch.mm(rows[start:end], weight[expert].t(), out=out[start:end])
    return out


def outer(
    spans: Spans, left: torch.Tensor, right: torch.Tensor, like: torch.Tensor
) -> torch.Tensor:
    """The gradient of each expert's weight [E, B, A] from `left` [M, B] and `right` [M, A]."""
    out = torch.empty_like(like)
    idle = set(range(like.shape[0]))
    for expert, start, end in spans:
        torch.mm(left[start:end].t(), right[start:end], out=out[expert])
        idle.discard(expert)
    for expert in idle:
        out[expert].zero_()
    return out


def _sum_slots(rows: torch.Tensor, order: torch.Tensor, top_k: int) -> torch.Tensor:
    """Add up the `top_k` sorted rows of each token."""
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    slots = inverse.view(-1, top_k)
    out = rows.index_select(0, slots[:, 0])
    for slot in range(1, top_k):
        out += rows.index_select(0, slots[:, slot])
    return out
