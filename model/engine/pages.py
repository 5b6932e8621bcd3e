"""Memory for keys and values in pages of 16 tokens, counted by who uses them.

Knows no tokens: which page holds what is the radix tree's and the sequences' business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

from ..config import ModelConfig
from ..model import Model
from ..mtp import MtpModules

PAGE = 16
"""Tokens of a page: the lanes of one AVX-512 register of fp32 scores."""


class Pages:
    """A fixed number of pages. A page is free when nobody holds it."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        count: int,
        dtype: torch.dtype,
        device: torch.device,
        with_routes: bool,
        draft_layers: int = 0,
    ) -> None:
        """Memory is touched, and so taken from the machine, when a page is first written.

        Args:
            draft_layers: how many layers there are behind the model's own, for MTP modules.
        """
        layers, heads, dim = (
            config.num_hidden_layers,
            config.num_key_value_heads,
            config.head_dim,
        )
        # Keys lie with the tokens innermost, so that one query scores a page lane by lane.
        every = layers + draft_layers
        self.keys = torch.empty((every, count, heads, dim, PAGE), dtype=dtype, device=device)
        self.values = torch.empty((every, count, heads, PAGE, dim), dtype=dtype, device=device)
        self._drafts = slice(layers, every)
        self.routes: torch.Tensor | None = None
        """[pages, PAGE, layers, top_k] int16; None = not recorded."""
        if with_routes:
            self.routes = torch.empty(
                (count, PAGE, layers, config.num_experts_per_tok), dtype=torch.int16, device=device
            )
        self.count = count
        self._holders = [0] * count
        self._free = list(range(count - 1, -1, -1))

    @classmethod
    def of(cls, model: Model, count: int, *, with_routes: bool, mtp: MtpModules | None) -> Self:
        """Pages for a model and its modules, in its type and where it lies."""
        embedding = model.model.embed_tokens.weight
        return cls(
            model.config,
            count=count,
            dtype=embedding.dtype,
            device=embedding.device,
            with_routes=with_routes,
            draft_layers=mtp.config.num_mtp_modules if mtp else 0,
        )

    @property
    def needs_every_state(self) -> bool:
        """Whether MTP modules or recorded routes ask for the last layer of all tokens."""
        return self.routes is not None or self._drafts.start < self._drafts.stop

    @property
    def free(self) -> int:
        """How many pages nobody holds."""
        return len(self._free)

    def holders(self, page: int) -> int:
        """How many hold a page."""
        return self._holders[page]

    def take(self) -> int:
        """Hold a free page; `IndexError` when there is none."""
        page = self._free.pop()
        self._holders[page] = 1
        if self._drafts.start < self._drafts.stop:
            # A module may look at a place that it never came to write: let it find nothing there.
            self.keys[self._drafts, page] = 0
            self.values[self._drafts, page] = 0
        return page

    def hold(self, page: int) -> None:
        """Hold a page that somebody holds already."""
        assert self._holders[page] > 0
        self._holders[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Hold these pages once less; those that nobody holds become free."""
        for page in pages:
            assert self._holders[page] > 0
            self._holders[page] -= 1
            if not self._holders[page]:
                self._free.append(page)

    @property
    def layout(self) -> str:
        """What lies where in `dump`."""
        return " ".join(f"{part.dtype} {list(part.shape)}" for part in self._parts(0))

    @property
    def page_bytes(self) -> int:
        """How many bytes `dump` gives."""
        return sum(part.numel() * part.element_size() for part in self._parts(0))

    def dump(self, page: int) -> bytes:
        """All that a page holds."""
        return b"".join(
            part.contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes()
            for part in self._parts(page)
        )

    def restore(self, page: int, data: bytes) -> None:
        """Fill a page with what `dump` gave."""
        start = 0
        for part in self._parts(page):
            size = part.numel() * part.element_size()
            block = torch.frombuffer(bytearray(data[start : start + size]), dtype=part.dtype)
            part.copy_(block.view(part.shape))
            start += size

    def _parts(self, page: int) -> list[torch.Tensor]:
        routes = [] if self.routes is None else [self.routes[page]]
        return [self.keys[:, page], self.values[:, page], *routes]

    def copy_start(self, source: int, target: int, tokens: int) -> None:
        """Copy what the first `tokens` places of a page hold to another page."""
        self.keys[:, target, :, :, :tokens] = self.keys[:, source, :, :, :tokens]
        self.values[:, target, :, :tokens] = self.values[:, source, :, :tokens]
        if self.routes is not None:
            self.routes[target, :tokens] = self.routes[source, :tokens]
