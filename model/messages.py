"""A conversation as the model layer knows it: messages, tools, calls. `chat.py` renders it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSpec:
    """A tool offered to the model.

    Raises:
        ValueError: the schema is none; see `schema_problem`.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of an object."""

    def __post_init__(self) -> None:
        if problem := schema_problem(self.parameters):
            raise ValueError(f"cannot offer the tool {self.name}: {problem}")


def schema_problem(parameters: Mapping[str, Any]) -> str | None:
    """What keeps arguments from being read by a tool's JSON schema, in a sentence; None = nothing.

    Only what is read of a schema is looked at: `properties`, `required`, and of each property
    `type` and `enum`. A property may be `true` (any value) or `false` (none).
    """
    properties = parameters.get("properties", {})
    if not isinstance(properties, Mapping):
        return f"expected an object as properties, got {properties!r}; leave it out for none"
    required = parameters.get("required", [])
    if not _are_names(required):
        return f"expected a list of names as required, got {required!r}; leave it out for none"
    for name, schema in properties.items():
        if isinstance(schema, bool):
            continue
        if not isinstance(schema, Mapping):
            return f"expected a JSON schema for {name}, got {schema!r}; true takes any value"
        kinds = schema.get("type", [])
        if not isinstance(kinds, str) and not _are_names(kinds):
            return f"expected a name or a list of names as the type of {name}, got {kinds!r}"
        values = schema.get("enum", [])
        if not isinstance(values, list | tuple):
            return f"expected a list of values as the enum of {name}, got {values!r}"
    return None


def _are_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


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
