"""AdamW in C++: each number is read and written once. Gradients in fp32 or bf16."""

from __future__ import annotations

import torch

from ..native import call


def adamw(
    param: torch.Tensor,
    grad: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    rounded: torch.Tensor | None,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    grad_scale: float = 1.0,
) -> None:
    """The same as `reference.adamw`."""
    rate, root_scale = lr / (1 - betas[0] ** step), (1 - betas[1] ** step) ** -0.5
    numbers = (*betas, eps, 1 - lr * weight_decay, rate, root_scale, grad_scale)
    fits = rounded is not None and rounded.dtype == grad.dtype
    tensors = (param, grad.contiguous(), mean, square, rounded if fits else None)
    call(__package__, "step", grad.dtype, *tensors, param.numel(), *map(float, numbers))
    if rounded is not None and not fits:
        rounded.copy_(param)


def squared_norm(grad: torch.Tensor) -> torch.Tensor:
    """The same as `reference.squared_norm`; PyTorch would copy a gradient in bf16 to fp32 first."""
    out = torch.empty((), dtype=torch.float32)
    call(__package__, "squared_norm", grad.dtype, grad.contiguous(), out, grad.numel())
    return out
