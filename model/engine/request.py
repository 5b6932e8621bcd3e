"""What goes into the engine and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch

FinishReason = Literal["stop", "length"]


class EngineError(RuntimeError):
    """A request could not be answered; says why."""


DAMAGED = EngineError("expected finite logits, got NaN or infinity; the weights are damaged")


class PromptTooLong(EngineError):
    """The prompt leaves no room for an answer in the context, or in the cache."""


class QueueFull(EngineError):
    """Too many requests wait already; try again later."""


class LogitMask(Protocol):
    """Which tokens may come next, for instance by a grammar."""

    def __call__(self, token_ids: Sequence[int]) -> torch.Tensor | None:
        """Bool [vocab], True = allowed, after the completion so far; None = all are allowed.

        An exception fails the request that brought the mask and no other.
        """
        ...


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
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in the prompt or completion."""
    frequency_penalty: float = 0.0
    """Taken off a token's logit for each time the completion holds it."""
    presence_penalty: float = 0.0
    """Taken off a token's logit once the completion holds it."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to logits, by token id; finite, or -inf to forbid one."""
    mask: LogitMask | None = None
    seed: int = 0
    """The same seed draws the same numbers, whatever else is in the batch."""
    stop_ids: frozenset[int] = frozenset()
    top_logprobs: int = 0
    """How many of the likeliest tokens to report at each place."""
    prompt_logprobs: bool = False
    """Whether to report how likely each token of the prompt was; none of it then comes from a
    cache."""
    routes: bool = False
    """Whether to report the experts of each token; the engine must record them."""
    client: str = ""
    """Who asks: clients take turns, by the tokens that they were served."""

    def __post_init__(self) -> None:
        checks = {
            "prompt_ids must not be empty": bool(self.prompt_ids),
            f"max_tokens must be positive, got {self.max_tokens}": self.max_tokens > 0,
            f"temperature must be 0 or more, got {self.temperature}": 0
            <= self.temperature
            < math.inf,
            f"top_p must lie in (0, 1], got {self.top_p}": 0 < self.top_p <= 1,
            f"top_k must be 0 or more, got {self.top_k}": self.top_k >= 0,
            f"repetition_penalty must be positive, got {self.repetition_penalty}": 0
            < self.repetition_penalty
            < math.inf,
            f"frequency_penalty must be a number, got {self.frequency_penalty}": math.isfinite(
                self.frequency_penalty
            ),
            f"presence_penalty must be a number, got {self.presence_penalty}": math.isfinite(
                self.presence_penalty
            ),
            f"logit_bias must hold finite numbers or -inf, got {self.logit_bias}": all(
                each < math.inf for each in self.logit_bias.values()
            ),
            f"top_logprobs must be 0 or more, got {self.top_logprobs}": self.top_logprobs >= 0,
        }
        for message, holds in checks.items():
            if not holds:
                raise ValueError(message)

    @property
    def is_limited(self) -> bool:
        """Whether top-k or top-p leaves tokens out."""
        return self.top_k > 0 or self.top_p < 1

    @property
    def shapes_logits(self) -> bool:
        """Whether anything but temperature, top-k and top-p changes the distribution."""
        return bool(
            self.repetition_penalty != 1
            or self.frequency_penalty
            or self.presence_penalty
            or self.logit_bias
            or self.mask
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """One token, sampled or of a prompt that was asked about."""

    token_id: int
    logprob: float
    """Under the model's whole distribution at the request's temperature, before penalties, bias,
    mask, top-k and top-p; for greedy requests under the distribution at temperature 1."""
    version: int
    """Of the weights that made it; see `Engine.swap_weights`."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens and their logprobs, likeliest first; `top_logprobs` of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenResult:
    """A completion, token by token."""

    tokens: tuple[Token, ...]
    """The stop token included."""
    finish_reason: FinishReason
    """`length`: `max_tokens` or the context is used up."""
    cached_tokens: int
    """How many prompt tokens were not computed again."""
    prompt_tokens: tuple[Token, ...] | None = None
    """The prompt's tokens but the first, nothing stands before that. None = not asked for."""
    routes: torch.Tensor | None = None
    """[fed, layers, top_k] int16: the experts of each token of prompt and completion except the
    last, which was never fed. None = not asked for."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The ids of `tokens`."""
        return tuple(token.token_id for token in self.tokens)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """The logprobs of `tokens`."""
        return tuple(token.logprob for token in self.tokens)
