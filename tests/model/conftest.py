from collections.abc import Callable
from typing import Any

import pytest

from rollmill.model.config import ModelConfig

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
