"""Summed cross-entropy in Triton: chunks of logits by GEMM, value and gradient by a row kernel.

The gradient overwrites the logits; memory and targets outside the vocabulary as in
`token_logprobs`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from ..token_logprobs.triton_kernel import chunks, rows_gradient, rows_logprobs


def cross_entropy(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same as `reference.cross_entropy`."""
    return _CrossEntropy.apply(hidden, head, targets)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros_like(head, dtype=torch.float32)
        logprobs = hidden.new_empty(targets.shape, dtype=torch.float32)
        total = torch.empty_like(logprobs)
        minus = -torch.ones_like(logprobs)
        for rows in chunks(hidden):
            logits = F.linear(hidden[rows], head)
            rows_logprobs(logits, targets[rows], logprobs[rows], total[rows])
            rows_gradient(logits, targets[rows], total[rows], minus[rows])
            torch.mm(logits, head, out=d_hidden[rows])
            d_head += logits.t() @ hidden[rows]
        ctx.save_for_backward(d_hidden, d_head.to(head.dtype))
        return -logprobs.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        d_hidden, d_head = ctx.saved_tensors
        return d_hidden * grad.to(d_hidden.dtype), d_head * grad.to(d_head.dtype), None
