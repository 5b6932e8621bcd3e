"""Whether text in one colour can be seen on another. It knows colours, not fonts or eyes."""

from __future__ import annotations

import re
from collections.abc import Iterable

LEAST_CONTRAST = 1.25
"""Ratio of luminances, as WCAG counts it: 1 is the same colour, 21 black on white."""
LEAST_PT = 4.0
"""Text below this height is no text to a reader."""
BLACK, WHITE = "000000", "FFFFFF"


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminances; what is no RRGGBB counts as told apart."""
    try:
        lights = sorted((_luminance(one), _luminance(other)))
    except ValueError:
        return 21.0
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def sinks(ink: str, grounds: Iterable[str]) -> bool:
    """Whether an ink cannot be told from any of the colours behind it."""
    behind = list(grounds)
    return bool(behind) and all(contrast(ink, ground) < LEAST_CONTRAST for ground in behind)


def _luminance(colour: str) -> float:
    if re.fullmatch(r"[0-9A-Fa-f]{6}", colour) is None:
        raise ValueError(f"expected a colour as RRGGBB, got {colour!r}")
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
