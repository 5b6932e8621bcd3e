"""A table at its place in a sheet."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from openpyxl.utils import get_column_letter


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A table at its place in a sheet."""

    sheet: str
    frame: pd.DataFrame
    """Column names are the header; a text that starts with `=` is a formula."""
    header_row: int = 1
    title: str = ""
    """Text in A1, for a header that is not in row 1."""

    @property
    def first_row(self) -> int:
        """The first row below the header."""
        return self.header_row + 1

    @property
    def last_row(self) -> int:
        """The last row of the table."""
        return self.header_row + len(self.frame)

    def letter(self, column: str) -> str:
        """The letter of a column."""
        return get_column_letter(list(self.frame.columns).index(column) + 1)

    @property
    def next_letter(self) -> str:
        """The letter of the first free column."""
        return get_column_letter(len(self.frame.columns) + 1)

    @property
    def quoted(self) -> str:
        """The sheet's name as formulas write it."""
        return self.sheet if self.sheet.isidentifier() else f"'{self.sheet}'"
