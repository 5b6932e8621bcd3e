"""Log-probabilities of given tokens, a chunk of rows at a time: logits by GEMM, the rest in C++.

As `cpu_chunked`, with one compiled pass over a chunk's logits each way.
Memory: `ROWS` x vocabulary in the type of `hidden`, kept from call to call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..native import Scratch, call
from .cpu_chunked import backpropagate, chunks

_SCRATCH = Scratch()


def token_logprobs(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same as `reference.token_logprobs`."""
    return _TokenLogprobs.apply(hidden, head, targets)  # type: ignore[no-any-return, no-untyped-call]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        targets = known_targets(targets, len(head))
        out = hidden.new_empty(targets.shape, dtype=torch.float32)
        for rows in chunks(targets):
            logits = _logits(hidden[rows], head)
            call(
                __package__,
                "forward",
                hidden.dtype,
                logits,
                targets[rows],
                out[rows],
                *logits.shape,
            )
        ctx.save_for_backward(hidden, head, targets)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        hidden, head, targets = ctx.saved_tensors
        grad = grad.float().contiguous()
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros_like(head, dtype=torch.float32)
        for rows in chunks(targets):
            logits = _logits(hidden[rows], head)
            given = (logits, targets[rows], grad[rows])
            call(__package__, "backward", hidden.dtype, *given, *logits.shape)
            backpropagate(logits, hidden[rows], head, d_hidden[rows], d_head)
        return d_hidden, d_head.to(head.dtype), None


def known_targets(targets: torch.Tensor, vocab: int) -> torch.Tensor:
    """The targets as compiled code reads them.

    Raises:
        IndexError: one lies outside the vocabulary.
    """
    targets = targets.long().contiguous()
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < vocab:
        raise IndexError(
            f"expected targets of 0 to {vocab - 1}, got {int(targets.min())} to "
            f"{int(targets.max())}; the tokens are of another vocabulary"
        )
    return targets


def _logits(rows: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    return torch.mm(rows, head.t(), out=_SCRATCH.like("logits", rows, len(head)))
