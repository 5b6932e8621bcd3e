"""Names of cells and areas of a sheet: `B2`, `A1:B4 D4`, `C:C`, `2:5`."""

from __future__ import annotations

import re

MOST_COLUMNS, MOST_ROWS = 16384, 1048576
Area = tuple[int, int, int, int]
"""Left, top, right, bottom, counted from 1."""


def place(cell: str) -> tuple[int, int]:
    """Column and row, both from 1, of a name such as `B2`."""
    found = re.fullmatch(r"([A-Z]{1,3})([1-9]\d*)", cell)
    if found is None:
        raise ValueError(f"expected the name of a cell such as B2, got {cell!r}")
    return column_number(found[1]), int(found[2])


def column_number(letters: str) -> int:
    """The number of a column from 1."""
    column = 0
    for letter in letters:
        column = column * 26 + ord(letter) - ord("A") + 1
    return column


def column_letter(number: int) -> str:
    """The letters of a column counted from 1."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def areas(text: str) -> list[Area]:
    """The areas that a text such as `A1:B2 D4` names; what names none is left out."""
    found = []
    for area in text.replace("$", "").split():
        first, _, last = area.partition(":")
        ends = [re.fullmatch(r"([A-Z]{0,3})(\d{0,7})", each) for each in (first, last or first)]
        if all(end and (end[1] or end[2]) for end in ends):
            left, right = (end[1] if end else "" for end in ends)
            top, bottom = (end[2] if end else "" for end in ends)
            found.append(
                (
                    column_number(left) or 1,
                    int(top or 1),
                    column_number(right) or MOST_COLUMNS,
                    int(bottom or MOST_ROWS),
                )
            )
    return found


def covers(text: str, cell: str) -> bool:
    """Whether one of the areas holds a cell."""
    column, row = place(cell)
    return any(a <= column <= c and b <= row <= d for a, b, c, d in areas(text))


def all_within(text: str, free: set[str]) -> bool:
    """Whether every cell of the areas is one of `free`."""
    named = areas(text)
    size = sum((c - a + 1) * (d - b + 1) for a, b, c, d in named)
    if not named or len(named) != len(text.split()) or size > len(free) * len(named):
        return False
    return all(
        f"{column_letter(column)}{row}" in free
        for a, b, c, d in named
        for row in range(b, d + 1)
        for column in range(a, c + 1)
    )


def nth_cell(area: str, number: int) -> str:
    """The cell of an area counted from 0, row by row; empty = there is none."""
    named = areas(area)
    if len(named) != 1:
        return ""
    left, top, right, bottom = named[0]
    down, across = divmod(number, right - left + 1)
    return f"{column_letter(left + across)}{top + down}" if top + down <= bottom else ""
