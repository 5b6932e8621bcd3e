"""Which bytes may go on a JSON value, as a stack of what is still expected.

Narrower than JSON where that costs nothing: no `\\u` escapes, at most one space after `,` and `:`,
numbers of 15 digits with exponents of two, nesting up to a depth. Schemas inside objects and arrays
are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

Symbol = tuple[Any, ...]
"""A kind of expectation, by name, and what it depends on."""
Stack = tuple[Symbol, ...]
"""What is expected, next first."""

SKIP: Final[Stack] = (("skip",),)
"""What `expand` gives when a symbol may end here and the input belongs to the next one."""
DEPTH = 6
_DIGITS = 15
_DIGIT = frozenset(b"0123456789")
_EVERY = ("string", "integer", "number", "boolean", "null", "object", "array")
_WORDS = {ord("t"): ("boolean", b"rue"), ord("f"): ("boolean", b"alse"), ord("n"): ("null", b"ull")}


def value(types: Sequence[str], depth: int = DEPTH) -> Symbol:
    """Expects a value of one of some JSON schema types."""
    return ("value", tuple(types), depth)


def expand(symbol: Symbol, byte: int) -> Stack | None:
    """What is expected in place of `symbol` after `byte`; None = the byte is not allowed."""
    match symbol:
        case ("value", types, depth):
            return _begin(types, depth, byte)
        case ("string",):
            return _string(byte)
        case ("escaped",):
            return () if byte in b'"\\/bfnrt' else None
        case ("text", text):
            return _text(text, byte)
        case ("space",):
            return () if byte == ord(" ") else SKIP
        case ("minus" | "whole" | "point" | "fraction" | "exponent" | "power", *_):
            return _number(symbol, byte)
        case _:
            return _nested(symbol, byte)


def may_end(symbol: Symbol) -> bool:
    """Whether a value is complete without anything more of `symbol`."""
    return symbol[0] in ("whole", "fraction", "power", "space") and symbol != ("power", 2)


def _begin(types: Sequence[str], depth: int, byte: int) -> Stack | None:
    if byte == ord('"') and "string" in types:
        return (("string",),)
    if byte == ord("{") and "object" in types and depth:
        return (("first key", depth),)
    if byte == ord("[") and "array" in types and depth:
        return (("first item", depth),)
    if byte in _WORDS and _WORDS[byte][0] in types:
        return (("text", _WORDS[byte][1]),)
    real = "number" in types
    if not real and "integer" not in types:
        return None
    return (("minus", real),) if byte == ord("-") else _number(("minus", real), byte)


def _string(byte: int) -> Stack | None:
    if byte == ord('"'):
        return ()
    if byte == ord("\\"):
        return (("escaped",), ("string",))
    return (("string",),) if byte >= 0x20 else None


def _text(text: bytes, byte: int) -> Stack | None:
    if byte != text[0]:
        return None
    return (("text", text[1:]),) if len(text) > 1 else ()


def _number(symbol: Symbol, byte: int) -> Stack | None:
    """`power` counts how many digits it may still have; with 2 left it needs one."""
    match symbol:
        case ("minus", real):
            left = 0 if byte == ord("0") else _DIGITS - 1
            return (("whole", left, real),) if byte in _DIGIT else None
        case ("point",):
            return (("fraction", _DIGITS - 1),) if byte in _DIGIT else None
        case ("exponent",) if byte in b"+-":
            return (("power", 2),)
        case ("exponent",):
            return (("power", 1),) if byte in _DIGIT else None
        case ("whole" | "fraction" | "power" as kind, left, *rest) if byte in _DIGIT:
            return ((kind, left - 1, *rest),) if left else None
        case ("power", 2):
            return None
        case ("whole", _, True) if byte == ord("."):
            return (("point",),)
        case ("whole", _, True) | ("fraction", _) if byte == ord("e"):
            return (("exponent",),)
    return SKIP


def _nested(symbol: Symbol, byte: int) -> Stack | None:
    kind, depth = symbol
    inner, quoted = value(_EVERY, depth - 1), byte == ord('"')
    match kind:
        case "first item" if byte == ord("]"):
            return ()
        case "first item":
            begun = _begin(_EVERY, depth - 1, byte)
            return None if begun is None else (*begun, ("items", depth))
        case "items" if byte in b",]":
            return () if byte == ord("]") else (("space",), inner, symbol)
        case "first key" if byte == ord("}"):
            return ()
        case "first key" | "key" if quoted:
            return (("string",), ("colon", depth))
        case "colon" if byte == ord(":"):
            return (("space",), inner, ("entries", depth))
        case "entries" if byte in b",}":
            return () if byte == ord("}") else (("space",), ("key", depth))
    return None
