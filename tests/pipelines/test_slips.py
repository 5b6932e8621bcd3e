"""A slip is never learned, and without the slips the sample is what it was."""

import numpy as np
import pytest

from rollmill.model.tokenizer import Tokenizer, load_bundled_tokenizer
from rollmill.model.train.samples import Sample
from rollmill.pipelines.slips import LONGEST, with_slips


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_bundled_tokenizer()


def conversation(tokenizer: Tokenizer, turns: int = 40) -> Sample:
    """Turns of 20 told words, 30 said ones, and a marker."""
    rng = np.random.default_rng(1)
    told, said = (rng.integers(200, tokenizer.vocab_size, (turns, n)) for n in (20, 30))
    ends = np.full((turns, 1), tokenizer.eos_id)
    ids = np.concatenate([told, said, ends], axis=1).ravel().astype(np.int32)
    trainable = np.tile(np.arange(51) >= 20, turns)
    return Sample(ids=ids, trainable=trainable)


def test_only_the_conversation_as_it_was_is_learned(tokenizer: Tokenizer) -> None:
    was = conversation(tokenizer)
    clean, slipped = with_slips([was, was], tokenizer, rate=0.05, seed=1)
    assert clean is was
    assert np.array_equal(slipped.ids[slipped.trainable], was.ids[was.trainable])
    assert len(was) + 20 < len(slipped) < 3 * len(was)
    more = slipped.ids[~slipped.trainable]
    assert np.sum(more == tokenizer.eos_id) == 0


def test_half_of_the_slips_repeat_what_was_just_said(tokenizer: Tokenizer) -> None:
    was = conversation(tokenizer, turns=200)
    _, slipped = with_slips([was, was], tokenizer, rate=0.02, seed=1)
    ids, said = slipped.ids.tolist(), slipped.trainable.tolist()
    stutters, at = 0, 0
    while at < len(ids):
        if said[at] or at == 0 or not said[at - 1] or ids[at - 1] == tokenizer.eos_id:
            at += 1
            continue
        end = at + said[at:].index(True)
        assert end - at <= LONGEST
        stutters += ids[at] in ids[at - 4 : at]
        at = end
    assert stutters > 30


def test_nothing_slips_at_rate_zero(tokenizer: Tokenizer) -> None:
    was = conversation(tokenizer)
    for same in with_slips([was] * 2, tokenizer, rate=0.0, seed=1):
        assert np.array_equal(same.ids, was.ids)
        assert np.array_equal(same.trainable, was.trainable)
