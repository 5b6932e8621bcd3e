"""What is to be recalled has been seen, and nothing else is learned."""

import numpy as np

from rollmill.pipelines.recall import recall_samples

ALPHABET = range(40, 3000)


def test_a_learned_token_follows_its_forerunner_as_it_did_before() -> None:
    samples = list(recall_samples(ALPHABET, tokens=5_000, longest=60, seed=1))
    assert sum(map(len, samples)) >= 5_000
    for sample in samples:
        run = int(sample.trainable.sum()) + 1
        assert np.array_equal(sample.ids[:run], sample.ids[-run:])
        assert not sample.trainable[:-run].any()
        assert not sample.trainable[-run]
        assert sample.trainable[-run + 1 :].all()
        assert 2 <= run <= 60
        assert len(sample) <= 3 * run
        assert set(sample.ids.tolist()) <= set(ALPHABET)


def test_short_runs_have_as_many_tokens_as_long_ones() -> None:
    samples = list(recall_samples(ALPHABET, tokens=200_000, longest=256, seed=1))
    lengths = np.array([sample.trainable.sum() + 1 for sample in samples])
    tokens = np.array([len(sample) for sample in samples])
    octaves = [tokens[(low <= lengths) & (lengths < 2 * low)].sum() for low in (4, 16, 64, 128)]
    assert max(octaves) < 1.5 * min(octaves)


def test_runs_depend_on_their_seed_alone() -> None:
    first, again, other = (
        [sample.ids.tolist() for sample in recall_samples(ALPHABET, tokens=99, longest=9, seed=n)]
        for n in (1, 1, 2)
    )
    assert first == again != other
