"""One request on its way through the engine."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from .request import DAMAGED, EngineError, FinishReason, GenRequest, GenResult, Token


@dataclass(eq=False, kw_only=True, slots=True)
class Trail:
    """What the MTP modules know of a sequence; index 0 is the first module."""

    done: list[int]
    """For how many positions each module has its final keys."""
    states: list[torch.Tensor]
    """What each has yet to read: the states of the depth before, [*, hidden], from `done` on."""


@dataclass(eq=False, kw_only=True, slots=True)
class Running:
    """A request, what was sampled for it, and the pages with its keys and values."""

    request: GenRequest
    future: Future[GenResult]
    on_token: Callable[[Token], None] | None
    rng: random.Random
    tokens: list[Token] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    """Prompt and completion."""
    pages: list[int] = field(default_factory=list)
    held: int = 0
    """For how many of `token_ids` the pages hold keys and values."""
    cached: int | None = None
    """None = not admitted yet."""
    epoch: int = 0
    """Which weights all its keys come from; -1 = from several."""
    drafts: list[int] = field(default_factory=list)
    """Guesses of the next tokens, to be fed with what is pending."""
    trail: Trail | None = None
    """How far the MTP modules came; None = nothing was fed since the pages were given."""
    numbers: list[float] = field(default_factory=list)
    """The random numbers of its tokens, as far as they were asked for."""
    prompt_tokens: list[Token] = field(default_factory=list)
    """Those of the prompt's that were scored, from the second on, where that is asked for."""
    failure: EngineError | None = None
    """What was wrong with the scores."""

    @property
    def pending(self) -> int:
        """How many tokens are to be fed before the next can be sampled."""
        return len(self.token_ids) - self.held

    @property
    def is_scored(self) -> bool:
        """Whether scores of its prompt are asked for and not all there."""
        request = self.request
        scored = len(self.prompt_tokens) + 1
        return request.prompt_logprobs and not self.failure and scored < len(request.prompt_ids)

    @property
    def reusable(self) -> Sequence[int]:
        """The first tokens, as many as need not be fed when their keys are there already."""
        return self.token_ids[: len(self.prompt_tokens) if self.is_scored else -1]

    @property
    def completion(self) -> Sequence[int]:
        """The sampled ids."""
        return self.token_ids[len(self.request.prompt_ids) :]

    def number(self, ahead: int) -> float:
        """What picks the token `ahead` of the next one, in [0, 1); a guess of it uses the same."""
        at = len(self.tokens) + ahead
        while len(self.numbers) <= at:
            self.numbers.append(self.rng.random())
        return self.numbers[at]

    def add(self, token: Token) -> None:
        """Take a sampled token and tell who listens."""
        self.tokens.append(token)
        self.token_ids.append(token.token_id)
        if self.on_token is not None:
            self.on_token(token)

    def add_scored(self, tokens: Sequence[Token]) -> None:
        """Take the next tokens of a prompt that is scored and tell who listens."""
        if not all(math.isfinite(token.logprob) for token in tokens):
            self.failure = DAMAGED
        elif self.failure is None:
            self.prompt_tokens += tokens
            if self.on_token is not None:
                for token in tokens:
                    self.on_token(token)

    def finish_reason(self, context: int) -> FinishReason | None:
        """Why the completion ends after its last token; None = it goes on."""
        if self.tokens[-1].token_id in self.request.stop_ids:
            return "stop"
        full = len(self.tokens) == self.request.max_tokens or len(self.token_ids) == context
        return "length" if full else None

    def settle(self, outcome: GenResult | BaseException) -> None:
        """Resolve the future, unless it was cancelled meanwhile."""
        with suppress(InvalidStateError):
            if isinstance(outcome, BaseException):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
