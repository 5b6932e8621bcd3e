"""What a workbook holds besides its rows, so that an edit can do harm: a chart, rules, notes.

Everything here survives openpyxl and LibreOffice, so a careful edit with either keeps it.
"""

from __future__ import annotations

from collections.abc import Set
from numbers import Number
from typing import Any

from openpyxl import Workbook
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.formatting.rule import CellIsRule
from openpyxl.styles import PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.workbook.defined_name import DefinedName
from openpyxl.worksheet.datavalidation import DataValidation

from .grid import Grid

FURNITURE = ("chart", "rule", "validation", "comment", "name", "hidden notes")
CHART_ROWS = 12


def furnish(book: Workbook, grid: Grid, furniture: Set[str]) -> None:
    """Put furniture around a table; one without a number column gets a comment at most."""
    sheet: Any = book[grid.sheet]
    if "comment" in furniture:
        sheet.cell(grid.header_row, 1).comment = Comment("As in the source.", "Ann")
    columns = [at for at, name in enumerate(grid.frame.columns, 1) if _is_number(grid, name)]
    if not columns:
        return
    letter = get_column_letter(columns[-1])
    area = f"{letter}{grid.first_row}:{letter}{grid.last_row}"
    if "rule" in furniture:
        middle = float(grid.frame.iloc[:, columns[-1] - 1].median())
        fill = PatternFill("solid", bgColor="FFC7CE")
        rule = CellIsRule("greaterThan", [str(middle)], fill=fill)  # type: ignore[no-untyped-call]
        sheet.conditional_formatting.add(area, rule)
    if "validation" in furniture:
        check = DataValidation("decimal", operator="greaterThan", formula1="-1000000000")
        check.add(area)
        sheet.add_data_validation(check)
    if "name" in furniture:
        fixed = f"${letter}${grid.first_row}:${letter}${grid.last_row}"
        book.defined_names["source_values"] = DefinedName(
            "source_values", attr_text=f"{grid.quoted}!{fixed}"
        )
    if "chart" in furniture:
        last = min(grid.last_row, grid.header_row + CHART_ROWS)
        chart = BarChart()
        chart.title = str(grid.frame.columns[columns[-1] - 1])
        chart.add_data(Reference(sheet, columns[-1], grid.first_row, columns[-1], last))
        chart.set_categories(Reference(sheet, 1, grid.first_row, 1, last))
        sheet.add_chart(chart, f"{get_column_letter(len(grid.frame.columns) + 4)}2")


def _is_number(grid: Grid, name: str) -> bool:
    return all(
        isinstance(value, Number) and not isinstance(value, bool) for value in grid.frame[name]
    )
