"""Packs samples into flat batches without padding. The order depends on seed and epoch alone.

Batches are addressed by step, so a resumed run reads exactly what an uninterrupted one would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from .samples import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Segments laid end to end; position t of `tokens` predicts position t of `targets`."""

    tokens: torch.Tensor  # [N] int64
    targets: torch.Tensor  # [N] int64
    mask: torch.Tensor  # [N] bool: the target counts in the loss
    seq_lens: list[int]  # sums to N

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        tokens, targets, mask = (x.to(device) for x in (self.tokens, self.targets, self.mask))
        return Batch(tokens=tokens, targets=targets, mask=mask, seq_lens=self.seq_lens)


class Packer:
    """Gives the batch of any step; epoch after epoch, each in a fresh order."""

    def __init__(
        self, samples: Sequence[Sample], *, batch_tokens: int, max_sample_tokens: int, seed: int
    ) -> None:
        """Cut what is longer than `max_sample_tokens` and drop what has nothing to learn then.

        Raises:
            ValueError: nothing is left, or a sample may be longer than a batch.
        """
        if not 2 <= max_sample_tokens <= batch_tokens:
            raise ValueError(
                f"expected 2 <= max_sample_tokens <= batch_tokens, "
                f"got {max_sample_tokens} and {batch_tokens}"
            )
        self.cut = sum(len(sample) > max_sample_tokens for sample in samples)
        """Samples that lost their end."""
        short = [_head(sample, max_sample_tokens) for sample in samples]
        self.samples = [sample for sample in short if sample.trainable[1:].any()]
        self.dropped = len(short) - len(self.samples)
        """Samples without a token to learn."""
        if not self.samples:
            raise ValueError(
                f"expected samples with tokens to learn, got none out of {len(samples)}; "
                "check the dataset and its filters"
            )
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._plans: list[list[list[int]]] = []

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step; steps count on over the epochs."""
        return pack(self.samples_of(step))

    def samples_of(self, step: int) -> list[Sample]:
        """What is in the batch of a step."""
        epoch = 0
        while step >= len(self.plan(epoch)):
            step -= len(self.plan(epoch))
            epoch += 1
        return [self.samples[index] for index in self.plan(epoch)[step]]

    def plan(self, epoch: int) -> list[list[int]]:
        """The samples of each batch of an epoch."""
        while len(self._plans) <= epoch:
            order = np.random.default_rng([self._seed, len(self._plans)]).permutation(
                len(self.samples)
            )
            self._plans.append(self._fill(order.tolist()))
        return self._plans[epoch]

    def _fill(self, order: list[int]) -> list[list[int]]:
        batches: list[list[int]] = [[]]
        room = self._batch_tokens
        for index in order:
            length = len(self.samples[index])
            if length > room:
                batches.append([])
                room = self._batch_tokens
            batches[-1].append(index)
            room -= length
        return batches

    @cached_property
    def digest(self) -> str:
        """Hash of everything the batches depend on."""
        settings = f"{self._batch_tokens} {self._seed} {[len(each) for each in self.samples]}"
        digest = hashlib.sha256(settings.encode())
        for sample in self.samples:
            digest.update(sample.ids.tobytes())
            digest.update(sample.trainable.tobytes())
        return digest.hexdigest()[:16]


def pack(samples: Sequence[Sample]) -> Batch:
    """One batch of these samples."""
    tokens = np.concatenate([sample.ids[:-1] for sample in samples])
    targets = np.concatenate([sample.ids[1:] for sample in samples])
    mask = np.concatenate([sample.trainable[1:] for sample in samples])
    return Batch(
        tokens=torch.from_numpy(tokens.astype(np.int64)),
        targets=torch.from_numpy(targets.astype(np.int64)),
        mask=torch.from_numpy(mask),
        seq_lens=[len(sample) - 1 for sample in samples],
    )


def _head(sample: Sample, length: int) -> Sample:
    return Sample(ids=sample.ids[:length], trainable=sample.trainable[:length])
