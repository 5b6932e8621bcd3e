"""The contract of a workbook template, and the few phrases and moves that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from textwrap import dedent
from typing import Any

import pandas as pd

from ....model import ToolCall
from ...task import Move
from ..grid import Grid
from ..scene import Scene
from ..sheets import plain, plain_rows


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a template makes of a scene."""

    instruction: str
    files: Mapping[str, bytes]
    """What lies in the workspace."""
    output: str
    """The file that is handed in and judged."""
    verifier: str
    """`workbook` or `answer`."""
    expected: Mapping[str, Any]
    """For the verifier, computed with pandas, never by the gold script."""
    solution: tuple[Move, ...]
    detail: Mapping[str, str] = field(default_factory=dict)
    """The template's parameters, for people."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """One kind of task."""

    name: str
    make: Callable[[Scene], Draft]
    needs: Mapping[str, int]
    """Kind of column -> how many the table must have."""


def region(sheet: str, top_left: str, values: Sequence[Sequence[Any]], **more: Any) -> Any:
    """A region of `WorkbookVerifier` as JSON."""
    cells = [[_json(plain(value)) for value in row] for row in values]
    return {"sheet": sheet, "top_left": top_left, "values": cells, **more}


def table_regions(sheet: str, frame: pd.DataFrame) -> list[Any]:
    """The regions of a new sheet that holds a table from A1 on."""
    return [region(sheet, "A1", [list(frame.columns), *plain_rows(frame)])]


def column_region(grid: Grid, letter: str, values: Sequence[Any], **more: Any) -> Any:
    """The region of one column below the header of a grid."""
    return region(grid.sheet, f"{letter}{grid.first_row}", [[value] for value in values], **more)


def shaken(scene: Scene, grid: Grid, columns: Sequence[str]) -> tuple[Grid, Any]:
    """The same table with other numbers in its first, its last and two more rows.

    Returns: the table, and the changes as a variant of `WorkbookVerifier` states them.
    """
    count = len(grid.frame)
    rows = sorted({0, count - 1, *scene.rng.sample(range(count), min(2, count))})
    frame, changes = grid.frame.copy(), {}
    for name in columns:
        values = [plain(value) for value in frame[name]]
        for row in rows:
            values[row] = round(values[row] * scene.pick((1.5, 2, 3)) + scene.rng.randint(1, 9), 3)
            changes[f"{grid.letter(name)}{grid.first_row + row}"] = values[row]
        frame[name] = values
    return replace(grid, frame=frame), {grid.sheet: changes}


def variant(changes: Any, *regions: Any) -> Any:
    """Other inputs and what the regions of formulas must hold then, as JSON."""
    return {"changes": changes, "regions": list(regions)}


def script(thought: str, code: str) -> Move:
    """A turn that runs a Python script."""
    command = f"python3 - <<'EOF'\n{dedent(code).strip()}\nEOF"
    return Move(thought=thought, calls=(ToolCall(name="bash", arguments={"command": command}),))


def look(scene: Scene, book: str) -> Move:
    """The first turn: what sheets and columns there are."""
    thought = scene.pick(
        (
            f"First I look at the sheets and the first rows of {book}.",
            f"Let me see what is in {book}.",
            f"I start by looking at {book}.",
        )
    )
    return script(
        thought,
        f"""
        import openpyxl
        for ws in openpyxl.load_workbook({book!r}):
            print(ws.title, ws.dimensions)
            for row in ws.iter_rows(max_row=4):
                print([f'{{c.coordinate}}={{c.value}}' for c in row])
        """,
    )


def look_again(book: str, sheet: str, *, first: int = 1, last: int = 4) -> Move:
    """The last turn: a few rows of the result."""
    return script(
        f"I check the first rows of the sheet {sheet}.",
        f"""
        import openpyxl
        ws = openpyxl.load_workbook({book!r})[{sheet!r}]
        for row in ws.iter_rows(min_row={first}, max_row={last}, values_only=True):
            print(row)
        """,
    )


def where(grid: Grid) -> str:
    """Says where a header stands when that is not row 1."""
    return f" The header is in row {grid.header_row}." if grid.header_row > 1 else ""


def keep(scene: Scene) -> str:
    """Asks that nothing else be changed."""
    return str(
        scene.pick(
            (
                "Leave everything else in the workbook as it is.",
                "Do not change anything else.",
                "Nothing else in the file may change.",
                "Keep the other cells and sheets as they are.",
            )
        )
    )


def _json(value: Any) -> Any:
    return {"date": value.isoformat()} if isinstance(value, datetime) else value
