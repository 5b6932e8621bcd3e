"""A conversation as the model layer knows it: messages, tools, calls. `chat.py` renders it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSpec:
    """A tool offered to the model."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of an object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """One call the model made; arguments are cast by the tool's schema."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message. Thinking is kept in `reasoning` and stays in the history."""

    role: Role
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    token_ids: tuple[int, ...] | None = None
    """Assistant only: exactly what was sampled, its end of message included.
    Rendering uses these ids as they are: history is never re-tokenised. None = render the text."""
