"""Log-probabilities of given tokens, a chunk of rows at a time: logits by GEMM, the rest in C++.

As `cpu_chunked`, with one compiled pass over a chunk's logits each way.
Memory: `ROWS` x vocabulary in the type of `hidden`, kept from call to call.
"""

from __future__ import annotations

import torch

from ..native import Scratch, call
from .cpu_chunked import Chunked

_SCRATCH = Scratch()


def token_logprobs(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same as `reference.token_logprobs`."""
    known = known_targets(targets, len(head))
    return Chunked.apply(hidden, head, known, _logprobs, _gradient)  # type: ignore[no-any-return, no-untyped-call]


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


def _logprobs(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, out: torch.Tensor
) -> None:
    logits = _logits(hidden, head)
    call(__package__, "forward", hidden.dtype, logits, targets, out, *logits.shape)


def _gradient(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, grad: torch.Tensor
) -> torch.Tensor:
    logits = _logits(hidden, head)
    call(__package__, "backward", hidden.dtype, logits, targets, grad, *logits.shape)
    return logits


def _logits(hidden: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    return torch.mm(hidden, head.t(), out=_SCRATCH.like("logits", hidden, len(head)))
