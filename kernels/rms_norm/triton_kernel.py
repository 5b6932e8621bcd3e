"""RMS norm in Triton: a row a program forward, rows in turn a program backward.

p_ pointer, b_ block of values, N rows of D columns, C columns of a block (D rounded up).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

_PROGRAMS = 512


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """The same as `reference.rms_norm`."""
    return _RmsNorm.apply(x, weight, eps)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        out = torch.empty_like(rows)
        scale = rows.new_empty(rows.shape[0], dtype=torch.float32)
        if len(rows):
            _forward[(len(rows),)](rows, weight, out, scale, eps, **_sizes(rows))
        ctx.save_for_backward(rows, weight, scale)
        return out.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        rows, weight, scale = ctx.saved_tensors
        programs = min(_PROGRAMS, max(1, len(rows)))
        d_x = torch.empty_like(rows)
        d_weight = rows.new_zeros(programs, rows.shape[1], dtype=torch.float32)
        if len(rows):
            flat = grad.reshape(rows.shape).contiguous()
            _backward[(programs,)](
                rows, weight, scale, flat, d_x, d_weight, len(rows), **_sizes(rows)
            )
        return d_x.view(grad.shape), d_weight.sum(0).to(weight.dtype), None


def _sizes(rows: torch.Tensor) -> dict[str, int]:
    columns = triton.next_power_of_2(rows.shape[1])
    return {"D": rows.shape[1], "C": columns, "num_warps": min(16, max(4, columns // 512))}


@triton.jit
def _forward(p_x, p_w, p_y, p_scale, eps, D: tl.constexpr, C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, C)
    inside = columns < D
    b_x = tl.load(p_x + row * D + columns, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(b_x * b_x, axis=0) / D + eps)
    b_w = tl.load(p_w + columns, mask=inside, other=0.0)
    b_y = (b_x * scale).to(p_y.dtype.element_ty) * b_w
    tl.store(p_y + row * D + columns, b_y, mask=inside)
    tl.store(p_scale + row, scale)


@triton.jit
def _backward(p_x, p_w, p_scale, p_g, p_dx, p_dw, N, D: tl.constexpr, C: tl.constexpr):
    program = tl.program_id(0)
    columns = tl.arange(0, C)
    inside = columns < D
    b_w = tl.load(p_w + columns, mask=inside, other=0.0).to(tl.float32)
    b_dw = tl.zeros([C], dtype=tl.float32)
    for row in range(program, N, tl.num_programs(0)):
        at = row * D + columns
        scale = tl.load(p_scale + row)
        b_n = tl.load(p_x + at, mask=inside, other=0.0).to(tl.float32) * scale
        b_g = tl.load(p_g + at, mask=inside, other=0.0).to(tl.float32)
        b_dw += b_g * b_n
        b_dn = b_g * b_w
        along = tl.sum(b_dn * b_n, axis=0) / D
        tl.store(p_dx + at, ((b_dn - b_n * along) * scale).to(p_dx.dtype.element_ty), mask=inside)
    tl.store(p_dw + program * D + columns, b_dw, mask=inside)
