"""RMS norm in C++, fp32 or bf16 in memory: one pass over each row, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..native import call


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """The same as `reference.rms_norm`; rounds once."""
    return _RmsNorm.apply(x, weight, eps)  # type: ignore[no-any-return, no-untyped-call]


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        rows, weight = x.reshape(-1, x.shape[-1]).contiguous(), weight.to(x.dtype)
        out = torch.empty_like(rows)
        scale = rows.new_empty(len(rows), dtype=torch.float32)
        call(__package__, "forward", x.dtype, rows, weight, out, scale, *rows.shape, eps)
        ctx.save_for_backward(rows, weight, scale)
        return out.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        rows, weight, scale = ctx.saved_tensors
        flat = grad.reshape(rows.shape).contiguous()
        d_x = torch.empty_like(rows)
        d_weight = weight.new_empty(weight.shape, dtype=torch.float32)
        tensors = (rows, weight, scale, flat, d_x, d_weight)
        call(__package__, "backward", rows.dtype, *tensors, *rows.shape)
        return d_x.view(grad.shape), d_weight.to(weight.dtype), None
