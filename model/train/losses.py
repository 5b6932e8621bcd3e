"""Losses over packed batches."""

from __future__ import annotations

import torch

from ..model import Model
from ..mtp import MtpModules
from .config import TrainConfig
from .packing import Batch


def next_token_loss(model: Model, batch: Batch) -> torch.Tensor:
    """Cross-entropy in nats, the mean over the learned tokens of the batch; fp32 scalar.

    Logits are computed only where a token is learned.
    """
    hidden = model.hidden(batch.tokens, batch.seq_lens)
    return summed_loss(model, hidden, batch) / batch.mask.sum()


def summed_loss(model: Model, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy in nats, the sum over the learned tokens, of what `Model.hidden` gave."""
    return model.lm_head.summed_loss(hidden[batch.mask], batch.targets[batch.mask])


def summed_mtp_loss(
    model: Model, mtp: MtpModules, hidden: torch.Tensor, batch: Batch
) -> torch.Tensor:
    """The same of the MTP modules, the mean of the depths' sums.

    A depth guesses the learned tokens that lie far enough inside their segment.
    """
    sums = []
    for state, rows in mtp.hidden(model, hidden, batch.tokens, batch.seq_lens):
        learned = batch.mask[rows]
        sums.append(model.lm_head.summed_loss(state[learned], batch.targets[rows][learned]))
    return torch.stack(sums).mean()


def mtp_weight(step: int, config: TrainConfig) -> float:
    """Weight of the MTP loss at a step, counted from 0."""
    decay = config.steps * config.decay_fraction
    done = (step - (config.steps - decay)) / decay if decay else 0.0
    share = min(1.0, max(0.0, done))
    return config.mtp_weight + share * (config.mtp_final_weight - config.mtp_weight)
