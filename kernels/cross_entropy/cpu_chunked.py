"""Summed cross-entropy a chunk of rows at a time; the gradients are made with the value.

The gradient of a sum needs no upstream row, so each chunk's logits serve value and gradients and
are computed once, where `token_logprobs` has to compute them again. Memory: `ROWS` x vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from ..token_logprobs.cpu_chunked import backpropagate
from . import reference

ROWS = 512


def cross_entropy(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same as `reference.cross_entropy`."""
    if not (torch.is_grad_enabled() and (hidden.requires_grad or head.requires_grad)):
        chunks = zip(torch.split(hidden, ROWS), torch.split(targets, ROWS), strict=True)
        losses = [reference.cross_entropy(rows, head, aims) for rows, aims in chunks]
        return torch.stack([hidden.new_zeros((), dtype=torch.float32), *losses]).sum()
    return _CrossEntropy.apply(hidden, head, targets)  # type: ignore[no-any-return, no-untyped-call]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros_like(head, dtype=torch.float32)
        loss = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(targets), ROWS):
            rows = slice(start, start + ROWS)
            aims = targets[rows, None]
            probs = F.linear(hidden[rows], head).float().log_softmax(-1)
            loss -= probs.gather(1, aims).sum()
            probs.exp_()
            probs.scatter_add_(1, aims, probs.new_full(aims.shape, -1.0))
            narrow = probs.to(hidden.dtype)
            backpropagate(narrow, hidden[rows], head, d_hidden[rows], d_head)
        ctx.save_for_backward(d_hidden, d_head.to(head.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        d_hidden, d_head = ctx.saved_tensors
        return d_hidden * grad.to(d_hidden.dtype), d_head * grad.to(d_head.dtype), None
