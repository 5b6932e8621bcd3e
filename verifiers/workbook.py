"""Judges a workbook cell by cell after LibreOffice recalculated it.

The task declares regions and what must stand in them; everything outside must be as it was in the
seed. Styles, charts and notes are not looked at.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..workspaces import Workspace
from .types import Check, Outcome, Verdict, VerifierSpec, judge
from .workbook_reading import Cell, WorkbookReading, read_workbook

EXPECTED = "expected.json"
RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""How far off a number may be, of its value and at least."""
REFERENCE = re.compile(r"(?<!\w)\$?[A-Z]{1,3}(\$?\d+|:\$?[A-Z]{1,3})(?![\w(])|\w\[", re.IGNORECASE)
"""A cell `A1`, a column `A:A` or a column of a table `Sales[Price]`; not `LOG10(`."""
SHOWN = 3
"""Wrong cells that one check names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A rectangle of a sheet and what must stand in it."""

    sheet: str
    top_left: str
    values: Sequence[Sequence[Any]]
    """Rows of numbers, texts, booleans, `{"date": ISO}`, and None for an empty cell."""
    formula: bool = False
    """True = each filled cell must be a formula that refers to other cells."""

    def cells(self) -> Iterator[tuple[str, Any]]:
        """Each cell's name and what is expected there."""
        column, row = _place(self.top_left)
        for down, values in enumerate(self.values):
            for right, value in enumerate(values):
                yield f"{column_letter(column + right)}{row + down}", value

    @property
    def name(self) -> str:
        """As `Totals!A1:B4`."""
        cells = [cell for cell, _ in self.cells()]
        return f"{self.sheet}!{cells[0]}:{cells[-1]}"


class WorkbookVerifier:
    """Passes when every region holds what it must and nothing else was changed.

    Params: `path`, the workbook. Hidden asset `expected.json`: `{"regions": [...]}`, each with the
    fields of `Region`.
    """

    name: ClassVar[str] = "workbook"
    version: ClassVar[str] = "1"

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the workbook in `workspace`; see `Verifier.verify`."""
        regions = [Region(**fields) for fields in json.loads(hidden[EXPECTED])["regions"]]
        path = spec.params["path"]
        reading = await read_workbook(workspace, path)
        if reading.ending == "read":
            checks = compare_workbook(reading, regions)
        else:
            checks = (_unreadable(path, reading),)
        return judge(checks, verifier=f"{self.name}@{self.version}")


def compare_workbook(reading: WorkbookReading, regions: Sequence[Region]) -> tuple[Check, ...]:
    """One check a region, one for the rest of the workbook, one for errors anywhere."""
    return (
        *(_compare_region(reading, region) for region in regions),
        _check("unchanged", _changes(reading, regions)),
        _check("no errors", _errors(reading)),
    )


def _compare_region(reading: WorkbookReading, region: Region) -> Check:
    if region.sheet not in reading.written:
        evidence = f"there is no sheet {region.sheet!r}, only {', '.join(reading.written)}"
        return Check(name=region.name, outcome="fail", evidence=evidence[:300])
    wrong = []
    for at, expected in region.cells():
        got = reading.value(region.sheet, at)
        if not same(got, expected):
            wrong.append(f"{at}: expected {expected!r}, got {got or 'nothing'}")
        elif region.formula and expected is not None:
            written = reading.written[region.sheet][at]
            if not _is_live(written):
                wrong.append(f"{at}: expected a formula that refers to cells, got {written}")
    return _check(region.name, wrong)


def same(got: Cell | None, expected: Any) -> bool:
    """Whether a cell holds an expected value. Types count: the text `12` is not the number 12."""
    if got is None or (got.kind == "text" and not got.value):
        return expected is None or expected == ""
    if isinstance(expected, bool):
        return got.kind == "bool" and got.value is expected
    if isinstance(expected, (int, float)):
        return got.kind == "number" and _near(got.value, expected)
    if isinstance(expected, str):
        return got.kind == "text" and _composed(got.value) == _composed(expected)
    if isinstance(expected, Mapping):
        return got.kind == "date" and _day(got.value) == _day(expected["date"])
    return False


def _changes(reading: WorkbookReading, regions: Sequence[Region]) -> list[str]:
    declared = {(region.sheet, at) for region in regions for at, _ in region.cells()}
    missing = [sheet for sheet in reading.original if sheet not in reading.written]
    changes = [f"sheet {sheet!r} is gone" for sheet in missing]
    for sheet, cells in reading.written.items():
        before = reading.original.get(sheet, {})
        for at in dict.fromkeys([*before, *cells]):
            if (sheet, at) not in declared and not _unchanged(before.get(at), cells.get(at)):
                was, now = before.get(at) or "nothing", cells.get(at) or "nothing"
                changes.append(f"{sheet}!{at}: expected {was} as before, got {now}")
    return changes


def _unchanged(before: Cell | None, after: Cell | None) -> bool:
    if before is None or after is None or before.kind != after.kind:
        return before is after
    if before.kind == "number":
        return _near(after.value, before.value)
    if before.kind == "formula":
        return _plain_formula(before.value) == _plain_formula(after.value)
    return bool(before.value == after.value)


def _errors(reading: WorkbookReading) -> list[str]:
    found = []
    for sheet, cells in reading.written.items():
        for at in cells:
            cell = reading.value(sheet, at)
            if cell is not None and cell.kind == "error":
                found.append(f"{sheet}!{at}: {cell.value}")
    return found


def _check(name: str, wrong: Sequence[str]) -> Check:
    if not wrong:
        return Check(name=name, outcome="pass")
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    evidence = "; ".join(text[:200] for text in wrong[:SHOWN]) + more
    return Check(name=name, outcome="fail", evidence=evidence)


def _unreadable(path: str, reading: WorkbookReading) -> Check:
    """A file that is no workbook fails; one that LibreOffice cannot take tells nothing."""
    outcome: Outcome = "unscored" if reading.ending == "not_recalculated" else "fail"
    evidence = f"expected a workbook at {path}: {reading.ending}, {reading.detail}"
    return Check(name="readable", outcome=outcome, evidence=evidence)


def _is_live(cell: Cell) -> bool:
    """A formula that refers to a cell or a column; `=5` and `="x"` do not."""
    if cell.kind != "formula":
        return False
    bare = re.sub(r'"[^"]*"', "", cell.value)
    return REFERENCE.search(bare) is not None


def _plain_formula(formula: str) -> str:
    """A formula without what another program may write differently."""
    return re.sub(r"\s|(?<=TRUE)\(\)|(?<=FALSE)\(\)", "", formula.upper())


def _near(got: float, expected: float) -> bool:
    try:
        return math.isclose(got, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    except OverflowError:  # an integer too long for a float
        return False


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _day(iso: str) -> str:
    return iso.removesuffix("T00:00:00")


def _place(cell: str) -> tuple[int, int]:
    """Column and row, both from 1, of a name such as `B2`."""
    found = re.fullmatch(r"([A-Z]{1,3})([1-9]\d*)", cell)
    if found is None:
        raise ValueError(f"expected the name of a cell such as B2, got {cell!r}")
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - ord("A") + 1
    return column, int(found[2])


def column_letter(number: int) -> str:
    """The letters of a column counted from 1."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
