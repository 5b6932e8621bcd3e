"""Near misses and rewrites of a gold workbook: one cell off, a value for a formula, and the like.

It reads workbooks that we made ourselves; an agent's is never opened here.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import openpyxl
from openpyxl.cell import Cell
from openpyxl.utils import coordinate_to_tuple, get_column_letter
from openpyxl.workbook import Workbook

Change = tuple[str, bytes]
Place = tuple[str, str]
"""Sheet and cell."""
EACH_KIND = 3
"""Mutants of one kind."""


def workbook_mutants(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """One thing wrong each: in the cells that the gold solution wrote, then outside of them."""
    book, seed = _cells(content), _cells(before) if before else {}
    written = [place for place, value in book.items() if seed.get(place) != value]
    values = _expected(hidden)
    numbers = [place for place in written if _is_number(book[place])]
    texts = [place for place in written if _is_text(book[place])]
    formulas = [place for place in written if _is_formula(book[place])]
    for place in _spread(numbers):
        yield f"{_name(place)} off by 1 %", _with(content, {place: book[place] * 1.01 or 0.01})
    for place in _spread(texts):
        yield f"{_name(place)} with a letter more", _with(content, {place: f"{book[place]}s"})
    for place in _spread([place for place in formulas if place in values]):
        yield f"{_name(place)} its value, no formula", _with(content, {place: values[place]})
    for place in _spread(formulas):
        for label, formula in _wrong_formulas(book[place]):
            yield f"{_name(place)} {label}", _with(content, {place: formula})
    if written:
        yield f"{_name(written[-1])} left empty", _with(content, {written[-1]: None})
    yield from _elsewhere(content, book, seed, written)


def workbook_rewrites(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """The same workbook, with another title and author."""
    book = openpyxl.load_workbook(io.BytesIO(content))
    book.properties.title, book.properties.creator = "Report", "somebody"
    yield "saved anew by somebody else", _saved(book)


def _elsewhere(
    content: bytes, book: Mapping[Place, Any], seed: Mapping[Place, Any], written: list[Place]
) -> Iterator[Change]:
    outside = [place for place in book if place in seed and place not in written]
    for place in _spread(outside)[:1]:
        yield f"{_name(place)} changed, outside", _with(content, {place: "changed"})
    sheets = list(dict.fromkeys(sheet for sheet, _ in written))
    for sheet in sheets[:1]:
        renamed = openpyxl.load_workbook(io.BytesIO(content))
        renamed[sheet].title = f"{sheet[:28]} 2"
        yield f"sheet {sheet!r} under another name", _saved(renamed)
        wider = openpyxl.load_workbook(io.BytesIO(content))
        wider[sheet].cell(wider[sheet].max_row + 3, 1).value = 7
        yield f"a cell more in {sheet!r}", _saved(wider)


def _wrong_formulas(formula: str) -> Iterator[tuple[str, str]]:
    """A range one row short, a reference one row off, another function."""
    ends = list(re.finditer(r"(?<=:)(\$?[A-Z]{1,3}\$?)(\d+)", formula))
    if ends and int(ends[-1][2]) > 2:
        end = ends[-1]
        short = f"{end[1]}{int(end[2]) - 1}"
        yield "range one row short", formula[: end.start()] + short + formula[end.end() :]
    cells = list(re.finditer(r"(?<![:$\w!])([A-Z]{1,3})(\d+)(?![:\d(])", formula))
    if cells:
        cell = cells[-1]
        moved = f"{cell[1]}{int(cell[2]) + 1}"
        yield "one row off", formula[: cell.start()] + moved + formula[cell.end() :]
    yield "one more", f"{formula}+1"


def _expected(hidden: Mapping[str, bytes]) -> dict[Place, Any]:
    """Cell -> value, where the hidden assets say what a formula must give."""
    regions = json.loads(hidden.get("expected.json", b"{}"))
    if not isinstance(regions, dict):
        return {}
    return {
        (region["sheet"], f"{get_column_letter(column + right)}{row + down}"): value
        for region in regions.get("regions", [])
        if {"sheet", "top_left", "values"} <= region.keys()
        for row, column in [coordinate_to_tuple(region["top_left"])]
        for down, values in enumerate(region["values"])
        for right, value in enumerate(values)
        if isinstance(value, int | float | str)
    }


def _cells(content: bytes) -> dict[Place, Any]:
    book = openpyxl.load_workbook(io.BytesIO(content))
    return {
        (sheet.title, cell.coordinate): cell.value
        for sheet in book.worksheets
        for row in sheet.iter_rows()
        for cell in row
        if isinstance(cell, Cell) and cell.value is not None
    }


def _with(content: bytes, changes: Mapping[Place, Any]) -> bytes:
    book = openpyxl.load_workbook(io.BytesIO(content))
    for (sheet, cell), value in changes.items():
        book[sheet][cell].value = value
    return _saved(book)


def _saved(book: Workbook) -> bytes:
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def _spread(places: list[Place]) -> list[Place]:
    """The first, the last and one between."""
    if len(places) <= EACH_KIND:
        return places
    return [places[0], places[len(places) // 2], places[-1]]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not _is_formula(value)


def _is_formula(value: object) -> bool:
    return isinstance(value, str) and value.startswith("=")


def _name(place: Place) -> str:
    return f"{place[0]}!{place[1]}"
