from collections.abc import Iterator

import pytest
import torch

from rollmill.model.config import ModelConfig
from rollmill.model.tokenizer import Tokenizer
from rollmill.model.train.samples import Sample, samples_from_text

TEXTS = [f"def f{n}(x):\n    return x + {n}\n" for n in range(40)]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 300)


@pytest.fixture(scope="session")
def samples(tokenizer: Tokenizer) -> list[Sample]:
    return [
        sample for text in TEXTS for sample in samples_from_text(text, tokenizer, max_tokens=64)
    ]


@pytest.fixture(scope="session")
def tiny(tokenizer: Tokenizer) -> ModelConfig:
    return ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rotary_dim=4,
        intermediate_size=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=64,
        initializer_range=0.1,
    )


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on more, above all beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
