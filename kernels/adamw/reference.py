"""AdamW as the formulas read (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2)."""

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
    """Update `param`, `mean` and `square` in place; all have one shape.

    Args:
        param: fp32, as `mean` and `square`, the running means of the gradient and its square.
        grad: fp32 or bf16
        rounded: gets the new `param` in its own type; None = nobody wants it.
        step: from 1
        grad_scale: what the gradient is multiplied by first; clips it.
    """
    grad = grad.float() * grad_scale
    mean.copy_(betas[0] * mean + (1 - betas[0]) * grad)
    square.copy_(betas[1] * square + (1 - betas[1]) * grad**2)
    even = mean / (1 - betas[0] ** step)
    root = (square / (1 - betas[1] ** step)).sqrt()
    param.copy_((1 - lr * weight_decay) * param - lr * even / (root + eps))
    if rounded is not None:
        rounded.copy_(param)


def squared_norm(grad: torch.Tensor) -> torch.Tensor:
    """The sum of the squares of a gradient in fp32 or bf16, an fp32 scalar."""
    return grad.float().square().sum()
