"""Slips: demonstrations in which the agent's words go wrong for a moment, to learn to go on.

A small policy that samples one odd token finds itself where no demonstration ever was, and repeats
it to its token limit. A slip shows such a place; the slip itself is not learned, what follows is.
For training only; nothing of it enters a dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from ..model.tokenizer import Tokenizer
from ..model.train.samples import Sample

LONGEST = 64
"""Tokens of a slip."""
LONGEST_CYCLE = 4
"""Tokens that a stutter repeats."""


def with_slips(
    samples: Iterable[Sample], tokenizer: Tokenizer, *, rate: float, seed: int
) -> Iterator[Sample]:
    """The samples, every other one with slips.

    Args:
        rate: of slips a token of the agent's; half of them repeat its last tokens, half bring in a
            few tokens from elsewhere in the conversation. Neither holds a marker.
    """
    rng = np.random.default_rng([seed, 7])
    words = np.array([tokenizer.special(at) is None for at in range(tokenizer.vocab_size)])
    for index, sample in enumerate(samples):
        yield _slipped(sample, words, rate, rng) if index % 2 else sample


def _slipped(
    sample: Sample, words: npt.NDArray[np.bool_], rate: float, rng: np.random.Generator
) -> Sample:
    ids, trainable = sample.ids, sample.trainable
    said = trainable & words[ids]
    ids_now: list[npt.NDArray[np.int32]] = []
    trainable_now: list[npt.NDArray[np.bool_]] = []
    done = 0
    for at in (np.flatnonzero(said & (rng.random(len(ids)) < rate)) + 1).tolist():
        slip = _stutter(ids, said, at, rng) if rng.random() < 0.5 else _stray(ids, words, rng)
        ids_now += [ids[done:at], slip]
        trainable_now += [trainable[done:at], np.zeros(len(slip), np.bool_)]
        done = at
    return Sample(
        ids=np.concatenate([*ids_now, ids[done:]]),
        trainable=np.concatenate([*trainable_now, trainable[done:]]),
    )


def _stutter(
    ids: npt.NDArray[np.int32], said: npt.NDArray[np.bool_], at: int, rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """The last few tokens before `at` again and again, short stutters more often than long ones."""
    cycle = int(rng.integers(1, LONGEST_CYCLE + 1))
    while not said[max(at - cycle, 0) : at].all():
        cycle -= 1
    length = round(LONGEST ** rng.random())
    return np.resize(ids[max(at - cycle, 0) : at], length)


def _stray(
    ids: npt.NDArray[np.int32], words: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    start = int(rng.integers(len(ids)))
    strays = ids[start : start + int(rng.integers(1, LONGEST_CYCLE + 1))]
    return strays[words[strays]]
