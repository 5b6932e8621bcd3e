"""Mixture of SwiGLU experts in C++: the products of all experts in one call, and what lies between.

As `cpu_sorted`, but tokens are read where they lie. Rows that nothing keeps live in
memory that is used again and again, because fresh memory costs as much as the arithmetic on it.
Only the gate and up projections are kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..native import Scratch, call

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
        order, place, ends = _sort(experts.long().contiguous(), gate_up.shape[0], x.dtype)
        hidden = x.new_empty(len(order), gate_up.shape[1])
        gate_up, down = gate_up.to(x.dtype).contiguous(), down.to(x.dtype).contiguous()
        top_k = experts.shape[1]
        _products(x, order, gate_up, ends, hidden, top_k)
        active = _SCRATCH.like("active", hidden, down.shape[2])
        call(__package__, "activate", x.dtype, hidden, wide, order, active, *active.shape)
        ctx.weights_dtype = weights.dtype
        ctx.save_for_backward(x, order, place, ends, wide, hidden, gate_up, down)
        return _summed(active, down, ends, place, top_k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, order, place, ends, weights, hidden, gate_up, down = ctx.saved_tensors
        grad, top_k = grad.contiguous(), weights.shape[1]
        active = _SCRATCH.like("active", hidden, down.shape[2])
        _products(grad, order, down, ends, active, top_k, turned=True)
        d_hidden = _SCRATCH.like("hidden", hidden, hidden.shape[1])
        d_weights = torch.empty_like(weights)
        tensors = (hidden, weights, order, active, d_hidden, d_weights)
        call(__package__, "activate_backward", x.dtype, *tensors, *active.shape)
        d_down, d_gate_up = torch.empty_like(down), torch.empty_like(gate_up)
        sides = ((grad, order, active, None, d_down), (d_hidden, None, x, order, d_gate_up))
        for left, left_order, right, right_order, out in sides:
            given = (left, left_order, right, right_order, ends, out)
            call(__package__, "outer", x.dtype, *given, top_k, *out.shape)
        d_x = _summed(d_hidden, gate_up, ends, place, top_k, turned=True)
        return d_x, None, d_weights.to(ctx.weights_dtype), d_gate_up, d_down


def _sort(
    experts: torch.Tensor, count: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sorted row -> slot, slot -> sorted row, both [N*K], and where each expert's rows end [E]."""
    order = torch.empty_like(experts.view(-1))
    place = torch.empty_like(order)
    ends = order.new_empty(count)
    call(__package__, "sort", dtype, experts, order, place, ends, len(order), count)
    return order, place, ends


def _products(
    rows: torch.Tensor,
    order: torch.Tensor | None,
    weight: torch.Tensor,
    ends: torch.Tensor,
    out: torch.Tensor,
    top_k: int,
    *,
    turned: bool = False,
) -> None:
    """Rows times their expert's weight [E, B, A], or turned [E, A, B], into `out` [N*K, B].

    Args:
        order: what `_sort` gave if the rows are tokens'; None = they are sorted by expert.
    """
    sizes = (top_k, len(weight), out.shape[1], rows.shape[1], int(turned))
    call(__package__, "products", out.dtype, rows, order, weight, ends, out, *sizes)


def _summed(
    rows: torch.Tensor,
    weight: torch.Tensor,
    ends: torch.Tensor,
    place: torch.Tensor,
    top_k: int,
    *,
    turned: bool = False,
) -> torch.Tensor:
    """Sorted rows times their expert's weight, added up by token: [N, B]."""
    made = _SCRATCH.like("rows", rows, weight.shape[2 if turned else 1])
    _products(rows, None, weight, ends, made, top_k, turned=turned)
    out = made.new_empty(len(place) // top_k, made.shape[1])
    call(__package__, "gather_sum", out.dtype, made, place, out, len(out), top_k, out.shape[1])
    return out
