"""What an engine counts."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStats:
    """What an engine did since it was made, and what it holds now."""

    running: int
    waiting: int
    pages: int
    pages_used: int
    """By sequences and by the prefix cache."""
    prompt_tokens: int
    """Of admitted requests, cached ones included."""
    cached_tokens: int
    """Prompt tokens that were not computed again."""
    completion_tokens: int
    drafted_tokens: int
    """Guesses that the model was asked about."""
    accepted_tokens: int
    """Guesses that it agreed with."""
    kept_pages: int
    """Evicted pages that went to memory or disk."""
    recalled_pages: int
    """Pages that came back from there."""
    damaged_pages: int
    """Files of pages that were no good."""
    preemptions: int
    steps: int
    version: int
