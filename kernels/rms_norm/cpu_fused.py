"""RMS norm with a hand-written backward: fewer passes over memory than autograd makes."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """The same as `reference.rms_norm`."""
    return _RmsNorm.apply(x, weight, eps)  # type: ignore[no-any-return, no-untyped-call]


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1]).float()
        length = torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
        scale = torch.rsqrt(length.square_().div_(x.shape[-1]).add_(eps))  # [N, 1]
        ctx.save_for_backward(x, weight, scale)
        return (flat * scale).to(x.dtype).mul_(weight).view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        dim = x.shape[-1]
        normed = x.reshape(-1, dim).float() * scale  # [N, D]
        grad = grad.reshape(-1, dim).float()
        d_weight = (grad * normed).sum(0)
        d_normed = grad * weight
        along = torch.linalg.vecdot(d_normed, normed).div_(dim).unsqueeze_(-1)
        d_x = d_normed.addcmul_(normed, along, value=-1).mul_(scale)
        return d_x.view_as(x).to(x.dtype), d_weight.to(weight.dtype), None
