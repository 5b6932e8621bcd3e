"""One workbook as `inside/workbook.py` read it: cells, results, and all that is not a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..workspaces import Workspace
from .reading import lay_original, read_inside

Kind = Literal["number", "text", "bool", "date", "error", "formula"]
GOLD = "/tmp/gold.xlsx"
AS_WRITTEN = "format as written"
"""The aspect of a style that programs write differently; it is looked at, not compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What stands in one cell."""

    kind: Kind
    value: Any
    """A date is in ISO format, a formula its text, an error its name such as `#REF!`."""

    def __str__(self) -> str:
        return f"{self.kind} {self.value!r}"


Sheets = Mapping[str, Mapping[str, Cell]]
"""Sheet -> cell such as `B2` -> what stands there; empty cells are left out."""
Inputs = Mapping[str, Sequence[str]]
"""Sheet -> areas such as `B2:C4`."""
Style = Mapping[str, Any]
"""Aspect such as `bold` or `number format` -> value; what is so by default is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """All of a workbook that is not the value of a cell."""

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Sheet, or empty for the workbook -> facet such as `width B` -> its value."""
    styles: Sequence[Style] = ({},)
    styled: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Sheet -> cell -> place in `styles`."""

    @property
    def names(self) -> frozenset[str]:
        """The defined names, in small letters."""
        facets = (facet for facets in self.parts.values() for facet in facets)
        return frozenset(f[5:].casefold() for f in facets if f.startswith("name "))

    def style(self, sheet: str, cell: str) -> Style:
        """How a cell looks."""
        return self.styles[self.styled.get(sheet, {}).get(cell, 0)]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkbookReading:
    """One workbook, read."""

    ending: str
    """`read`, or why it was not: `missing`, `no_workbook`, `too_big`, `not_converted`."""
    detail: str = ""
    """Why it could not be read; empty = it was."""
    written: Sheets = field(default_factory=dict)
    """As it was saved: formulas are formulas."""
    values: Sheets = field(default_factory=dict)
    """After recalculation: formulas are their results; empty = there are no formulas."""
    variants: Sequence[Sheets] = ()
    """Results of the formulas after each change of inputs; empty = there are no formulas."""
    gold: Sequence[Sheets] = ()
    """The same of the gold workbook."""
    look: Look = field(default_factory=Look)
    original: Sheets = field(default_factory=dict)
    """As in the task's seed; empty = the seed has no such file."""
    original_look: Look | None = None
    saved_looks: Sequence[Look] = ()
    """The seed's file as other programs save it unchanged; read when they are needed."""

    def value(self, sheet: str, cell: str) -> Cell | None:
        """The value of a cell, a formula's as LibreOffice calculates it; None = empty."""
        written = self.written.get(sheet, {}).get(cell)
        if written is None or written.kind != "formula":
            return written
        return self.values.get(sheet, {}).get(cell)


async def read_workbook(
    workspace: Workspace,
    path: str,
    *,
    changes: Sequence[Mapping[str, Mapping[str, Any]]] = (),
    gold: bytes | None = None,
    inputs: Inputs | None = None,
) -> WorkbookReading:
    """Read a workbook that lies in `workspace`, and the seed's file of the same path.

    Args:
        changes: sheet -> cell -> another input; formulas are also calculated after each of them.
        gold: a workbook that is put through the same changes.
        inputs: what may be changed besides: one more change is made, of every number in them.

    Raises:
        WorkspaceError: the workspace failed, or it cannot read any workbook.
    """
    if gold is not None:
        await workspace.put(GOLD, gold)
    request = {
        "path": path,
        "original": await lay_original(workspace, path),
        "changes": list(changes),
        "gold": None if gold is None else GOLD,
        "inputs": inputs,
    }
    raw = await read_inside(workspace, "workbook", request)
    if raw["ending"] != "read":
        return WorkbookReading(ending=raw["ending"], detail=raw["detail"])
    return WorkbookReading(
        ending="read",
        written=_sheets(raw["written"]),
        values=_sheets(raw["values"]),
        variants=[_sheets(each) for each in raw["variants"]],
        gold=[_sheets(each) for each in raw["gold"]],
        look=Look(**raw["look"]),
        original=_sheets(raw.get("original", {})),
        original_look=Look(**raw["original_look"]) if "original_look" in raw else None,
    )


async def read_saved(workspace: Workspace, path: str) -> Sequence[Look]:
    """The seed's file of this path as openpyxl, LibreOffice and both save it, unchanged.

    Raises:
        WorkspaceError: the workspace failed.
    """
    original = await lay_original(workspace, path)
    raw = await read_inside(workspace, "workbook_saved", {"original": original})
    return [Look(**look) for look in raw["looks"]] if raw["ending"] == "read" else []


def _sheets(raw: Mapping[str, Mapping[str, tuple[Kind, Any]]]) -> Sheets:
    return {
        name: {at: Cell(kind=kind, value=value) for at, (kind, value) in cells.items()}
        for name, cells in raw.items()
    }
