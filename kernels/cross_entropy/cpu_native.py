"""Summed cross-entropy a chunk of rows at a time: logits by GEMM, value and gradient in C++.

As `cpu_chunked`, with one compiled pass over a chunk's logits, which become their gradient.
Memory: `ROWS` x vocabulary in the type of `hidden`, kept from call to call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..native import Scratch, call
from ..token_logprobs.cpu_chunked import backpropagate
from ..token_logprobs.cpu_native import known_targets, token_logprobs
from .cpu_chunked import ROWS

_SCRATCH = Scratch()


def cross_entropy(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same as `reference.cross_entropy`."""
    if not (torch.is_grad_enabled() and (hidden.requires_grad or head.requires_grad)):
        return -token_logprobs(hidden, head, targets).sum()
    return _CrossEntropy.apply(hidden, head, targets)  # type: ignore[no-any-return, no-untyped-call]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        hidden, targets = hidden.contiguous(), known_targets(targets, len(head))
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros_like(head, dtype=torch.float32)
        losses = hidden.new_empty(len(targets), dtype=torch.float32)
        for start in range(0, len(targets), ROWS):
            chunk = slice(start, start + ROWS)
            rows = hidden[chunk]
            logits = _SCRATCH.like("logits", rows, len(head))
            torch.mm(rows, head.t(), out=logits)
            tensors = (logits, targets[chunk], losses[chunk])
            call(__package__, "rows", hidden.dtype, *tensors, *logits.shape)
            backpropagate(logits, rows, head, d_hidden[chunk], d_head)
        ctx.save_for_backward(d_hidden, d_head.to(head.dtype))
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        d_hidden, d_head = ctx.saved_tensors
        return d_hidden * grad.to(d_hidden.dtype), d_head * grad.to(d_head.dtype), None
