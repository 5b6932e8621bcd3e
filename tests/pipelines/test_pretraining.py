"""Sequences to recall: what is learned can be copied from the context, and nothing else can."""

from __future__ import annotations

from rollmill.model.tokenizer import load_bundled_tokenizer
from rollmill.pipelines.pretraining import RECALL_CUE_TOKENS, recall_samples


def test_every_learned_token_follows_its_cue_as_it_did_before() -> None:
    tokenizer = load_bundled_tokenizer()

    for sample in recall_samples(tokenizer, count=50, seed=3):
        ids, shown = sample.ids.tolist(), int(sample.trainable.argmax())
        for at in sample.trainable.nonzero()[0]:
            cue = ids[at - RECALL_CUE_TOKENS : at]
            starts = range(shown - RECALL_CUE_TOKENS)
            followers = {
                ids[start + len(cue)] for start in starts if ids[start : start + len(cue)] == cue
            }
            assert ids[at] in followers
        assert all(tokenizer.special(id_) is None for id_ in ids[1:])


def test_runs_come_back_in_another_order_and_their_cues_are_not_learned() -> None:
    tokenizer = load_bundled_tokenizer()
    samples = list(recall_samples(tokenizer, count=50, seed=3))

    in_order = 0
    for sample in samples:
        half = (len(sample) - 1) // 2
        first, second = sample.ids[1 : 1 + half], sample.ids[1 + half :]
        assert sorted(first) == sorted(second)
        assert not sample.trainable[: 1 + half + RECALL_CUE_TOKENS].any()
        assert sample.trainable.sum() < half
        in_order += first.tolist() == second.tolist()
    assert in_order < 3


def test_the_same_seed_gives_the_same_sequences() -> None:
    tokenizer = load_bundled_tokenizer()

    one, again, other = (
        [sample.ids.tolist() for sample in recall_samples(tokenizer, count=5, seed=seed)]
        for seed in (1, 1, 2)
    )

    assert one == again != other
