"""AdamW in PyTorch's in-place operations: several passes over memory, one new tensor."""

from __future__ import annotations

import torch


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
    scaled = grad.float() * grad_scale
    mean.lerp_(scaled, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(scaled, scaled, value=1 - betas[1])
    root = torch.sqrt(square, out=scaled).div_((1 - betas[1] ** step) ** 0.5).add_(eps)
    param.mul_(1 - lr * weight_decay).addcdiv_(mean, root, value=-lr / (1 - betas[0] ** step))
    if rounded is not None:
        rounded.copy_(param)


def squared_norm(grad: torch.Tensor) -> torch.Tensor:
    """The same as `reference.squared_norm`."""
    norm: torch.Tensor = torch.linalg.vector_norm(grad, dtype=torch.float32)
    return norm.square()
