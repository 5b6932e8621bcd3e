"""Checks a tool call whose arguments are JSON values, by the tool's schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...model import ToolCall, ToolSpec
from ...model.arguments import ArgumentError, cast_arguments, shorten


def checked_call(name: str, arguments: Mapping[str, Any], tools: Sequence[ToolSpec]) -> ToolCall:
    """The call, its arguments cast where that loses nothing (`"12"` where an integer belongs).

    Raises:
        ArgumentError: no such tool, or the arguments do not fit it.
    """
    known = {tool.name: tool for tool in tools}
    if name not in known:
        raise ArgumentError(f"expected one of the tools {', '.join(known)}, got {shorten(name)}")
    given = {key: value for key, value in arguments.items() if value is not None}
    texts = {key: _text(value) for key, value in given.items()}
    return ToolCall(name=name, arguments=cast_arguments(known[name], texts))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()  # a lone surrogate cannot enter a workspace
