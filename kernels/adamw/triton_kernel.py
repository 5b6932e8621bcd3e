"""AdamW in Triton, in one pass. p_ pointer, b_ block of values, n numbers, C of a block."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .cpu_torch import squared_norm

__all__ = ["adamw", "squared_norm"]  # for the latter PyTorch reads bf16 as it lies on a GPU
_BLOCK = 1024


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
    n = param.numel()
    rate, root_scale = lr / (1 - betas[0] ** step), (1 - betas[1] ** step) ** -0.5
    numbers = (*betas, eps, 1 - lr * weight_decay, rate, root_scale, grad_scale)
    tensors = (param, grad.contiguous(), mean, square, param if rounded is None else rounded)
    _step[(triton.cdiv(n, _BLOCK),)](*tensors, n, *numbers, C=_BLOCK)


@triton.jit
def _step(
    p_param,
    p_grad,
    p_mean,
    p_square,
    p_rounded,
    n,
    beta1,
    beta2,
    eps,
    kept,
    rate,
    root_scale,
    grad_scale,
    C: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * C + tl.arange(0, C)
    inside = at < n
    b_grad = tl.load(p_grad + at, mask=inside, other=0.0).to(tl.float32) * grad_scale
    b_mean = tl.load(p_mean + at, mask=inside, other=0.0) * beta1 + b_grad * (1.0 - beta1)
    b_square = tl.load(p_square + at, mask=inside, other=0.0) * beta2
    b_square += b_grad * b_grad * (1.0 - beta2)
    b_param = tl.load(p_param + at, mask=inside, other=0.0) * kept
    b_param -= rate * b_mean / (tl.sqrt(b_square) * root_scale + eps)
    tl.store(p_mean + at, b_mean, mask=inside)
    tl.store(p_square + at, b_square, mask=inside)
    tl.store(p_param + at, b_param, mask=inside)
    tl.store(p_rounded + at, b_param.to(p_rounded.dtype.element_ty), mask=inside)
