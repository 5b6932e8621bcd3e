"""Reads a workbook: its cells, what LibreOffice makes of them, and all that is not a cell.

A request may name changes of inputs: each gives a copy of the workbook in which those cells hold
other values, calculated anew in the same run of LibreOffice.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from .answering import Refusal, answer, parsing
from .archive import weigh
from .soffice import convert
from .workbook_parts import parts, styles

MAX_CELLS = 50_000
FILTER = "Calc MS Excel 2007 XML"

Cells = dict[str, dict[str, list[Any]]]
"""Sheet -> cell -> [kind, value]; empty cells are left out."""
Inputs = Mapping[str, Mapping[str, Any]]
"""Sheet -> cell -> the value to put there."""


def main() -> None:
    """Answer the request on standard input."""
    answer(read)


def read(request: dict[str, Any]) -> dict[str, Any]:
    """Everything the host compares. What holds no formula needs no recalculation."""
    path = Path(request["path"])
    book = load(path)
    written = cells_of(book)
    reading: dict[str, Any] = {"written": written, "values": {}, "variants": [], "gold": []}
    reading["look"] = look(path, book)
    if request["original"]:
        original = Path(request["original"])
        book = load(original)
        reading |= {"original": cells_of(book), "original_look": look(original, book)}
    if has_formulas(written):
        changes = [*request["changes"]]
        if request["inputs"]:
            changes.append(other_inputs(reading.get("original", {}), request["inputs"]))
        reading |= calculate(path, written, {**request, "changes": changes})
    return reading


def load(path: Path, *, data_only: bool = False) -> Any:
    """A workbook as openpyxl reads it: formulas, or the values saved with them.

    Raises:
        Refusal: it is no workbook, or a very big one.
    """
    weigh(path, "workbook")
    with parsing("workbook"):
        import openpyxl

        book = openpyxl.load_workbook(path, data_only=data_only)
        # iterating over rows would walk through the empty ones too
        if sum(len(sheet._cells) for sheet in book.worksheets) > MAX_CELLS:
            raise Refusal("too_big", f"it has more than {MAX_CELLS} cells")
    return book


def cells_of(book: Any) -> Cells:
    """The filled cells of every sheet; a formula for many cells stands in each of them."""
    found = {}
    for sheet in book.worksheets:
        cells = {c.coordinate: described(c) for c in sheet._cells.values() if c.value is not None}
        for array in [c.value for c in sheet._cells.values() if hasattr(c.value, "ref")]:
            cells |= {at: ["formula", str(_text(array))] for at in _within(array.ref)}
            if len(cells) > MAX_CELLS:
                raise Refusal("too_big", f"its formulas fill over {MAX_CELLS} cells")
        found[sheet.title] = cells
    return found


def _within(area: str) -> list[str]:
    """The cells of an area; a very large one is refused."""
    from openpyxl.utils import get_column_letter

    left, top, right, bottom = _edges(area)
    if (right - left + 1) * (bottom - top + 1) > MAX_CELLS:
        raise Refusal("too_big", f"a formula of it fills over {MAX_CELLS} cells")
    columns = [get_column_letter(column) for column in range(left, right + 1)]
    return [f"{column}{row}" for row in range(top, bottom + 1) for column in columns]


def _edges(area: str) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of an area, which may be whole columns or rows."""
    from openpyxl.utils import range_boundaries

    left, top, right, bottom = range_boundaries(area)
    return left or 1, top or 1, right or 16384, bottom or 1048576


def _text(formula: Any) -> Any:
    return getattr(formula, "text", None) or formula


def look(path: Path, book: Any) -> dict[str, Any]:
    """All that is not the value of a cell."""
    with parsing("workbook"):
        return {"parts": parts(path, book), **styles(book)}


def has_formulas(cells: Cells) -> bool:
    """Whether there is anything to calculate."""
    return any(kind == "formula" for sheet in cells.values() for kind, _ in sheet.values())


def described(cell: Any) -> list[Any]:
    """A cell as [kind, value] with a JSON value."""
    value = cell.value
    if cell.data_type == "f":
        return ["formula", str(_text(value))]
    if cell.data_type == "e":
        return ["error", str(value)]
    if isinstance(value, bool):
        return ["bool", value]
    if isinstance(value, (int, float)):
        return ["number", value]
    if isinstance(value, (datetime, date, time)):
        return ["date", value.isoformat()]
    if isinstance(value, timedelta):
        return ["number", value.total_seconds() / 86400]
    return ["text", str(value)]


def calculate(path: Path, written: Cells, request: dict[str, Any]) -> dict[str, Any]:
    """Every formula calculated anew; saved results are not believed.

    Returns: `values` of the whole workbook, and of its formulas alone for each change of inputs,
        in the workbook (`variants`) and in the gold one (`gold`).
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "book.xlsx").write_bytes(path.read_bytes())
        changes = request["changes"]
        copies = list(with_inputs(path, changes, scratch, "variant"))
        formulas = [only_formulas(written)] * len(copies)
        if request["gold"] and changes:
            gold = Path(request["gold"])
            copies += with_inputs(gold, changes, scratch, "gold")
            formulas += [only_formulas(cells_of(load(gold)))] * len(changes)
        to = f"xlsx:{FILTER}"
        convert([scratch / "book.xlsx", *copies], to, scratch, request["timeout_s"], FILTER)
        out = scratch / "out"
        values = cells_of(load(out / "book.xlsx", data_only=True))
        results = [
            picked(cells_of(load(out / copy.name, data_only=True)), wanted)
            for copy, wanted in zip(copies, formulas, strict=True)
        ]
    half = len(changes)
    return {"values": values, "variants": results[:half], "gold": results[half:]}


def other_inputs(cells: Cells, inputs: Mapping[str, Sequence[str]]) -> Inputs:
    """Another number for each number in the named areas, neighbours changed unlike."""
    changes: dict[str, dict[str, Any]] = {}
    for sheet, areas in inputs.items():
        numbers = {at: v for at, (kind, v) in cells.get(sheet, {}).items() if kind == "number"}
        named = [at for at in numbers if any(_holds(_edges(area), at) for area in areas)]
        changes[sheet] = {at: _other(numbers[at], turn) for turn, at in enumerate(named)}
    return changes


def _holds(edges: tuple[int, int, int, int], at: str) -> bool:
    column, row, _, _ = _edges(at)
    return edges[0] <= column <= edges[2] and edges[1] <= row <= edges[3]


def _other(number: float, turn: int) -> float:
    """A whole number stays whole, and the sign stays."""
    more = 3 + 2 * (turn % 7)
    step = more if float(number).is_integer() else more / 4
    return round(number * 2 + math.copysign(step, number), 6)


def with_inputs(path: Path, changes: Sequence[Inputs], scratch: Path, stem: str) -> Iterator[Path]:
    """A copy of the workbook for each change of inputs. Sheets that are gone are passed over."""
    for number, inputs in enumerate(changes):
        book = load(path)
        with parsing("workbook"):
            for sheet in (book[name] for name in inputs if name in book.sheetnames):
                for at, value in inputs[sheet.title].items():
                    sheet[at].value = value
            copy = scratch / f"{stem}{number}.xlsx"
            book.save(copy)
        yield copy


def only_formulas(cells: Cells) -> dict[str, list[str]]:
    """Sheet -> the cells that hold formulas."""
    return {
        sheet: [at for at, (kind, _) in row.items() if kind == "formula"]
        for sheet, row in cells.items()
    }


def picked(cells: Cells, wanted: Mapping[str, Sequence[str]]) -> Cells:
    """Only the wanted cells."""
    return {
        sheet: {at: cells[sheet][at] for at in places if at in cells.get(sheet, {})}
        for sheet, places in wanted.items()
    }
