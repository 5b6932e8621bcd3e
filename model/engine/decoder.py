"""The forward pass over paged keys and values, in PyTorch: any device, any number of tokens.

`native.py` does the same for few tokens faster. Which of them runs is the engine's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from ...kernels.paged_attention import paged_attention
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
    scored: bool = False
    """Whether the states of all tokens are asked for."""

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
    """[all tokens, hidden]: what the head reads. Of some tokens alone where nobody guesses and
    no span is `scored`."""


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
        wanted: list[int] = []
        row = 0
        for span in spans:
            row += len(span.tokens)
            wanted += range(row - span.wanted, row)
        if self._module is not None:
            assert given is not None
            embedded = self._model.model.embed_tokens(tokens)
            states = self._module(given.to(embedded.dtype), embedded, attend.positions, attend)
        elif self._pages.needs_every_state or any(span.scored for span in spans):
            states = self._model.trunk(tokens, attend.positions, attend)
            self._keep_routes(attend)
        else:
            attend.asking = torch.tensor(wanted or [row - 1], device=tokens.device)
            states = self._model.trunk(tokens, attend.positions, attend, attend.asking)
            return Fed(self._model.head(states[: len(wanted)]).float(), states)
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
                        scored=span.scored,
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
        self.asking: torch.Tensor | None = None
        """The rows that the last layer is asked for; None = all."""
        device = pages.keys.device
        lengths = torch.tensor([len(span.tokens) for span in spans], device=device)
        starts = torch.tensor([span.start for span in spans], device=device)
        table = [list(span.pages[: -(-span.end // PAGE)]) for span in spans]
        most = max(map(len, table))
        self._table = torch.tensor(
            [[*each, *[0] * (most - len(each))] for each in table], dtype=torch.int32, device=device
        )
        self._owner = torch.arange(len(spans), device=device).repeat_interleave(lengths)  # [N]
        first = (lengths.cumsum(0) - lengths)[self._owner]
        inside = torch.arange(len(self._owner), device=device) - first
        self.positions = starts[self._owner] + inside  # [N]
        self.page = self._table[self._owner, self.positions // PAGE].long()
        self.place = self.positions % PAGE

    def __call__(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """Map q [N, heads, D] and k, v [N, kv_heads, D] to [N, heads, D]."""
        keys, values = self._pages.keys[layer], self._pages.values[layer]
        keys[self.page, :, :, self.place] = k
        values[self.page, :, self.place] = v
        owner, positions = self._owner, self.positions
        if self.asking is not None and len(q) < len(k):  # the last layer, for some rows alone
            owner, positions = owner[self.asking], positions[self.asking]
        return paged_attention(q, keys, values, self._table, owner, positions)
