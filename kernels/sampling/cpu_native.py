"""Whole rows in C++: one pass for the weights, and a search of the block that is picked."""

from __future__ import annotations

import torch

from ..native import call
from .cpu_batched import sample

__all__ = ["sample", "sample_whole"]  # what is sorted for the former, PyTorch sorts


def sample_whole(
    logits: torch.Tensor, temperature: torch.Tensor, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as `reference.sample_whole`."""
    rows, vocab = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64)
    logprobs = torch.empty(rows, dtype=torch.float32)
    given = (logits.contiguous(), temperature.double(), uniform.double())
    call(__package__, "sample_whole", logits.dtype, *given, tokens, logprobs, rows, vocab)
    return tokens, logprobs
