"""Why the value of a cell does not meet the eye, or meets it as something else.

It goes by sizes, colours and the number format. What a chart or picture of the seed lies over is
the task's own affair.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from .inside.sight import BLACK, LEAST_PT, WHITE, sinks
from .workbook_places import column_letter, covers, place
from .workbook_reading import AS_WRITTEN, Cell, Look

LEAST_ROW_PT = 4.0
LEAST_COLUMN_CHARS = 0.6
COLOURS = {
    "black": BLACK, "white": WHITE, "red": "FF0000", "green": "00FF00", "blue": "0000FF",
    "yellow": "FFFF00", "magenta": "FF00FF", "cyan": "00FFFF",
    "color1": BLACK, "color2": WHITE, "color3": "FF0000", "color4": "00FF00",
    "color5": "0000FF", "color6": "FFFF00", "color7": "FF00FF", "color8": "00FFFF",
    "color15": "C0C0C0", "color19": "FFFFCC", "color20": "CCFFFF", "color24": "CCCCFF",
    "color34": "CCFFFF", "color35": "CCFFCC", "color36": "FFFF99",
}  # fmt: skip
"""What a number format may colour a value; the light ones of the numbered colours."""
TESTS: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda got, limit: got < limit,
    "<=": lambda got, limit: got <= limit,
    ">": lambda got, limit: got > limit,
    ">=": lambda got, limit: got >= limit,
    "=": lambda got, limit: got == limit,
    "<>": lambda got, limit: got != limit,
}
OPERATORS = {
    "lessThan": "<", "lessThanOrEqual": "<=", "greaterThan": ">", "greaterThanOrEqual": ">=",
    "equal": "=", "notEqual": "<>",
}  # fmt: skip
PIECE = re.compile(r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|[_*].|\[(?P<mark>[^\]]*)\]|(?P<bare>.)')
STANDS = "\x00"
"""Where a format shows the value itself."""


def unseen(look: Look, before: Look | None, sheet: str, at: str, value: Cell | None) -> str:
    """Why a cell cannot be seen as it is; empty = it can.

    Args:
        before: how the seed looks, whose own rules and drawings count for nothing; None = no seed.
    """
    parts, style = look.parts.get(sheet, {}), look.style(sheet, at)
    if why := _lost_place(parts, at):
        return why
    if style.get("size", LEAST_PT) < LEAST_PT:
        return f"text of {style['size']:g} pt"
    code = str(style.get(AS_WRITTEN, ""))
    section = _section(code, value)
    if section is not None and (why := _misshown(section)):
        return f"the number format {code!r}, {why}"
    ink = _coloured(section or "") or str(style.get("ink", BLACK))
    ground = _grounds(style.get("fill", ""))
    if sinks(ink, ground):
        return f"{ink} on the same colour, or nearly"
    known = before.parts.get(sheet, {}) if before else {}
    added = {name: told for name, told in parts.items() if name not in known}
    return _veiled(added, at, value, ink, ground) or _covered(added, at)


def _lost_place(parts: Mapping[str, Any], at: str) -> str:
    column, row = place(at)
    letter = column_letter(column)
    if parts.get("state", "visible") != "visible":
        return "hidden sheet"
    for facet in (f"hidden row {row}", f"hidden column {letter}", "hidden by default"):
        if facet in parts:
            return facet
    if parts.get(f"height {row}", LEAST_ROW_PT) < LEAST_ROW_PT:
        return f"a row of {parts[f'height {row}']:g} pt"
    if parts.get(f"width {letter}", LEAST_COLUMN_CHARS) < LEAST_COLUMN_CHARS:
        return f"a column of {parts[f'width {letter}']:g} characters"
    return ""


def _section(code: str, value: Cell | None) -> str | None:
    """The part of a number format that a value is shown by; None = as it is."""
    if not code or value is None or value.kind in ("bool", "error"):
        return None
    sections = _sections(code)
    if value.kind == "text":
        if len(sections) >= 4:
            return sections[3]
        return sections[-1] if "@" in _outline(sections[-1]) else None
    number = value.value if value.kind == "number" else 1.0
    for section in sections[:3]:
        condition = re.search(r"\[(<=|>=|<>|<|>|=)\s*(-?[\d.]+)\]", section)
        if condition is not None and TESTS[condition[1]](number, float(condition[2])):
            return section
    if any(re.search(r"\[[<>=]", section) for section in sections):
        return sections[-1] if not re.search(r"\[[<>=]", sections[-1]) else None
    place_of = 1 if number < 0 else 2 if number == 0 else 0
    return sections[place_of] if place_of < len(sections) else sections[0]


def _sections(code: str) -> list[str]:
    found = [""]
    for piece in PIECE.finditer(code):
        if piece["bare"] == ";":
            found.append("")
        else:
            found[-1] += piece[0]
    return found


def _misshown(section: str) -> str:
    """How a section shows a value as something else; empty = as it is."""
    shape = _outline(section)
    if STANDS not in shape:
        return "which does not show it"
    if re.search(rf"\d{STANDS}|{STANDS}[.,]?\d", shape):
        return "which shows other figures beside it"
    return ""


def _outline(section: str) -> str:
    """A section with each run of places for the value as one mark, and its literal text."""
    shape, general = "", re.sub(r"/\d+", "/?", re.sub(r"(?i)general", "0", section))
    for found in PIECE.finditer(general):
        mark, bare = found["mark"], found["bare"]
        if mark is not None:
            money = re.fullmatch(r"\$([^-]*)(?:-.*)?", mark)
            elapsed = re.fullmatch(r"(?i)h+|m+|s+", mark)
            shape += money[1] if money else STANDS if elapsed else ""
        elif bare is not None and bare in "0#?@yYmMdDhHsSbBeEgG":
            shape += STANDS if not shape.endswith(STANDS) else ""
        elif bare is not None:
            shape += "" if bare in ".,/%:-" and shape.endswith(STANDS) else bare
        else:
            shape += found["quoted"] or found["escaped"] or ""
    return shape.replace("@", STANDS)


def _coloured(section: str) -> str:
    marks = re.findall(r"\[([A-Za-z]+ ?\d*)\]", section)
    return next(
        (COLOURS[m] for mark in marks if (m := mark.lower().replace(" ", "")) in COLOURS), ""
    )


def _grounds(fill: str) -> list[str]:
    """The colours of a cell's ground: one, or all of a pattern or gradient."""
    return re.findall(r"\b[0-9A-F]{6}\b", fill) or [WHITE]


def _veiled(
    added: Mapping[str, Any], at: str, value: Cell | None, ink: str, ground: list[str]
) -> str:
    """Why a conditional format takes a value from sight; empty = none does."""
    for facet, told in added.items():
        if not facet.startswith("veil ") or not covers(facet[5:].partition("#")[0], at):
            continue
        over, below, hides, when = str(told).split("|", 3)
        if _applies(when, value) and (hides or sinks(over or ink, [below] if below else ground)):
            return f"hidden by {facet.replace('veil', 'the conditional format', 1)}"
    return ""


def _applies(when: str, value: Cell | None) -> bool:
    """Whether a rule such as `equal 0` is met; what cannot be told is taken to be."""
    operator, _, limit = when.partition(" ")
    try:
        bound = float(limit)
    except ValueError:
        return True
    test = TESTS.get(OPERATORS.get(operator, ""))
    if test is None or value is None or value.kind not in ("number", "text"):
        return True
    return test(value.value if value.kind == "number" else math.inf, bound)


def _covered(added: Mapping[str, Any], at: str) -> str:
    """Whether a new drawing lies over the cell."""
    column, row = place(at)
    for facet, ends in added.items():
        if facet.startswith("detail anchor ") and {"from col", "to col"} <= ends.keys():
            across = int(ends["from col"]) < column <= int(ends["to col"])
            if across and int(ends["from row"]) < row <= int(ends["to row"]):
                return "covered by a chart or picture"
    return ""
