"""The contract of a policy: anything that completes a turn. Stateless between requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from ...model import Message, ToolSpec
from ..task import Task


class PolicyError(Exception):
    """The endpoint or engine failed. Recorded as `policy_error`, retried, never a zero reward."""


class ContextOverflow(PolicyError):
    """The conversation no longer fits the model. Ends the episode as `token_limit`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How to sample. The defaults are the ones recommended for M2."""

    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 40
    """0 = no limit."""
    max_tokens: int = 1024
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnRequest:
    """One model call to make."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    sampling: Sampling
    task: Task
    """Only the gold policy looks at it; a real model sees the messages alone."""
    turn_index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a policy answered."""

    message: Message
    """Parsed; `token_ids` is set when the policy knows its tokens."""
    prompt_ids: tuple[int, ...] = ()
    """The whole prompt as the sampler saw it; empty = unknown."""
    completion_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    total_tokens: int = 0
    """Prompt plus completion, as the policy counts them; 0 = unknown."""
    finish_reason: Literal["stop", "length"] = "stop"
    format_error: str | None = None
    version: str = ""


class Policy(Protocol):
    """Completes turns, many at a time, within one event loop."""

    name: str
    """As given on the command line: `bundled`, `gold`, `openai:URL#MODEL`."""
    tokenizer: str
    """Fingerprint of its tokenizer; empty = it reports no token ids."""
    deterministic: bool
    """True when the same request always gives the same answer."""

    async def check(self) -> None:
        """Find out, cheaply and before any work, whether it can answer.

        Raises:
            PolicyError: it cannot; one sentence that says why and what to do.
        """
        ...

    async def complete(self, request: TurnRequest) -> Completion:
        """Complete one turn.

        Raises:
            ContextOverflow: the conversation does not fit the model.
            PolicyError: no answer could be had after retries.
        """
        ...

    async def close(self) -> None:
        """Free what it holds. Safe to call twice."""
        ...
