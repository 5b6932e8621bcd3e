"""Guesses the next tokens with MTP modules, so that one forward pass can check several.

A guess is drawn with the very random number that will pick the token itself. The engine keeps it
only if the model, asked in the plain way, draws the same token: with guesses or without, a request
gets the same tokens, and so the same distribution, whatever its settings are. Bad guesses cost
time and nothing else.

Module d reads, at position i, the state of depth d - 1 and token i + d. It keeps its keys and
values in the pages, in the layers behind the model's own. Near the end of a sequence those tokens
are themselves guesses; such positions are computed again when the tokens are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..model import Model
from ..mtp import MtpModules
from .decoder import Decoder, Span, TorchDecoder
from .native import FEW_TOKENS, NativeDecoder
from .pages import Pages
from .sampling import Place, guess
from .sequence import Running, Trail

_SHARED = ("num_hidden_layers", "hidden_size", "vocab_size", "num_key_value_heads", "head_dim")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """What one module reads of one sequence."""

    sequence: Running
    trail: Trail
    span: Span
    final: int
    """How many of the span's tokens are known, so that its keys there are final."""


class Drafter:
    """The modules of a model, over its engine's pages."""

    def __init__(
        self, model: Model, mtp: MtpModules, pages: Pages, *, context: int, native: bool
    ) -> None:
        """Take modules in the type of the model.

        Args:
            context: most tokens of a sequence.
            native: use the compiled decoder where it can be had.

        Raises:
            ValueError: the modules belong to a model of another shape.
        """
        for name in _SHARED:
            ours, theirs = getattr(model.config, name), getattr(mtp.config, name)
            if ours != theirs:
                raise ValueError(f"expected MTP modules with {name} {ours}, got {theirs}")
        self.modules = mtp.eval()
        modules = mtp.modules_by_depth()
        self._torch: list[Decoder] = [TorchDecoder(model, pages, module) for module in modules]
        self._native: list[NativeDecoder | None] = [
            NativeDecoder.build(model, pages, context, module) if native else None
            for module in modules
        ]
        self._context = context

    @property
    def depth(self) -> int:
        """How many tokens it guesses at most."""
        return len(self._torch)

    def follow(self, sequence: Running, start: int, states: torch.Tensor) -> None:
        """Take the model's states [T, hidden] of tokens that were fed from position `start` on."""
        if not sequence.pages:
            return  # it has just ended
        if sequence.trail is None:
            empty = states[:0]
            sequence.trail = Trail(
                done=[start] * self.depth, states=[states, *[empty] * (self.depth - 1)]
            )
        else:
            known = sequence.trail.states
            known[0] = torch.cat([known[0], states])

    def propose(self, sequences: Sequence[Running]) -> None:
        """Let the modules read what is new, and set `drafts` of those that decode."""
        room = {}
        for sequence in sequences:
            sequence.drafts = []
            left = min(
                sequence.request.max_tokens - len(sequence.tokens),
                self._context - len(sequence.token_ids),
            )
            room[id(sequence)] = left - 1 if sequence.pending == 1 else 0
        for depth in range(1, self.depth + 1):
            parts = [
                part
                for sequence in sequences
                if sequence.trail is not None
                and (part := self._part(sequence, sequence.trail, depth, room[id(sequence)]))
            ]
            if parts:
                self._read(depth, parts)

    def _part(self, sequence: Running, trail: Trail, depth: int, room: int) -> _Part | None:
        """What module `depth` can read: up to the last state if that gives a guess that is of use,
        and else as far as the tokens are known."""
        start, ids = trail.done[depth - 1], sequence.token_ids
        known = min(sequence.held, len(ids) - depth)
        guessing = len(sequence.drafts) == depth - 1 < room
        end = sequence.held if guessing else known
        if end <= start:
            return None
        tokens = [*ids[start + depth : end + depth], *sequence.drafts]
        span = Span(
            pages=sequence.pages,
            start=start,
            tokens=tokens[: end - start],
            wanted=int(guessing),
        )
        return _Part(sequence=sequence, trail=trail, span=span, final=max(0, known - start))

    def _read(self, depth: int, parts: Sequence[_Part]) -> None:
        spans = [part.span for part in parts]
        given = torch.cat([part.trail.states[depth - 1][: len(part.span.tokens)] for part in parts])
        native, few = self._native[depth - 1], len(given) <= max(FEW_TOKENS, 4 * len(parts))
        fed = (native if native and few else self._torch[depth - 1])(spans, given)
        row = 0
        for part in parts:
            end = row + len(part.span.tokens)
            self._advance(depth, part, fed.states[row:end].to(given.dtype))
            row = end
        guessing = [part.sequence for part in parts if part.span.wanted]
        if guessing:
            places = [Place(sequence=each, guesses=each.drafts) for each in guessing]
            for sequence, token_id in zip(guessing, guess(places, fed.logits), strict=True):
                if token_id is not None:
                    sequence.drafts.append(token_id)

    def _advance(self, depth: int, part: _Part, states: torch.Tensor) -> None:
        """Keep for the next module what is final; lend it the rest for this round's guess."""
        trail = part.trail
        trail.states[depth - 1] = trail.states[depth - 1][part.final :]
        trail.done[depth - 1] += part.final
        if depth < self.depth:
            kept = trail.done[depth - 1] - part.final - trail.done[depth]
            trail.states[depth] = torch.cat([trail.states[depth][:kept], states])
