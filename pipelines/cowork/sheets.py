"""Lays tables out as .xlsx and .csv files. The same grids give the same bytes."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
from openpyxl import Workbook
from openpyxl.styles import Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from .furniture import furnish
from .grid import Grid

_STAMP = re.compile(rb"(<dcterms:(?:created|modified)[^>]*>)[^<]*")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How a workbook looks."""

    fill: str = ""
    """Colour of the header as RRGGBB; empty = none."""
    bold: bool = True
    date_format: str = "yyyy-mm-dd"
    frozen: bool = False
    furniture: frozenset[str] = frozenset()
    """Which of `FURNITURE` the first sheet has: what an edit must leave as it is."""


def plain(value: Any) -> Any:
    """A cell's value as a Python object: no NumPy, no pandas, None for a missing one."""
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def plain_rows(frame: pd.DataFrame) -> list[list[Any]]:
    """The rows of a frame without its header."""
    columns = [[plain(value) for value in frame[name]] for name in frame.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def workbook_bytes(grids: Sequence[Grid], *, notes: Sequence[str] = (), style: Style) -> bytes:
    """An .xlsx file with one sheet a grid; `notes` go to a last sheet, one line a row."""
    book = Workbook()
    book.remove(book.worksheets[0])
    for grid in grids:
        _fill(book.create_sheet(grid.sheet), grid, style)
    furnish(book, grids[0], style.furniture)
    if notes:
        sheet = book.create_sheet("Notes")
        if "hidden notes" in style.furniture:
            sheet.sheet_state = "hidden"
        for note in notes:
            sheet.append([note])
    buffer = io.BytesIO()
    book.save(buffer)
    return _timeless(buffer.getvalue())


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A .csv file in UTF-8; dates as YYYY-MM-DD."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(frame.columns)
    for row in plain_rows(frame):
        writer.writerow([v.date().isoformat() if isinstance(v, datetime) else v for v in row])
    return buffer.getvalue().encode()


def _fill(sheet: Worksheet, grid: Grid, style: Style) -> None:
    if grid.title:
        sheet["A1"] = grid.title
        sheet["A1"].font = Font(bold=True, size=14)
    for at, name in enumerate(grid.frame.columns, 1):
        cell = sheet.cell(grid.header_row, at, name)
        cell.font = Font(bold=style.bold)
        if style.fill:
            cell.fill = PatternFill("solid", start_color=style.fill)
        sheet.column_dimensions[get_column_letter(at)].width = max(10, len(name) + 4)
    for down, row in enumerate(plain_rows(grid.frame), grid.first_row):
        for at, value in enumerate(row, 1):
            cell = sheet.cell(down, at, value)
            if isinstance(value, datetime):
                cell.number_format = style.date_format
    if style.frozen:
        sheet.freeze_panes = f"A{grid.first_row}"


def _timeless(packed: bytes) -> bytes:
    """The same archive without the hour at which it was made."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(packed)) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            data = source.read(name)
            if name == "docProps/core.xml":
                data = _STAMP.sub(rb"\g<1>2000-01-01T00:00:00Z", data)
            target.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()
