"""The text tokens of a tokenizer by their bytes: what a mask that follows bytes looks up.

Markers are no text and are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch

from .tokenizer import Tokenizer


@dataclass(slots=True)
class Node:
    """Of a tree of the tokens' bytes."""

    ids: list[int] = field(default_factory=list)
    children: dict[int, Node] = field(default_factory=dict)


class Vocabulary:
    """Text tokens as bytes, as a tree and as masks [vocab] bool. Shared: not to be changed."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.tree = Node()
        self.bytes: dict[int, bytes] = {}
        none = torch.zeros(vocab_size, dtype=torch.bool)
        self.text = none.clone()
        self.plain = none.clone()
        """Those that end no JSON string."""
        self.tags = none.clone()
        """Those that hold `</` or begin with `/`."""
        self.closing = none.clone()
        """Those that hold `>`."""
        for token_id in range(min(vocab_size, tokenizer.vocab_size)):
            if text := tokenizer.token_bytes(token_id):
                self._plant(token_id, text)

    def _plant(self, token_id: int, text: bytes) -> None:
        self.bytes[token_id] = text
        self.text[token_id] = True
        self.plain[token_id] = all(byte >= 0x20 and byte not in b'"\\' for byte in text)
        self.tags[token_id] = b"</" in text or text[:1] == b"/"
        self.closing[token_id] = b">" in text
        node = self.tree
        for byte in text:
            node = node.children.setdefault(byte, Node())
        node.ids.append(token_id)


@lru_cache(maxsize=4)
def vocabulary(tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    """The vocabulary of a tokenizer in a model of `vocab_size` ids; made once: it takes a while."""
    return Vocabulary(tokenizer, vocab_size)
