"""Log-probabilities of given tokens, a chunk of rows at a time; logits are computed anew backward.

Memory: `ROWS` x vocabulary in fp32, whatever the number of tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

ROWS = 512


def token_logprobs(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same as `reference.token_logprobs`."""
    return _TokenLogprobs.apply(hidden, head, targets)  # type: ignore[no-any-return, no-untyped-call]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        out = hidden.new_empty(targets.shape, dtype=torch.float32)
        for rows in chunks(targets):
            logits = F.linear(hidden[rows], head).float()
            picked = logits.gather(1, targets[rows, None]).squeeze(1)
            out[rows] = picked.sub_(logits.logsumexp(-1))
        ctx.save_for_backward(hidden, head, targets)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        hidden, head, targets = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros_like(head, dtype=torch.float32)
        for rows in chunks(targets):
            # grad * (onehot(target) - softmax(logits))
            d_logits = F.linear(hidden[rows], head).softmax(-1, dtype=torch.float32)
            d_logits.mul_(-grad[rows, None])
            d_logits.scatter_add_(1, targets[rows, None], grad[rows, None])
            narrow = d_logits.to(hidden.dtype)
            backpropagate(narrow, hidden[rows], head, d_hidden[rows], d_head)
        return d_hidden, d_head.to(head.dtype), None


def backpropagate(
    d_logits: torch.Tensor,
    hidden: torch.Tensor,
    head: torch.Tensor,
    d_hidden: torch.Tensor,
    d_head: torch.Tensor,
) -> None:
    """From the gradient of a chunk's logits [R, V] to those of what made them.

    Args:
        d_hidden: [R, H], is written.
        d_head: [V, H] fp32, is added to.
    """
    torch.mm(d_logits, head, out=d_hidden)
    if d_head.dtype == hidden.dtype:
        d_head.addmm_(d_logits.t(), hidden)
    else:
        d_head += d_logits.t() @ hidden


def chunks(targets: torch.Tensor) -> list[slice]:
    """The rows to take at once."""
    return [slice(start, start + ROWS) for start in range(0, targets.shape[0], ROWS)]
