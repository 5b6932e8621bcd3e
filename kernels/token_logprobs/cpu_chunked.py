"""Log-probabilities of given tokens, a chunk of rows at a time; logits are computed anew backward.

Memory: `ROWS` x vocabulary in fp32, whatever the number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

ROWS = 512
Logprobs = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Of hidden [R, H], head and targets [R] into fp32 [R]."""
Gradient = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Of the logits [R, V] that hidden [R, H], head, targets [R] and upstream fp32 [R] give."""


def token_logprobs(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same as `reference.token_logprobs`."""
    return Chunked.apply(hidden, head, targets, _logprobs, _gradient)  # type: ignore[no-any-return, no-untyped-call]


class Chunked(torch.autograd.Function):
    """What the versions on the CPU share: they differ in what they do with a chunk's logits."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        targets: torch.Tensor,
        logprobs: Logprobs,
        gradient: Gradient,
    ) -> torch.Tensor:
        """[N] in fp32."""
        out = hidden.new_empty(targets.shape, dtype=torch.float32)
        for rows in _chunks(targets):
            logprobs(hidden[rows], head, targets[rows], out[rows])
        ctx.save_for_backward(hidden, head, targets)
        ctx.gradient = gradient
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of hidden [N, H] and head [V, H], in their types."""
        hidden, head, targets = ctx.saved_tensors
        grad = grad.contiguous()
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros_like(head, dtype=torch.float32)
        for rows in _chunks(targets):
            d_logits = ctx.gradient(hidden[rows], head, targets[rows], grad[rows])
            backpropagate(d_logits, hidden[rows], head, d_hidden[rows], d_head)
        return d_hidden, d_head.to(head.dtype), None, None, None


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


def _logprobs(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, out: torch.Tensor
) -> None:
    logits = F.linear(hidden, head).float()
    torch.sub(logits.gather(1, targets[:, None]).squeeze(1), logits.logsumexp(-1), out=out)


def _gradient(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, grad: torch.Tensor
) -> torch.Tensor:
    # grad * (onehot(target) - softmax(logits))
    d_logits = F.linear(hidden, head).softmax(-1, dtype=torch.float32)
    d_logits.mul_(-grad[:, None])
    d_logits.scatter_add_(1, targets[:, None], grad[:, None])
    return d_logits.to(hidden.dtype)


def _chunks(targets: torch.Tensor) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, targets.shape[0], ROWS)]
