"""Mixture of SwiGLU experts in Triton: one grouped GEMM for all experts, SwiGLU in one pass.

p_ pointer, b_ block of values, s_ stride; M rows sorted by expert, B output and A input columns;
TM, TB and TA what a tile has of them. The number of tiles is an upper bound from the shapes, so
that nothing waits for the GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from .cpu_sorted import _sum_slots

_PLAIN = {"TM": 32, "TB": 32, "TA": 32, "num_warps": 4}
"""Tiles of fp32, whose products no tensor core takes."""
_LOW = {"TB": 128, "TA": 64, "num_warps": 4, "num_stages": 3}
_HIGH = {"TM": 128, "TB": 256, "TA": 64, "num_warps": 8, "num_stages": 3}
_OUTER = {"TM": 64, "TB": 128, "TA": 128, "num_warps": 4, "num_stages": 2}
"""Of bf16, for few and for many rows an expert and for gradients, as measured on an H100."""


def grouped_experts(
    x: torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    """The same as `reference.grouped_experts`."""
    return _GroupedExperts.apply(x, experts, weights, gate_up, down)


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
        by_row, order = experts.flatten().sort(stable=True)  # [M]; order: sorted row -> slot
        numbers = torch.arange(len(gate_up), device=x.device)
        ends = torch.searchsorted(by_row, numbers, right=True)  # [E]
        hidden = _by_expert(ends, x.index_select(0, order // top_k), gate_up)  # [M, 2I]
        scale = weights.flatten()[order].float().contiguous()
        active = hidden.new_empty(len(hidden), down.shape[2])
        _rows(_swiglu, hidden, scale, active)
        out = _by_expert(ends, active, down)  # [M, H]
        ctx.top_k = top_k
        ctx.save_for_backward(x, order, weights, hidden, gate_up, down, ends)
        return _sum_slots(out, order, top_k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, order, weights, hidden, gate_up, down, ends = ctx.saved_tensors
        tokens = order // ctx.top_k
        scale = weights.flatten()[order].float().contiguous()
        d_out = grad.index_select(0, tokens)  # [M, H]
        active = hidden.new_empty(len(hidden), down.shape[2])
        _rows(_swiglu, hidden, scale, active)
        d_down = _outer(ends, d_out, active, down)
        d_active = _by_expert(ends, d_out, down.mT)
        d_hidden, d_scale = torch.empty_like(hidden), torch.empty_like(scale)
        _rows(_swiglu_backward, hidden, scale, d_active, d_hidden, d_scale)
        d_gate_up = _outer(ends, d_hidden, x.index_select(0, tokens), gate_up)
        d_x = _sum_slots(_by_expert(ends, d_hidden, gate_up.mT), order, ctx.top_k)
        d_weights = torch.empty_like(weights).flatten()
        d_weights[order] = d_scale.to(weights.dtype)
        return d_x, None, d_weights.view_as(weights), d_gate_up, d_down


def _rows(kernel: Any, hidden: torch.Tensor, *others: torch.Tensor) -> None:
    inner = hidden.shape[1] // 2
    if len(hidden):
        kernel[(len(hidden),)](hidden, *others, D=inner, C=triton.next_power_of_2(inner))


def _by_expert(ends: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Each expert's rows of `rows` [M, A] times its `weight` [E, B, A], giving [M, B]."""
    experts, wide, _ = weight.shape
    out = rows.new_empty(len(rows), wide)
    sizes = _sizes(rows, experts)
    high = sizes["TM"]
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    tile_ends = ((counts + high - 1) // high).cumsum(0)
    tiles = len(rows) // high + experts  # at least as many as there are
    number = torch.arange(tiles, device=rows.device)
    expert = torch.searchsorted(tile_ends, number, right=True)
    known = expert.clamp(max=experts - 1)
    before = torch.where(known > 0, tile_ends[known - 1], 0)
    start = ends[known] - counts[known] + (number - before) * high
    end = torch.where(expert < experts, ends[known], 0)  # an unused tile is empty
    _matmul[(triton.cdiv(wide, sizes["TB"]), tiles)](
        rows, weight, out, known, start, end, wide, rows.shape[1], *weight.stride(), **sizes
    )
    return out


def _outer(
    ends: torch.Tensor, left: torch.Tensor, right: torch.Tensor, like: torch.Tensor
) -> torch.Tensor:
    """The gradient of each expert's weight [E, B, A] from `left` [M, B] and `right` [M, A]."""
    out = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    experts, wide, deep = like.shape
    sizes = _PLAIN if left.dtype == torch.float32 else _OUTER
    grid = (triton.cdiv(deep, sizes["TA"]), triton.cdiv(wide, sizes["TB"]), experts)
    _outer_product[grid](left, right, out, ends, wide, deep, **sizes)
    return out


def _sizes(rows: torch.Tensor, experts: int) -> dict[str, int]:
    """Tiles as high as an expert has rows, on average, in powers of 2 from 16 to 128."""
    if rows.dtype == torch.float32:
        return _PLAIN
    height = max(16, triton.next_power_of_2(len(rows) // experts))
    return _HIGH if height >= 128 else _LOW | {"TM": height}


@triton.jit
def _matmul(
    p_x,
    p_w,
    p_y,
    p_expert,
    p_start,
    p_end,
    B,
    A,
    s_expert,
    s_out,
    s_in,
    TM: tl.constexpr,
    TB: tl.constexpr,
    TA: tl.constexpr,
):
    tile = tl.program_id(1)
    first = tl.load(p_start + tile)
    end = tl.load(p_end + tile)
    if first >= end:
        return
    rows = (first + tl.arange(0, TM)).to(tl.int64)
    valid = rows < end
    columns = tl.program_id(0) * TB + tl.arange(0, TB)
    p_w += tl.load(p_expert + tile) * s_expert
    b_y = tl.zeros([TM, TB], dtype=tl.float32)
    for start in range(0, A, TA):
        deep = start + tl.arange(0, TA)
        b_x = tl.load(
            p_x + rows[:, None] * A + deep[None, :],
            mask=valid[:, None] & (deep[None, :] < A),
            other=0.0,
        )
        b_w = tl.load(
            p_w + columns[None, :] * s_out + deep[:, None] * s_in,
            mask=(columns[None, :] < B) & (deep[:, None] < A),
            other=0.0,
        )
        b_y += tl.dot(b_x, b_w, input_precision="ieee")
    tl.store(
        p_y + rows[:, None] * B + columns[None, :],
        b_y.to(p_y.dtype.element_ty),
        mask=valid[:, None] & (columns[None, :] < B),
    )


@triton.jit
def _outer_product(
    p_left, p_right, p_out, p_ends, B, A, TM: tl.constexpr, TB: tl.constexpr, TA: tl.constexpr
):
    expert = tl.program_id(2).to(tl.int64)
    wide = tl.program_id(1) * TB + tl.arange(0, TB)
    deep = tl.program_id(0) * TA + tl.arange(0, TA)
    first = tl.load(p_ends + expert - 1, mask=expert > 0, other=0)
    end = tl.load(p_ends + expert)
    b_out = tl.zeros([TB, TA], dtype=tl.float32)
    for start in range(first, end, TM):
        rows = start + tl.arange(0, TM)
        b_left = tl.load(
            p_left + rows[None, :] * B + wide[:, None],
            mask=(rows[None, :] < end) & (wide[:, None] < B),
            other=0.0,
        )
        b_right = tl.load(
            p_right + rows[:, None] * A + deep[None, :],
            mask=(rows[:, None] < end) & (deep[None, :] < A),
            other=0.0,
        )
        b_out += tl.dot(b_left, b_right, input_precision="ieee")
    tl.store(
        p_out + expert * B * A + wide[:, None] * A + deep[None, :],
        b_out.to(p_out.dtype.element_ty),
        mask=(wide[:, None] < B) & (deep[None, :] < A),
    )


@triton.jit
def _swiglu(p_hidden, p_scale, p_out, D: tl.constexpr, C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, C)
    inside = columns < D
    at = p_hidden + row * 2 * D + columns
    b_gate = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    b_up = tl.load(at + D, mask=inside, other=0.0).to(tl.float32)
    b_out = b_gate * tl.sigmoid(b_gate) * b_up * tl.load(p_scale + row)
    tl.store(p_out + row * D + columns, b_out.to(p_out.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_backward(
    p_hidden, p_scale, p_grad, p_dhidden, p_dscale, D: tl.constexpr, C: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, C)
    inside = columns < D
    at = row * 2 * D + columns
    b_gate = tl.load(p_hidden + at, mask=inside, other=0.0).to(tl.float32)
    b_up = tl.load(p_hidden + at + D, mask=inside, other=0.0).to(tl.float32)
    b_grad = tl.load(p_grad + row * D + columns, mask=inside, other=0.0).to(tl.float32)
    b_open = tl.sigmoid(b_gate)
    b_silu = b_gate * b_open
    tl.store(p_dscale + row, tl.sum(b_grad * b_silu * b_up, axis=0))
    b_grad = b_grad * tl.load(p_scale + row)
    b_dgate = b_grad * b_up * b_open * (1.0 + b_gate * (1.0 - b_open))
    kind = p_dhidden.dtype.element_ty
    tl.store(p_dhidden + at, b_dgate.to(kind), mask=inside)
    tl.store(p_dhidden + at + D, (b_grad * b_silu).to(kind), mask=inside)
