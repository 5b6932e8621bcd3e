"""Norm and rotary in C++, fp32 or bf16 in memory: one pass over a token, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..native import call


def qk_norm_rotary(
    x: torch.Tensor, weight: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, eps: float
) -> torch.Tensor:
    """The same as `reference.qk_norm_rotary`; rounds once."""
    return _QkNormRotary.apply(x, weight, cos, sin, eps)  # type: ignore[no-any-return, no-untyped-call]


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
        x, weight = x.contiguous(), weight.to(x.dtype)
        cos, sin = cos.float().contiguous(), sin.float().contiguous()
        out = torch.empty_like(x)
        scale = x.new_empty(len(x), dtype=torch.float32)
        tensors = (x, weight, cos, sin, out, scale)
        call(__package__, "forward", x.dtype, *tensors, *x.shape, cos.shape[1], eps)
        ctx.save_for_backward(x, weight, cos, sin, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, cos, sin, scale = ctx.saved_tensors
        d_x = torch.empty_like(x)
        d_weight = weight.new_empty(weight.shape, dtype=torch.float32)
        tensors = (x, weight, cos, sin, scale, grad.contiguous(), d_x, d_weight)
        call(__package__, "backward", x.dtype, *tensors, *x.shape, cos.shape[1])
        return d_x, d_weight.to(weight.dtype), None, None, None
