"""Losses over packed batches."""

from __future__ import annotations

import torch

from ...kernels.token_logprobs import token_logprobs
from ..model import Model
from .packing import Batch


def next_token_loss(model: Model, batch: Batch) -> torch.Tensor:
    """Cross-entropy in nats, the mean over the learned tokens of the batch; fp32 scalar.

    Logits are computed only where a token is learned.
    """
    hidden = model.hidden(batch.tokens, batch.seq_lens)[batch.mask]
    return -token_logprobs(hidden, model.lm_head.weight, batch.targets[batch.mask]).mean()
