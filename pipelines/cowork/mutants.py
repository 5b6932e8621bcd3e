"""Near misses of a finished workbook, each of which its verifier must refuse.

They are made of the gold workbook and of what the task expects, without running anything. A mutant
that the expectation could not tell from the gold (a number of zero one per cent off) is not made.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import openpyxl
from openpyxl.styles import Font, PatternFill
from openpyxl.utils.cell import column_index_from_string, coordinate_from_string, get_column_letter

REACH = re.compile(r"(:\$?[A-Z]{1,3}\$?)(\d+)")
"""The last row of a range."""


def workbook_mutants(gold: bytes, expected: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Names of near misses and their files.

    Args:
        gold: the workbook as the gold solution leaves it.
        expected: the hidden `expected.json` of a task of the verifier `workbook`.
    """
    for name, spoil in MUTATIONS.items():
        book = openpyxl.load_workbook(io.BytesIO(gold))
        if spoil(book, list(_cells(expected))):
            buffer = io.BytesIO()
            book.save(buffer)
            yield name, buffer.getvalue()


def _cells(expected: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, bool]]:
    """Sheet, cell, expected value and whether a formula is asked for, of every declared cell."""
    for region in expected["regions"]:
        letters, row = coordinate_from_string(region["top_left"])
        column = column_index_from_string(letters)
        for down, values in enumerate(region["values"]):
            for right, value in enumerate(values):
                at = f"{get_column_letter(column + right)}{row + down}"
                yield region["sheet"], at, value, region.get("formula", False)


def _one_percent_off(book: Any, cells: list[Any]) -> bool:
    for sheet, at, value, _ in reversed(cells):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value:
            cell = book[sheet][at]
            live = isinstance(cell.value, str)
            cell.value = f"=({cell.value[1:]})*1.01" if live else value * 1.01
            return True
    return False


def _value_for_formula(book: Any, cells: list[Any]) -> bool:
    done = False
    for sheet, at, value, formula in cells:
        if formula and value is not None:
            book[sheet][at].value, done = value, True
    return done


def _constant_in_disguise(book: Any, cells: list[Any]) -> bool:
    done = False
    for sheet, at, value, formula in cells:
        if formula and isinstance(value, (int, float)):
            first = book[sheet].cell(1, 1).coordinate
            book[sheet][at].value, done = f"={value!r}+0*LEN({first})", True
    return done


def _wrong_sheet_name(book: Any, cells: list[Any]) -> bool:
    sheet = book[cells[0][0]]
    sheet.title = f"{sheet.title[:28]} 2"
    return True


def _style_lost(book: Any, cells: list[Any]) -> bool:
    declared = {(sheet, at) for sheet, at, _, _ in cells}
    for sheet in book.worksheets:
        for cell in list(sheet._cells.values()):
            styled = cell.font.b or cell.fill.patternType or cell.number_format != "General"
            if styled and (sheet.title, cell.coordinate) not in declared:
                if sheet.title in {name for name, _, _, _ in cells} and _is_new(book, sheet):
                    continue
                cell.font, cell.fill, cell.number_format = Font(), PatternFill(), "General"
                return True
    return False


def _range_short(book: Any, cells: list[Any]) -> bool:
    """Ranges of whole columns have no last row and are left as they are."""
    done = False
    for sheet, at, value, formula in cells:
        cell = book[sheet][at]
        if formula and value is not None and isinstance(cell.value, str):
            short = REACH.sub(lambda found: f"{found[1]}{int(found[2]) - 1}", cell.value)
            done, cell.value = done or short != cell.value, short
    return done


def _work_moved_down(book: Any, cells: list[Any]) -> bool:
    """Every value one row too low, as after an off-by-one."""
    column = [(sheet, at) for sheet, at, value, _ in cells if value is not None]
    values = [book[sheet][at].value for sheet, at in column]
    if len(set(map(str, values))) < 2:
        return False
    for (sheet, at), value in zip(column, [values[-1], *values[:-1]], strict=True):
        book[sheet][at].value = value
    return True


def _drawing_lost(book: Any, cells: list[Any]) -> bool:
    for sheet in book.worksheets:
        if sheet._charts:
            sheet._charts.clear()
            return True
    return False


def _changed_outside(book: Any, cells: list[Any]) -> bool:
    declared = {(sheet, at) for sheet, at, _, _ in cells}
    for sheet in book.worksheets:
        for cell in list(sheet._cells.values()):
            if cell.value is not None and (sheet.title, cell.coordinate) not in declared:
                cell.value = "changed"
                return True
    return False


def _cell_more(book: Any, cells: list[Any]) -> bool:
    sheet = book[cells[0][0]]
    sheet.cell(sheet.max_row + 3, 1).value = 7
    return True


def _letter_more(book: Any, cells: list[Any]) -> bool:
    for sheet, at, value, _ in reversed(cells):
        cell = book[sheet][at]
        if isinstance(value, str) and value and cell.value == value:
            cell.value = f"{value}s"
            return True
    return False


def _is_new(book: Any, sheet: Any) -> bool:
    return bool(book.worksheets.index(sheet) == len(book.worksheets) - 1)


MUTATIONS: dict[str, Callable[[Any, list[Any]], bool]] = {
    "one cell off by 1 %": _one_percent_off,
    "formulas replaced by values": _value_for_formula,
    "constants in disguise": _constant_in_disguise,
    "wrong sheet name": _wrong_sheet_name,
    "style lost outside": _style_lost,
    "range one row short": _range_short,
    "values in the next row": _work_moved_down,
    "chart lost": _drawing_lost,
    "a cell changed outside": _changed_outside,
    "a cell more": _cell_more,
    "a text with a letter more": _letter_more,
}
"""Name -> a change of the book in place; False = it does not apply."""
