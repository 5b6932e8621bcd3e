"""What the bundled policy reads before its demonstrations."""

import json
from typing import Any

import numpy as np
import pytest

from rollmill.model.tokenizer import Tokenizer, load_bundled_tokenizer
from rollmill.model.train.samples import samples_from_row
from rollmill.pipelines.pretraining import SYSTEM, whole_samples, with_recall


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_bundled_tokenizer()


def row() -> dict[str, Any]:
    def message(role: str, content: str) -> dict[str, Any]:
        return {"role": role, "content": content, "reasoning": "", "tool_calls": []}

    tool = {"name": "bash", "description": "Runs a command.", "parameters": {}}
    spoken = [message("user", "Count the rows."), message("assistant", "There are seven.")]
    messages = [message("system", "Follow the house rules."), *spoken]
    return {"tools": json.dumps([tool]), "messages": messages, "turns": []}


def test_a_whole_conversation_is_learned_without_its_rules_and_tools(tokenizer: Tokenizer) -> None:
    (whole,) = whole_samples([row()], tokenizer, max_tokens=500)
    (taught,) = samples_from_row(row(), tokenizer)
    text = tokenizer.decode(whole.ids.tolist())
    assert whole.trainable.all()
    assert not taught.trainable.all()
    for shown in (SYSTEM, "Count the rows.", "There are seven."):
        assert shown in text
    assert "house rules" not in text
    assert "Runs a command" not in text
    (cut,) = whole_samples([row()], tokenizer, max_tokens=9)
    assert np.array_equal(cut.ids, whole.ids[:9])


def test_recall_gets_its_share_and_no_markers(tokenizer: Tokenizer) -> None:
    samples = list(whole_samples([row()] * 300, tokenizer, max_tokens=500))
    mixed = with_recall(samples, tokenizer, share=0.25, seed=3)
    assert mixed[: len(samples)] == samples
    recall = mixed[len(samples) :]
    share = sum(map(len, recall)) / sum(map(len, mixed))
    assert share == pytest.approx(0.25, abs=0.05)
    drawn = set(np.concatenate([sample.ids for sample in recall]).tolist())
    assert all(tokenizer.special(each) is None for each in drawn)
    assert with_recall(samples, tokenizer, share=0, seed=3) == samples
