"""What was changed in a workbook outside of its declared regions: values, styles, all other parts.

The comparison is by meaning, so that a file saved by another program is the same file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .sameness import near
from .workbook_places import all_within, nth_cell
from .workbook_reading import AS_WRITTEN, Cell, WorkbookReading
from .workbook_region import Region, plain_formula

WIDTH_SLACK = 1.0
"""Characters or points by which a width or height may differ; programs measure differently."""
DRAWING_SLACK = 2
"""Columns or rows by which the far end of a drawing may differ."""
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


def changed_styles(reading: WorkbookReading, declared: Declared) -> list[str]:
    """Cells of the seed's sheets, outside of the regions, that look different."""
    before, after, changes = reading.original_look, reading.look, []
    if before is None:
        return []
    for sheet in before.styled.keys() & after.styled.keys():
        for at in dict.fromkeys([*before.styled[sheet], *after.styled[sheet]]):
            if (sheet, at) in declared:
                continue
            was, now = before.style(sheet, at), after.style(sheet, at)
            saved = [look.style(sheet, at) for look in reading.saved_looks]
            for aspect in {**was, **now}:
                allowed = [style.get(aspect) for style in (was, *saved)]
                if (
                    aspect != AS_WRITTEN
                    and now.get(aspect) not in allowed
                    and (aspect != "font" or was.get("font") != "any")
                ):
                    told = f"{aspect} {was.get(aspect)!r} as before"
                    changes.append(f"{sheet}!{at}: expected {told}, got {now.get(aspect)!r}")
                    break
    return sorted(changes)


def changed_parts(reading: WorkbookReading, declared: Declared) -> list[str]:
    """Names, charts, rules, notes, widths and hidden state that differ.

    A sheet that the task asks for is free to have all of these but a hidden state, and a declared
    region may get notes, rules, heights and widths of its own. Details may also be as a program
    saves the seed.
    """
    before, after, changes = reading.original_look, reading.look, []
    if before is None:
        return []
    asked = {sheet for sheet, _ in declared}
    for sheet, now in after.parts.items():
        was = before.parts.get(sheet)
        if was is None:
            if sheet not in asked and now.get("state", "visible") != "visible":
                changes.append(f"expected no hidden sheet, got {sheet!r}")
            continue
        free = {at for name, at in declared if name == sheet}
        saved = [look.parts.get(sheet, {}) for look in reading.saved_looks]
        for facet in dict.fromkeys([*was, *now]):
            old, new = was.get(facet), now.get(facet)
            others = [each.get(facet) for each in saved]
            if facet == "order of sheets":
                old, new = _common_order(str(old), str(new))
            if facet.startswith("points "):
                wrong = _misstated(reading, (old, *others), new or {})
            else:
                wrong = _difference(facet, old, new, others)
            if wrong and not (old is None and _within(facet, free)):
                changes.append(f"{f'{sheet}: ' if sheet else ''}{facet}: {wrong}")
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


def _difference(facet: str, old: Any, new: Any, others: Sequence[Any]) -> str:
    """How a facet differs from the seed's; empty = it does not.

    Args:
        others: what the facet is when a program saves the seed; counts for details only.
    """
    if facet.startswith("veil ") or (facet.startswith("detail name ") and new is None):
        return ""  # told by the rule or the name itself
    if isinstance(old, Mapping) or isinstance(new, Mapping):
        was, now = old or {}, new or {}
        for path in dict.fromkeys([*was, *now]):
            allowed = [(each or {}).get(path) for each in (was, *others)]
            if not any(_near_text(path, now.get(path), each) for each in allowed):
                kept = f"{was[path]!r} as before" if path in was else "none"
                return f"expected {path.strip('/@')} {kept}, got {now.get(path, 'none')!r}"
        return ""
    loose = [*others] if facet.startswith("height ") else []
    if any(_same_facet(facet, each, new) for each in (old, *loose)):
        return ""
    told = "nothing" if new is None else repr(new)
    return f"expected {'none' if old is None else f'{old!r} as before'}, got {told}"


def _misstated(reading: WorkbookReading, before: Sequence[Any], points: Mapping[str, str]) -> str:
    """Numbers kept in a chart that neither stood there before nor stand in its cells now."""
    for path, told in points.items():
        area, _, number = path.rpartition(" ")
        if any((each or {}).get(path) == told for each in before):
            continue
        sheet, _, cells = area.rpartition("!")
        at = nth_cell(cells, int(number))
        cell = reading.value(sheet, at) if at else None
        if cell is not None and cell.kind == "number" and not _equals(told, cell.value):
            return f"expected {sheet}!{at} {cell.value} in the chart, got {told}"
    return ""


def _equals(told: str, value: float) -> bool:
    try:
        return near(float(told), value)
    except ValueError:
        return False


def _near_text(path: str, got: str | None, wanted: str | None) -> bool:
    """Equal, or the far end of a drawing that a program measured otherwise."""
    if got is not None and wanted is not None and path in ("to col", "to row"):
        return abs(int(got) - int(wanted)) <= DRAWING_SLACK
    return got == wanted


def _same_facet(facet: str, old: Any, new: Any) -> bool:
    measured = facet.startswith(("width ", "height "))
    if measured and isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=0.05, abs_tol=WIDTH_SLACK)
    return bool(old == new)


def _common_order(old: str, new: str) -> tuple[str, str]:
    """The order of the sheets that were there before, before and now; gone ones are told apart."""
    both = set(old.split("\n")) & set(new.split("\n"))
    kept = ["\n".join(s for s in text.split("\n") if s in both) for text in (old, new)]
    return kept[0], kept[1]


def _within(facet: str, free: set[str]) -> bool:
    """Whether a new facet concerns declared cells only."""
    kinds = "comment|link|validation|conditional format|merged|veil"
    found = re.fullmatch(rf"(?:detail )?(?:{kinds}) ([^#]+)(#\d+)?", facet)
    if found is not None:
        return all_within(found[1], free)
    width = re.fullmatch(r"width ([A-Z]+)", facet)
    height = re.fullmatch(r"height (\d+)", facet)
    return any(
        (width and at.rstrip("0123456789") == width[1])
        or (height and at.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") == height[1])
        for at in free
    )
