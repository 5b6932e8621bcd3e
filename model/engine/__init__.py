"""Generates from a model: many requests at once over one paged cache. Token ids, no text.

One process and one device; no tensor parallelism. `docs/engine.md` shows how the parts fit.
"""

from .engine import Engine
from .front import AsyncEngine
from .request import (
    EngineError,
    GenRequest,
    GenResult,
    LogitMask,
    PromptTooLong,
    QueueFull,
    Token,
)
from .spill import SpillSettings

__all__ = [
    "AsyncEngine",
    "Engine",
    "EngineError",
    "GenRequest",
    "GenResult",
    "LogitMask",
    "PromptTooLong",
    "QueueFull",
    "SpillSettings",
    "Token",
]
