"""The forward pass over paged keys and values, in PyTorch: any device, any number of tokens.

`native.py` does the same for few tokens faster. Which of them runs is the engine's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F

from ..model import Model
from ..mtp import MtpModule
from .pages import PAGE, Pages


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Tokens of one sequence that a forward pass adds to its pages."""

    pages: Sequence[int]
    """All of the sequence; they have room for the tokens."""
    start: int
    """How many tokens the pages hold already."""
    tokens: Sequence[int]
    wanted: int
    """Of how many of the last tokens the logits are asked for."""

    @property
    def certain(self) -> int:
        """How many of the tokens are known; behind them stand guesses."""
        return len(self.tokens) - max(0, self.wanted - 1)

    @property
    def end(self) -> int:
        """How many tokens the pages hold afterwards."""
        return self.start + len(self.tokens)


class Fed(NamedTuple):
    """What a forward pass gives."""

    logits: torch.Tensor
    """[wanted tokens, vocab] in fp32, span by span."""
    states: torch.Tensor
    """[all tokens, hidden]: what the head reads."""


class Decoder(Protocol):
    """Feeds tokens."""

    def __call__(self, spans: Sequence[Span], given: torch.Tensor | None = None) -> Fed:
        """Write the keys and values (and routes) of all tokens.

        Args:
            given: for an MTP module the states of the depth before, [all tokens, hidden]; the
                tokens are then those that the states are joined with.
        """
        ...


class TorchDecoder:
    """The training model's own modules, with attention over pages."""

    def __init__(self, model: Model, pages: Pages, module: MtpModule | None = None) -> None:
        """`module` = decode this one in place of the model's own layers."""
        self._model = model
        self._pages = pages
        self._module = module

    def __call__(self, spans: Sequence[Span], given: torch.Tensor | None = None) -> Fed:
        """Feed all spans in one packed pass."""
        attend = PagedAttention(self._pages, spans)
        tokens = torch.tensor(
            [token for span in spans for token in span.tokens], device=attend.positions.device
        )
        if self._module is None:
            states = self._model.trunk(tokens, attend.positions, attend)
            self._keep_routes(attend)
        else:
            assert given is not None
            embedded = self._model.model.embed_tokens(tokens)
            states = self._module(given.to(embedded.dtype), embedded, attend.positions, attend)
        wanted: list[int] = []
        row = 0
        for span in spans:
            row += len(span.tokens)
            wanted += range(row - span.wanted, row)
        return Fed(self._model.head(states[wanted]).float(), states)

    def _keep_routes(self, attend: PagedAttention) -> None:
        if self._pages.routes is not None:
            layers = self._model.model.decoder_layers()
            routes = torch.stack([layer.block_sparse_moe.chosen for layer in layers], 1)
            self._pages.routes[attend.page, attend.place] = routes.to(torch.int16)


class OneByOne:
    """Feeds one token at a time, so that no sum depends on how many there are."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def __call__(self, spans: Sequence[Span], given: torch.Tensor | None = None) -> Fed:
        """See `Decoder`."""
        fed = [
            self._decoder(
                [
                    Span(
                        pages=span.pages,
                        start=span.start + index,
                        tokens=[token],
                        wanted=int(len(span.tokens) - index <= span.wanted),
                    )
                ]
            )
            for span in spans
            for index, token in enumerate(span.tokens)
        ]
        return Fed(
            torch.cat([each.logits for each in fed]), torch.cat([each.states for each in fed])
        )


class PagedAttention:
    """Writes the new keys and values of some spans and attends over all their pages hold."""

    def __init__(self, pages: Pages, spans: Sequence[Span]) -> None:
        self._pages = pages
        self._spans = spans
        device = pages.keys.device
        places = [(span, at) for span in spans for at in range(span.start, span.end)]
        self.positions = torch.tensor([at for _, at in places], device=device)  # [N]
        self.page = torch.tensor([span.pages[at // PAGE] for span, at in places], device=device)
        self.place = self.positions % PAGE
        self._tables = [
            torch.tensor(span.pages[: -(-span.end // PAGE)], device=device) for span in spans
        ]

    def __call__(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """Map q [N, heads, D] and k, v [N, kv_heads, D] to [N, heads, D]."""
        keys, values = self._pages.keys[layer], self._pages.values[layer]
        keys[self.page, :, :, self.place] = k
        values[self.page, :, self.place] = v
        out = torch.empty_like(q)
        row = 0
        for span, table in zip(self._spans, self._tables, strict=True):
            rows = slice(row, row + len(span.tokens))
            row = rows.stop
            if span.start == 0:
                held_k, held_v = k[rows].transpose(0, 1), v[rows].transpose(0, 1)
            else:
                held_k = keys[table].permute(1, 0, 3, 2).flatten(1, 2)[:, : span.end]
                held_v = values[table].transpose(0, 1).flatten(1, 2)[:, : span.end]
            out[rows] = _attend(q[rows], held_k[None], held_v[None])
        return out


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Queries [T, heads, D] at the end of keys and values [1, kv_heads, L, D]; causal."""
    new, heads, dim = q.shape
    if new == 1:
        # One query sees everything, so the heads that share keys go as one head's queries.
        q = q.view(1, k.shape[1], -1, dim)
        return F.scaled_dot_product_attention(q, k, v).reshape(1, heads, dim)
    mask = None
    if new < k.shape[2]:
        mask = torch.ones(new, k.shape[2], dtype=torch.bool, device=q.device)
        mask = mask.tril(k.shape[2] - new)
    # The fast kernels want as many key heads as query heads.
    k, v = (each.repeat_interleave(heads // each.shape[1], dim=1) for each in (k, v))
    q = q.transpose(0, 1)[None]
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
    return out[0].transpose(0, 1)
