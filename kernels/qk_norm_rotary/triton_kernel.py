"""Norm and rotary in Triton: a token a program forward, tokens in turn a program backward.

p_ pointer, b_ block of values; N tokens, W = heads * D numbers each, C = W rounded up, R half the
turned dimensions. A dimension reads its partner, R away, instead of moving halves about.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

_PROGRAMS = 512


def qk_norm_rotary(
    x: torch.Tensor, weight: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, eps: float
) -> torch.Tensor:
    """The same as `reference.qk_norm_rotary`."""
    return _QkNormRotary.apply(x, weight, cos, sin, eps)


class _QkNormRotary(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
        out = torch.empty_like(x)
        scale = x.new_empty(len(x), dtype=torch.float32)
        if len(x):
            _forward[(len(x),)](x, weight, cos, sin, out, scale, eps, **_sizes(x, cos))
        ctx.save_for_backward(x, weight, cos, sin, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, cos, sin, scale = ctx.saved_tensors
        programs = min(_PROGRAMS, max(1, len(x)))
        d_x = torch.empty_like(x)
        d_weight = x.new_zeros(programs, len(weight), dtype=torch.float32)
        if len(x):
            inputs = (x, weight, cos, sin, scale, grad.contiguous())
            _backward[(programs,)](*inputs, d_x, d_weight, len(x), **_sizes(x, cos))
        return d_x, d_weight.sum(0).to(weight.dtype), None, None, None


def _sizes(x: torch.Tensor, cos: torch.Tensor) -> dict[str, int]:
    width = x.shape[1] * x.shape[2]
    columns = triton.next_power_of_2(width)
    sizes = {"W": width, "D": x.shape[2], "R": cos.shape[1], "C": columns}
    return sizes | {"num_warps": min(16, max(4, columns // 512))}


@triton.jit
def _turning(p_cos, p_sin, row, inside, D: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """Offset of each column's partner, its cosine, and the sine its partner counts with."""
    columns = tl.arange(0, C)
    place = columns % D
    turned = inside & (place < 2 * R)
    first = place < R
    at = row * R + place % R
    b_cos = tl.load(p_cos + at, mask=turned, other=1.0)
    b_sin = tl.load(p_sin + at, mask=turned, other=0.0)
    partner = tl.where(turned, tl.where(first, columns + R, columns - R), columns)
    return partner, b_cos, tl.where(first, -b_sin, b_sin)


@triton.jit
def _forward(
    p_x,
    p_w,
    p_cos,
    p_sin,
    p_y,
    p_scale,
    eps,
    W: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, C)
    inside = columns < W
    partner, b_cos, b_sin = _turning(p_cos, p_sin, row, inside, D, R, C)
    b_x = tl.load(p_x + row * W + columns, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(b_x * b_x, axis=0) / W + eps)
    b_y = b_x * tl.load(p_w + columns, mask=inside, other=0.0).to(tl.float32) * b_cos
    b_other = tl.load(p_x + row * W + partner, mask=inside, other=0.0).to(tl.float32)
    b_other *= tl.load(p_w + partner, mask=inside, other=0.0).to(tl.float32)
    b_y = (b_y + b_other * b_sin) * scale
    tl.store(p_y + row * W + columns, b_y.to(p_y.dtype.element_ty), mask=inside)
    tl.store(p_scale + row, scale)


@triton.jit
def _backward(
    p_x,
    p_w,
    p_cos,
    p_sin,
    p_scale,
    p_g,
    p_dx,
    p_dw,
    N,
    W: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
):
    program = tl.program_id(0)
    columns = tl.arange(0, C)
    inside = columns < W
    b_w = tl.load(p_w + columns, mask=inside, other=0.0).to(tl.float32)
    b_dw = tl.zeros([C], dtype=tl.float32)
    for row in range(program, N, tl.num_programs(0)):
        partner, b_cos, b_sin = _turning(p_cos, p_sin, row, inside, D, R, C)
        b_g = tl.load(p_g + row * W + columns, mask=inside, other=0.0).to(tl.float32)
        b_other = tl.load(p_g + row * W + partner, mask=inside, other=0.0).to(tl.float32)
        b_g = b_g * b_cos - b_other * b_sin  # turned back
        scale = tl.load(p_scale + row)
        b_n = tl.load(p_x + row * W + columns, mask=inside, other=0.0).to(tl.float32) * scale
        b_dw += b_g * b_n
        b_dn = b_g * b_w
        b_dx = (b_dn - b_n * (tl.sum(b_dn * b_n, axis=0) / W)) * scale
        tl.store(p_dx + row * W + columns, b_dx.to(p_dx.dtype.element_ty), mask=inside)
    tl.store(p_dw + program * W + columns, b_dw, mask=inside)
