"""A declared region of a workbook and what must stand in it: values, formulas, looks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .reading import summary
from .sameness import near
from .types import Check
from .workbook_places import column_letter, place
from .workbook_reading import Cell, Sheets, WorkbookReading
from .workbook_sight import unseen

REFERENCE = re.compile(
    r"(?<![\w.])\$?[A-Z]{1,3}(\$?\d+|:\$?[A-Z]{1,3})(?![\w(])|\w\[|\b(INDIRECT|OFFSET)\(",
    re.IGNORECASE,
)
"""A cell `A1`, a column `A:A`, a column of a table `Sales[Price]`, a computed one; not `LOG10(`."""
NAME = re.compile(r"(?<![\w.!])[^\W\d][\w.]*(?![\w.(!])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A rectangle of a sheet and what must stand in it."""

    sheet: str
    top_left: str
    values: Sequence[Sequence[Any]]
    """Rows of numbers, texts, booleans, `{"date": ISO}`, and None for an empty cell."""
    formula: bool = False
    """True = each filled cell must be a formula that refers to other cells."""
    absolute: float | None = None
    """How far off a number may be; None = 1e-6 of its value."""
    formulas: Sequence[Sequence[str | None]] = ()
    """Rows of formulas that must stand there as they are, but for spaces, case and dollars."""
    style: Mapping[str, Any] = field(default_factory=dict)
    """Aspect such as `bold` or `number format` -> what every filled cell must have."""

    def cells(self) -> Iterator[tuple[str, Any]]:
        """Each cell's name and what is expected there."""
        column, row = place(self.top_left)
        for down, values in enumerate(self.values):
            for right, value in enumerate(values):
                yield f"{column_letter(column + right)}{row + down}", value

    @property
    def name(self) -> str:
        """As `Totals!A1:B4`."""
        cells = [cell for cell, _ in self.cells()]
        return f"{self.sheet}!{cells[0]}:{cells[-1]}"


def compare_region(reading: WorkbookReading, region: Region) -> Check:
    """Whether a region holds what it must, visibly."""
    if region.sheet not in reading.written:
        evidence = f"there is no sheet {region.sheet!r}, only {', '.join(reading.written)}"
        return Check(name=region.name, outcome="fail", evidence=evidence[:300])
    wanted = [text for row in region.formulas for text in row]
    wrong = []
    for number, (at, expected) in enumerate(region.cells()):
        got = reading.value(region.sheet, at)
        if not same(got, expected, region.absolute):
            wrong.append(f"{at}: expected {expected!r}, got {got or 'nothing'}")
        elif expected is not None:
            written = reading.written[region.sheet].get(at)
            asked = wanted[number] if wanted else None
            wrong += _wrong_formula(at, written, region, asked, reading.look.names)
            wrong += _wrong_style(reading, region, at)
    return summary(region.name, wrong)


def compare_variant(
    reading: WorkbookReading, results: Sheets, regions: Sequence[Region], name: str
) -> Check:
    """Whether the formulas of regions come to other values after their inputs were changed."""
    wrong = []
    for region in regions:
        for at, expected in region.cells():
            written = reading.written.get(region.sheet, {}).get(at)
            live = written is not None and written.kind == "formula"
            got = results.get(region.sheet, {}).get(at) if live else written
            if not same(got, expected, region.absolute):
                found = got or "nothing"
                wrong.append(f"{region.sheet}!{at}: expected {expected!r} then, got {found}")
    return summary(name, wrong)


def same(got: Cell | None, expected: Any, absolute: float | None = None) -> bool:
    """Whether a cell holds an expected value. Types count: the text `12` is not the number 12."""
    if got is None or (got.kind == "text" and not got.value):
        return expected is None or expected == ""
    if isinstance(expected, bool):
        return got.kind == "bool" and got.value is expected
    if isinstance(expected, (int, float)):
        return got.kind == "number" and near(got.value, expected, absolute)
    if isinstance(expected, str):
        return got.kind == "text" and _composed(got.value) == _composed(expected)
    if isinstance(expected, Mapping):
        return got.kind == "date" and _day(got.value) == _day(expected["date"])
    return False


def expected_of(cell: Cell | None) -> Any:
    """A cell of a gold workbook as a region states it."""
    if cell is None or cell.kind != "date":
        return None if cell is None else cell.value
    return {"date": cell.value}


def is_live(cell: Cell | None, names: frozenset[str] = frozenset()) -> bool:
    """A formula that refers to a cell, a column or a defined name; `=5` and `="x"` do not.

    Whether its result follows from what it refers to is for other inputs to show.
    """
    if cell is None or cell.kind != "formula":
        return False
    bare = re.sub(r'"[^"]*"', "", cell.value)
    if REFERENCE.search(bare) is not None:
        return True
    return not names.isdisjoint(found[0].casefold() for found in NAME.finditer(bare))


def plain_formula(formula: str) -> str:
    """A formula without what another program may write differently."""
    return re.sub(r"\s|(?<=TRUE)\(\)|(?<=FALSE)\(\)", "", formula.upper())


def _wrong_formula(
    at: str, written: Cell | None, region: Region, wanted: str | None, names: frozenset[str]
) -> Iterator[str]:
    if region.formula and not is_live(written, names):
        yield f"{at}: expected a formula that refers to cells, got {written or 'nothing'}"
    elif wanted is not None:
        got = written.value if written is not None and written.kind == "formula" else ""
        if plain_formula(got).replace("$", "") != plain_formula(wanted).replace("$", ""):
            yield f"{at}: expected the formula {wanted!r}, got {written or 'nothing'}"


def _wrong_style(reading: WorkbookReading, region: Region, at: str) -> Iterator[str]:
    style = reading.look.style(region.sheet, at)
    for aspect, wanted in region.style.items():
        got = style.get(aspect, False if isinstance(wanted, bool) else "")
        if got != wanted:
            yield f"{at}: expected {aspect} {wanted!r}, got {got!r}"
    look, before = reading.look, reading.original_look
    if why := unseen(look, before, region.sheet, at, reading.value(region.sheet, at)):
        yield f"{at}: expected a value that can be seen, got {why}"


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _day(iso: str) -> str:
    return iso.removesuffix("T00:00:00")
