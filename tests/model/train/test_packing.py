from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.model.train.packing import Packer, pack
from rollmill.model.train.samples import Sample


def sample(start: int, length: int) -> Sample:
    """Ids count up; every other token is learned, the last one always."""
    ids = np.arange(start, start + length, dtype=np.int32)
    return Sample(ids=ids, trainable=(np.arange(length) + length) % 2 == 1)


LENGTHS = st.lists(st.integers(2, 40), min_size=1, max_size=30)


def numbered(lengths: list[int]) -> list[Sample]:
    return [sample(1000 * index, length) for index, length in enumerate(lengths)]


@given(LENGTHS, st.integers(40, 100), st.integers(0, 3))
def test_an_epoch_holds_every_token_once(lengths: list[int], room: int, epoch: int) -> None:
    packer = Packer(numbered(lengths), batch_tokens=room, max_sample_tokens=40, seed=1)
    first = sum(len(packer.plan(before)) for before in range(epoch))
    batches = [packer[first + offset] for offset in range(len(packer.plan(epoch)))]
    targets = Counter(int(target) for batch in batches for target in batch.targets)
    learned = Counter(int(target) for batch in batches for target in batch.targets[batch.mask])
    assert targets == Counter(int(i) for each in packer.samples for i in each.ids[1:])
    assert learned == Counter(
        int(i) for each in packer.samples for i in each.ids[1:][each.trainable[1:]]
    )
    for batch in batches:
        assert sum(batch.seq_lens) == len(batch.tokens) == len(batch.targets) <= room
        assert (batch.targets == batch.tokens + 1).all()  # nothing predicts another segment


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    samples = numbered([7] * 50)
    first, again, other = (
        Packer(samples, batch_tokens=50, max_sample_tokens=50, seed=seed) for seed in (1, 1, 2)
    )
    assert again[13].tokens.tolist() == first[13].tokens.tolist()  # read out of order
    assert other[0].tokens.tolist() != first[0].tokens.tolist()
    assert first.plan(0) != first.plan(1)


def test_long_samples_are_cut_and_counted_and_idle_ones_dropped() -> None:
    idle = Sample(ids=np.arange(5, dtype=np.int32), trainable=np.zeros(5, np.bool_))
    packer = Packer(
        [sample(0, 30), sample(50, 8), idle], batch_tokens=20, max_sample_tokens=10, seed=0
    )
    assert (packer.cut, packer.dropped) == (1, 1)
    assert sorted(len(each) for each in packer.samples) == [8, 10]


@pytest.mark.parametrize(
    "samples", [[], [Sample(ids=np.ones(3, np.int32), trainable=np.zeros(3, np.bool_))]]
)
def test_a_dataset_with_nothing_to_learn_is_refused(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match="expected samples with tokens to learn, got none"):
        Packer(samples, batch_tokens=8, max_sample_tokens=8, seed=0)


def test_a_sample_may_not_be_longer_than_a_batch() -> None:
    with pytest.raises(ValueError, match="got 9 and 8"):
        Packer([sample(0, 3)], batch_tokens=8, max_sample_tokens=9, seed=0)


def test_the_digest_tells_data_and_settings_apart() -> None:
    def digest(length: int = 7, seed: int = 0) -> str:
        return Packer([sample(0, length)], batch_tokens=40, max_sample_tokens=40, seed=seed).digest

    assert digest() == digest()
    assert len({digest(), digest(length=8), digest(seed=1)}) == 3


def test_the_first_token_of_a_segment_is_never_a_target() -> None:
    batch = pack([sample(10, 3), sample(20, 2)])
    assert batch.tokens.tolist() == [10, 11, 20]
    assert batch.targets.tolist() == [11, 12, 21]
