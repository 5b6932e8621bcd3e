"""Mixture of SwiGLU experts: one GEMM an expert, and one compiled pass between two of them.

As `cpu_sorted`, with sorting, gathering, SwiGLU and summing in C++. Rows that nothing keeps live in
memory that is used again and again, because fresh memory costs as much as the arithmetic on it.
Only the gate and up projections are kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..native import Scratch, call
from .cpu_sorted import Spans, by_expert, outer, spans_of

_SCRATCH = Scratch()


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
        x, wide = x.contiguous(), weights.float().contiguous()
        order, place, spans = _sort(experts.long().contiguous(), gate_up.shape[0], x.dtype)
        hidden = x.new_empty(len(order), gate_up.shape[1])
        by_expert(spans, _gathered(x, order, experts.shape[1]), gate_up, hidden)
        active = _SCRATCH.like("active", hidden, down.shape[2])
        call(__package__, "activate", x.dtype, hidden, wide, order, active, *active.shape)
        ctx.spans, ctx.weights_dtype = spans, weights.dtype
        ctx.save_for_backward(x, order, place, wide, hidden, gate_up, down)
        return _summed(spans, active, down, place, wide.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, order, place, weights, hidden, gate_up, down = ctx.saved_tensors
        spans, top_k = ctx.spans, weights.shape[1]
        d_out = _gathered(grad.contiguous(), order, top_k)
        active = _SCRATCH.like("active", hidden, down.shape[2])
        by_expert(spans, d_out, down.mT, active)
        d_hidden = _SCRATCH.like("hidden", hidden, hidden.shape[1])
        d_weights = torch.empty_like(weights)
        tensors = (hidden, weights, order, active, d_hidden, d_weights)
        call(__package__, "activate_backward", x.dtype, *tensors, *active.shape)
        d_down = outer(spans, d_out, active, down)
        d_gate_up = outer(spans, d_hidden, _gathered(x, order, top_k), gate_up)
        d_x = _summed(spans, d_hidden, gate_up.mT, place, top_k)
        return d_x, None, d_weights.to(ctx.weights_dtype), d_gate_up, d_down


def _sort(
    experts: torch.Tensor, count: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, Spans]:
    """Sorted row -> slot, slot -> sorted row, both [N*K], and the rows of each expert."""
    order = torch.empty_like(experts.view(-1))
    place = torch.empty_like(order)
    ends = order.new_empty(count)
    call(__package__, "sort", dtype, experts, order, place, ends, len(order), count)
    return order, place, spans_of(ends)


def _gathered(x: torch.Tensor, order: torch.Tensor, top_k: int) -> torch.Tensor:
    """Rows of tokens [N, H], sorted by expert [N*K, H]; in scratch memory."""
    rows = _SCRATCH.take("rows", (len(order), x.shape[1]), x.dtype)
    call(__package__, "gather", x.dtype, x, order, rows, len(order), top_k, x.shape[1])
    return rows


def _summed(
    spans: Spans, rows: torch.Tensor, weight: torch.Tensor, place: torch.Tensor, top_k: int
) -> torch.Tensor:
    """Rows times their expert's weight [E, B, A], added up by token: [N, B]."""
    made = _SCRATCH.like("rows", rows, weight.shape[1])
    by_expert(spans, rows, weight, made)
    out = made.new_empty(len(place) // top_k, made.shape[1])
    call(__package__, "gather_sum", out.dtype, made, place, out, len(out), top_k, out.shape[1])
    return out
