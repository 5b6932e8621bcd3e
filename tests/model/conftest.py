import json
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers

from rollmill.model.config import ModelConfig
from rollmill.model.tokenizer import CALL_MARKERS, SPECIALS, Tokenizer

MakeConfig = Callable[..., ModelConfig]


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    """Small models whose sizes share no factor where they need not; arguments change sizes."""
    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 60,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 20,
        "rotary_dim": 10,
        "intermediate_size": 36,
        "num_local_experts": 7,
        "num_experts_per_tok": 3,
        "max_position_embeddings": 128,
        # Logits far apart: with the default of 0.02 all tokens are about as likely.
        "initializer_range": 0.2,
    }
    return lambda **changes: ModelConfig(**(sizes | changes))


def m2_like(trained: Tokenizer) -> Tokenizer:
    """A trained tokenizer as the published one is: the markers inside a call are text, those of
    thinking and calls ordinary added tokens, and there are added tokens that we do not know."""
    raw = json.loads(trained._backend.to_str())
    kept = [each for each in raw["added_tokens"] if each["content"] not in CALL_MARKERS]
    for each in kept:
        each["special"] = not each["content"].startswith("<")
    strange = kept[0] | {"content": "]<]start of image[>[", "special": True}
    gone = len(SPECIALS) - len(kept)
    vocab = {
        word: number - gone if number >= len(SPECIALS) else number
        for word, number in raw["model"]["vocab"].items()
        if word not in CALL_MARKERS
    }
    strange["id"] = len(vocab)
    raw["added_tokens"] = [*kept, strange]
    raw["model"]["vocab"] = vocab
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(raw)))


@pytest.fixture(scope="session")
def as_published() -> Callable[[Tokenizer], Tokenizer]:
    """Turns a trained tokenizer into one as M2's is; see `m2_like`."""
    return m2_like
