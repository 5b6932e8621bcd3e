"""When two numbers, texts or rows of texts count as the same, wherever verifiers compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""How far off a number may be, of its value and at least, where the task says nothing."""


def near(got: float, expected: float, absolute: float | None = None) -> bool:
    """Whether two numbers are the same within a tolerance; None = 1e-6 of the value."""
    relative = RELATIVE if absolute is None else 0.0
    try:
        return math.isclose(got, expected, rel_tol=relative, abs_tol=absolute or ABSOLUTE)
    except OverflowError:  # an integer too long for a float
        return False


def even(text: str) -> str:
    """A text whose case and spaces do not count."""
    return " ".join(text.split()).casefold()


def same_rows(
    got: Sequence[Sequence[str]], wanted: Sequence[Sequence[Any]], absolute: float | None = None
) -> bool:
    """Whether a table of texts shows the wanted texts and numbers, cell by cell."""
    return [len(row) for row in got] == [len(row) for row in wanted] and all(
        shows(text, value, absolute)
        for left, right in zip(got, wanted, strict=True)
        for text, value in zip(left, right, strict=True)
    )


def shows(text: str, value: Any, absolute: float | None = None) -> bool:
    """Whether a text shows a text, or a number as `1,200.50` or `1200.5`."""
    if isinstance(value, str):
        return even(text) == even(value)
    try:
        return near(float(text.strip().replace(",", "")), value, absolute)
    except ValueError:
        return False
