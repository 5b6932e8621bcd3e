"""Keys and values of running sequences, one slot each, and attention over them.

A slot remembers the tokens it holds, so that a prompt that starts with the same ones skips them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .config import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Tokens of one sequence that a forward pass adds to its slot."""

    slot: int
    start: int
    """How many tokens the slot holds already."""
    tokens: Sequence[int]


class KVCache:
    """Memory for `slots` sequences of up to `context` tokens."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        slots: int,
        context: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        heads = (config.num_key_value_heads, config.head_dim)
        shape = (config.num_hidden_layers, slots, context, *heads)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.held: list[list[int]] = [[] for _ in range(slots)]
        """The tokens whose keys and values each slot holds."""

    def match(self, slot: int, prompt: Sequence[int]) -> int:
        """How many tokens of `prompt` the slot holds. The last one is never counted: the
        engine needs its logits."""
        held = self.held[slot]
        limit = min(len(held), len(prompt) - 1)
        if held[:limit] == list(prompt[:limit]):
            return limit
        return next(index for index in range(limit) if held[index] != prompt[index])

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Make `target` hold the first `length` tokens of `source` and nothing else."""
        self.held[target] = self.held[source][:length]
        if source != target:
            for memory in (self.keys, self.values):
                memory[:, target, :length] = memory[:, source, :length]


class CachedAttention:
    """Writes the new keys and values of some spans and attends over all their slots hold."""

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache = cache
        self._spans = spans
        device = cache.keys.device
        slots = [span.slot for span in spans for _ in span.tokens]
        self._slots = torch.tensor(slots, device=device)  # [N]
        positions = [span.start + index for span in spans for index in range(len(span.tokens))]
        self.positions = torch.tensor(positions, device=device)  # [N]

    def __call__(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """Map q [N, heads, D] and k, v [N, kv_heads, D] to [N, heads, D]."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys[self._slots, self.positions] = k
        values[self._slots, self.positions] = v
        out = torch.empty_like(q)
        row = 0
        for span in self._spans:
            rows = slice(row, row + len(span.tokens))
            end = span.start + len(span.tokens)
            out[rows] = _attend(q[rows], keys[span.slot, :end], values[span.slot, :end])
            row = rows.stop
        return out


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Queries [T, heads, D] at the end of keys and values [L, kv_heads, D]; causal."""
    k, v = k.transpose(0, 1)[None], v.transpose(0, 1)[None]  # [1, kv_heads, L, D]
    new, heads, dim = q.shape
    if new == 1:
        # One query sees everything, so the heads that share keys go as one head's queries.
        q = q.view(1, k.shape[1], -1, dim)
        return F.scaled_dot_product_attention(q, k, v).reshape(1, heads, dim)
    mask = None
    if new < k.shape[2]:
        mask = torch.ones(new, k.shape[2], dtype=torch.bool, device=q.device)
        mask = mask.tril(k.shape[2] - new)
    q = q.transpose(0, 1)[None]
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=True)
    return out[0].transpose(0, 1)
