"""Recall: runs of random tokens that come twice, to learn copying before there is anything to say.

A repair names files, columns and fragments that it read a moment ago, so a policy must copy; text
alone teaches that late. For training only; nothing of it enters a dataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..model.train.samples import Sample


def recall_samples(
    alphabet: Sequence[int], *, tokens: int, longest: int, seed: int
) -> Iterator[Sample]:
    """Samples of at least `tokens` tokens together: a run, others, the same run again.

    Learned is the second showing from its second token on, which is all that can be known. Each
    octave of lengths has as many tokens: a blurred attention finds its way in the shortest runs,
    the others sharpen it.

    Args:
        alphabet: the token ids to draw from.
        longest: of a run; what stands between its showings is at most as long.
    """
    rng = np.random.default_rng([seed, longest])
    letters = np.asarray(alphabet, np.int32)
    made = 0
    while made < tokens:
        length = round(1 / (0.5 - rng.random() * (0.5 - 1 / longest)))
        run, between = (rng.choice(letters, size) for size in (length, rng.integers(length + 1)))
        ids = np.concatenate([run, between, run])
        trainable = np.zeros(len(ids), np.bool_)
        trainable[-length + 1 :] = True
        yield Sample(ids=ids, trainable=trainable)
        made += len(ids)
