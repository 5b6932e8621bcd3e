"""Turns the texts of a call's parameters into arguments, by the tool's JSON schema.

Checks names, required ones, top-level types and enums; what is inside objects and arrays is left
to the tool. Arguments are JSON values: numbers are finite.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from .messages import ToolSpec


class ArgumentError(ValueError):
    """The arguments do not fit the tool; the text is meant for the model."""


_PYTHON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def cast_arguments(tool: ToolSpec, texts: Mapping[str, str]) -> dict[str, Any]:
    """Arguments by name.

    Raises:
        ArgumentError: one is unknown, missing or of the wrong type.
    """
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    for name in texts:
        if name not in properties:
            raise ArgumentError(
                f"expected the parameters of {tool.name} ({', '.join(properties) or 'none'}), "
                f"got {shorten(name)}"
            )
    for name in tool.parameters.get("required", ()):
        if name not in texts:
            raise ArgumentError(
                f"expected the parameter {name} of {tool.name}, got {', '.join(texts) or 'none'}"
            )
    return {name: _cast(tool, name, text, properties[name]) for name, text in texts.items()}


def declared_types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The types that a parameter's schema allows; empty = any."""
    declared = schema.get("type", ())
    return (declared,) if isinstance(declared, str) else tuple(declared)


def _cast(tool: ToolSpec, name: str, text: str, schema: Mapping[str, Any] | bool) -> Any:
    if schema is False:
        raise ArgumentError(
            f"expected no {name} of {tool.name}, since nothing fits its schema, got {shorten(text)}"
        )
    schema = {} if schema is True else schema
    types = declared_types(schema)
    value: Any = text
    if types != ("string",):
        value = _from_json(text)
        if types and not any(_is_a(value, type_) for type_ in types):
            if "string" not in types:
                raise ArgumentError(
                    f"expected {' or '.join(types)} for {name} of {tool.name}, got {shorten(text)}"
                )
            value = text
    if "enum" in schema and value not in schema["enum"]:
        raise ArgumentError(
            f"expected one of {schema['enum']} for {name} of {tool.name}, got {shorten(text)}"
        )
    return value


def _from_json(text: str) -> Any:
    """The JSON value, or the text itself when it is none."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _is_a(value: Any, type_: str) -> bool:
    if isinstance(value, bool):
        return type_ == "boolean"
    return isinstance(value, _PYTHON_TYPES.get(type_, object))


def shorten(text: str, limit: int = 60) -> str:
    """`text` quoted, cut to `limit` characters."""
    return repr(text if len(text) <= limit else f"{text[: limit - 3]}...")
