"""Generates from a model: many requests at once, each joining and leaving between steps.

One process and one device. A step feeds every running sequence its next tokens, prompts in pieces,
in one packed forward pass. No speculative decoding, no streaming, no text: token ids in and out.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import torch

from ..kernels.sampling import sample
from .cache import CachedAttention, KVCache, Span
from .model import Model


class EngineError(RuntimeError):
    """A request could not be answered; says why."""


class PromptTooLong(EngineError):
    """The prompt leaves no room for an answer in the context."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenRequest:
    """What to complete and how to sample.

    Raises:
        ValueError: a setting makes no sense.
    """

    prompt_ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    """0 = greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 = no limit. Applied before `top_p`."""
    seed: int = 0
    """The same seed gives the same tokens, whatever else is in the batch."""
    stop_ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        checks = {
            "prompt_ids must not be empty": bool(self.prompt_ids),
            f"max_tokens must be positive, got {self.max_tokens}": self.max_tokens > 0,
            f"temperature must be 0 or more, got {self.temperature}": self.temperature >= 0,
            f"top_p must lie in (0, 1], got {self.top_p}": 0 < self.top_p <= 1,
            f"top_k must be 0 or more, got {self.top_k}": self.top_k >= 0,
        }
        for message, holds in checks.items():
            if not holds:
                raise ValueError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenResult:
    """A completion, token by token."""

    token_ids: tuple[int, ...]
    """The stop token included."""
    logprobs: tuple[float, ...]
    """Of each token under the model's whole distribution at the request's temperature, before
    top-k and top-p; for greedy requests under the distribution at temperature 1."""
    finish_reason: Literal["stop", "length"]
    """`length`: `max_tokens` or the context is used up."""
    cached_tokens: int
    """How many prompt tokens were not computed again."""


@dataclass(eq=False, kw_only=True, slots=True)
class _Sequence:
    request: GenRequest
    future: Future[GenResult]
    rng: random.Random
    slot: int = -1
    cached: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def pending(self, done: int) -> Sequence[int]:
        """The tokens after the `done` first ones."""
        prompt = self.request.prompt_ids
        return prompt[done:] if done < len(prompt) else self.token_ids[done - len(prompt) :]


class Engine:
    """Runs requests step by step in the calling thread. Only `submit` may come from others."""

    def __init__(
        self,
        model: Model,
        *,
        slots: int = 16,
        context: int | None = None,
        step_tokens: int = 1024,
    ) -> None:
        """Take a model in the type it is to compute in.

        Args:
            slots: how many sequences run at once; the memory of finished ones serves as a cache.
            context: most tokens of a sequence; None = as many as the model was made for.
            step_tokens: most prompt tokens of a step, so that prompts do not stall the others.
        """
        self.model = model.eval()
        self.context = context or model.config.max_position_embeddings
        embedding = model.model.embed_tokens.weight
        self._cache = KVCache(
            model.config,
            slots=slots,
            context=self.context,
            dtype=embedding.dtype,
            device=embedding.device,
        )
        self._step_tokens = step_tokens
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._free = list(range(slots))  # least recently used first

    @property
    def busy(self) -> bool:
        """Whether a step has something to do."""
        return bool(self._waiting or self._running)

    def generate(self, requests: Sequence[GenRequest]) -> list[GenResult]:
        """Complete all requests, in order.

        Raises:
            EngineError: one of them cannot be answered; the others are given up.
        """
        futures = [self.submit(request) for request in requests]
        try:
            while not all(future.done() for future in futures):
                self.step()
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def submit(self, request: GenRequest) -> Future[GenResult]:
        """Queue a request. Its future may be cancelled at any time.

        The future raises:
            PromptTooLong: the context has no room for an answer.
            EngineError: a token id is unknown, or the model gave something that is no number.
        """
        future: Future[GenResult] = Future()
        if error := self._refusal(request):
            future.set_exception(error)
        else:
            rng = random.Random(request.seed)
            self._waiting.append(_Sequence(request=request, future=future, rng=rng))
        return future

    @torch.inference_mode()
    def step(self) -> None:
        """Feed every running sequence once; finished ones resolve their futures."""
        self._drop_cancelled()
        self._admit()
        spans = self._plan()
        if not spans:
            return
        attend = CachedAttention(self._cache, [span for _, span in spans])
        tokens = torch.tensor(
            [token for _, span in spans for token in span.tokens], device=attend.positions.device
        )
        hidden = self.model.trunk(tokens, attend.positions, attend)
        ends = list(accumulate(len(span.tokens) for _, span in spans))
        ready = []
        for (sequence, span), end in zip(spans, ends, strict=True):
            held = self._cache.held[span.slot]
            held.extend(span.tokens)
            if not sequence.pending(len(held)):
                ready.append((sequence, end - 1))
        if ready:
            logits = self.model.head(hidden[[row for _, row in ready]])
            self._extend([sequence for sequence, _ in ready], logits)

    def fail_all(self, error: BaseException) -> None:
        """Give `error` to every request and start anew with an empty cache."""
        while self._waiting:
            _settle(self._waiting.popleft(), error)
        for sequence in list(self._running):
            self._release(sequence)
            _settle(sequence, error)
        self._cache.held = [[] for _ in self._cache.held]

    def _refusal(self, request: GenRequest) -> EngineError | None:
        prompt, vocab = request.prompt_ids, self.model.config.vocab_size
        if len(prompt) >= self.context:
            return PromptTooLong(
                f"expected a prompt of fewer than {self.context} tokens, got {len(prompt)}; "
                "shorten the conversation"
            )
        if not 0 <= min(prompt) <= max(prompt) < vocab:
            return EngineError(
                f"expected token ids below {vocab}, got {min(prompt)} to {max(prompt)}; "
                "check that the tokenizer belongs to the model"
            )
        return None

    def _drop_cancelled(self) -> None:
        for sequence in [each for each in self._running if each.future.cancelled()]:
            self._release(sequence)

    def _admit(self) -> None:
        """Give waiting sequences a slot, and what any slot already holds of their prompt."""
        while self._free and self._waiting:
            sequence = self._waiting.popleft()
            if sequence.future.cancelled():
                continue
            prompt, cache = sequence.request.prompt_ids, self._cache
            matches = [cache.match(slot, prompt) for slot in range(len(cache.held))]
            length = max(matches)
            source = matches.index(length)
            # A prompt that goes on where a finished sequence ended takes over its slot.
            goes_on = source in self._free and length == len(cache.held[source])
            sequence.slot = source if goes_on else self._free[0]
            self._free.remove(sequence.slot)
            cache.copy_prefix(source, sequence.slot, length)
            sequence.cached = length
            self._running.append(sequence)

    def _plan(self) -> list[tuple[_Sequence, Span]]:
        """What each running sequence feeds: one sampled token, or the next piece of its prompt."""
        spans = []
        budget = self._step_tokens
        for sequence in self._running:
            start = len(self._cache.held[sequence.slot])
            tokens = sequence.pending(start)[: max(1, budget)]
            budget -= len(tokens)
            spans.append((sequence, Span(slot=sequence.slot, start=start, tokens=tokens)))
        return spans

    def _extend(self, sequences: list[_Sequence], logits: torch.Tensor) -> None:
        """Sample each sequence's next token from its row of `logits`; finish what is done."""
        sound = logits.isfinite().all(-1).tolist()
        for sequence in [each for each, fine in zip(sequences, sound, strict=True) if not fine]:
            text = "expected finite logits, got NaN or infinity; the weights are damaged"
            self._finish(sequence, EngineError(text))
        sequences = [each for each, fine in zip(sequences, sound, strict=True) if fine]
        requests = [sequence.request for sequence in sequences]
        tokens, logprobs = sample(
            logits.cpu()[sound],
            torch.tensor([request.temperature for request in requests]),
            torch.tensor([request.top_k for request in requests]),
            torch.tensor([request.top_p for request in requests]),
            torch.tensor([sequence.rng.random() for sequence in sequences]),
        )
        for sequence, token, logprob in zip(
            sequences, tokens.tolist(), logprobs.tolist(), strict=True
        ):
            sequence.token_ids.append(token)
            sequence.logprobs.append(logprob)
            if reason := self._finish_reason(sequence):
                self._finish(sequence, _result(sequence, reason))

    def _finish_reason(self, sequence: _Sequence) -> Literal["stop", "length"] | None:
        request, made = sequence.request, len(sequence.token_ids)
        if sequence.token_ids[-1] in request.stop_ids:
            return "stop"
        full = made == request.max_tokens or len(request.prompt_ids) + made == self.context
        return "length" if full else None

    def _finish(self, sequence: _Sequence, outcome: GenResult | EngineError) -> None:
        if isinstance(outcome, EngineError):
            self._cache.held[sequence.slot] = []
        self._release(sequence)
        _settle(sequence, outcome)

    def _release(self, sequence: _Sequence) -> None:
        self._running.remove(sequence)
        self._free.append(sequence.slot)


def _result(sequence: _Sequence, reason: Literal["stop", "length"]) -> GenResult:
    return GenResult(
        token_ids=tuple(sequence.token_ids),
        logprobs=tuple(sequence.logprobs),
        finish_reason=reason,
        cached_tokens=sequence.cached,
    )


def _settle(sequence: _Sequence, outcome: GenResult | BaseException) -> None:
    with suppress(InvalidStateError):  # cancelled meanwhile
        if isinstance(outcome, BaseException):
            sequence.future.set_exception(outcome)
        else:
            sequence.future.set_result(outcome)
