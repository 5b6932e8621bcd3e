"""What was changed in a workbook outside of its declared regions: values, styles, all other parts.

The comparison is by meaning, so that a file saved by another program is the same file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from .sameness import near
from .workbook_reading import Cell, Look, WorkbookReading
from .workbook_region import Region, column_letter, place, plain_formula

WIDTH_SLACK = 1.0
"""Characters by which a column's width may differ; programs measure fonts differently."""
Declared = set[tuple[str, str]]
"""Sheet and cell."""


def declared_cells(regions: Sequence[Region]) -> Declared:
    """Every cell that the task says may be changed."""
    return {(region.sheet, at) for region in regions for at, _ in region.cells()}


def changed_values(reading: WorkbookReading, declared: Declared) -> list[str]:
    """Cells outside of the regions that are not as they were, and sheets that are gone."""
    missing = [sheet for sheet in reading.original if sheet not in reading.written]
    changes = [f"sheet {sheet!r} is gone" for sheet in missing]
    for sheet, cells in reading.written.items():
        before = reading.original.get(sheet, {})
        for at in dict.fromkeys([*before, *cells]):
            if (sheet, at) not in declared and not _unchanged(before.get(at), cells.get(at)):
                was, now = before.get(at) or "nothing", cells.get(at) or "nothing"
                changes.append(f"{sheet}!{at}: expected {was} as before, got {now}")
    return changes


def changed_styles(before: Look, after: Look, declared: Declared) -> list[str]:
    """Cells of the seed's sheets, outside of the regions, that look different."""
    changes = []
    for sheet in before.styled.keys() & after.styled.keys():
        for at in dict.fromkeys([*before.styled[sheet], *after.styled[sheet]]):
            was, now = before.style(sheet, at), after.style(sheet, at)
            differing = [a for a in {**was, **now} if was.get(a) != now.get(a)]
            if was.get("font") == "any" and "font" in differing:
                differing.remove("font")
            if differing and (sheet, at) not in declared:
                told = f"{differing[0]} {was.get(differing[0])!r} as before"
                changes.append(f"{sheet}!{at}: expected {told}, got {now.get(differing[0])!r}")
    return sorted(changes)


def changed_parts(before: Look, after: Look, declared: Declared) -> list[str]:
    """Names, charts, rules, notes, widths and hidden state that differ.

    A sheet that the task asks for is free to have all of these but a hidden state, and a declared
    region may get notes, rules and column widths of its own.
    """
    asked = {sheet for sheet, _ in declared}
    changes = []
    for sheet, now in after.parts.items():
        was = before.parts.get(sheet)
        if was is None:
            if sheet not in asked and now.get("state", "visible") != "visible":
                changes.append(f"expected no hidden sheet, got {sheet!r}")
            continue
        free = {at for name, at in declared if name == sheet}
        for facet in dict.fromkeys([*was, *now]):
            old, new = was.get(facet), now.get(facet)
            if facet == "order of sheets":
                old, new = _common_order(str(old), str(new))
            if not _same_facet(facet, old, new) and not (old is None and _within(facet, free)):
                where = f"{sheet}: " if sheet else ""
                told = "nothing" if new is None else repr(new)
                kept = "none" if old is None else f"{old!r} as before"
                changes.append(f"{where}{facet}: expected {kept}, got {told}")
    return changes


def errors(reading: WorkbookReading) -> list[str]:
    """Cells that hold an error after recalculation."""
    found = []
    for sheet, cells in reading.written.items():
        for at in cells:
            cell = reading.value(sheet, at)
            if cell is not None and cell.kind == "error":
                found.append(f"{sheet}!{at}: {cell.value}")
    return found


def _unchanged(before: Cell | None, after: Cell | None) -> bool:
    if before is None or after is None or before.kind != after.kind:
        return before is after
    if before.kind == "number":
        return near(after.value, before.value)
    if before.kind == "formula":
        return plain_formula(before.value) == plain_formula(after.value)
    return bool(before.value == after.value)


def _same_facet(facet: str, old: Any, new: Any) -> bool:
    if facet.startswith("width ") and isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=0.05, abs_tol=WIDTH_SLACK)
    return bool(old == new)


def _common_order(old: str, new: str) -> tuple[str, str]:
    """The order of the sheets that were there before, before and now; gone ones are told apart."""
    both = set(old.split("\n")) & set(new.split("\n"))
    kept = ["\n".join(s for s in text.split("\n") if s in both) for text in (old, new)]
    return kept[0], kept[1]


def _within(facet: str, free: set[str]) -> bool:
    """Whether a new facet concerns declared cells only."""
    found = re.fullmatch(
        r"(?:comment|link|validation|conditional format|merged) ([^#]+)(#\d+)?", facet
    )
    if found is not None:
        return bool(free) and all(at in free for at in _spread(found[1]))
    width = re.fullmatch(r"width ([A-Z]+)", facet)
    return width is not None and any(re.fullmatch(rf"{width[1]}\d+", at) for at in free)


def _spread(areas: str, most: int = 5000) -> Iterator[str]:
    """The cells of areas such as `A1:B2 D4`; a very large one gives a name that nobody declares."""
    for area in areas.split():
        first, _, last = area.replace("$", "").partition(":")
        try:
            (left, top), (right, bottom) = place(first), place(last or first)
        except ValueError:  # whole columns or rows
            yield "too many"
            return
        if (right - left + 1) * (bottom - top + 1) > most:
            yield "too many"
            return
        for row in range(top, bottom + 1):
            yield from (f"{column_letter(column)}{row}" for column in range(left, right + 1))
