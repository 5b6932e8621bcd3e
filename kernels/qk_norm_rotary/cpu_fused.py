"""Norm and rotary with one hand-written backward: the turned part is written in place.

Keeps the input and one number a token for the backward pass. Turns in fp32 and rounds once, where
the reference rounds after the norm too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def qk_norm_rotary(
    x: torch.Tensor, weight: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, eps: float
) -> torch.Tensor:
    """The same as `reference.qk_norm_rotary`."""
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
        flat = x.flatten(1).float()
        length = torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
        scale = torch.rsqrt(length.square_().div_(flat.shape[1]).add_(eps))  # [N, 1]
        ctx.save_for_backward(x, weight, cos, sin, scale)
        normed = (flat * scale).mul_(weight).view(x.shape)
        return _turn(normed, cos, sin).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, cos, sin, scale = ctx.saved_tensors
        back = grad.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        d_scaled = _turn(back, cos, -sin).flatten(1)
        normed = x.flatten(1).float() * scale
        d_weight = (d_scaled * normed).sum(0)
        d_normed = d_scaled.mul_(weight)
        along = torch.linalg.vecdot(d_normed, normed).div_(normed.shape[1]).unsqueeze_(-1)
        d_x = d_normed.addcmul_(normed, along, value=-1).mul_(scale)
        return d_x.view(x.shape).to(x.dtype), d_weight.to(weight.dtype), None, None, None


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn fp32 heads [N, heads, D] in place."""
    half = cos.shape[-1]
    cos, sin = cos[:, None], sin[:, None]  # [N, 1, R/2]
    first, second = x[..., :half], x[..., half : 2 * half]
    turned = first * cos - second * sin
    second.mul_(cos).addcmul_(first, sin)
    first.copy_(turned)
    return x
