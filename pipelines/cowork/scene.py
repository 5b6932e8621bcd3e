"""The real rows a task is about: columns and rows drawn from a table, and how they are named."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..family import Rejected
from .furniture import FURNITURE
from .grid import Grid
from .sheets import Style, workbook_bytes
from .tables import Column, Kind, Table

DECIMALS = 3
MAX_CATEGORIES = 7
SHEETS = ("Data", "Sheet1", "Records", "Raw Data", "Entries", "List")
BOOKS = ("{}.xlsx", "{}_data.xlsx", "{}_report.xlsx", "{}_2024.xlsx")
FILLS = ("", "", "DDEBF7", "E2EFDA", "FFF2CC")
NOTES = ("Prepared for the monthly review.", "Draft, please keep the layout.", "Checked by Ann.")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Rows of a table, and which of the columns a template may build on."""

    frame: pd.DataFrame
    label: str
    """A text column without repeats; empty = not asked for."""
    category: str
    date: str
    numbers: tuple[str, ...]


class Scene:
    """What a template draws from. Every choice comes from one seed."""

    def __init__(self, table: Table, rows: pd.DataFrame, seed: str) -> None:
        self.table = table
        self.rng = random.Random(seed)
        self._rows = rows
        self._snake = self.rng.random() < 0.25
        self.book = self.pick(BOOKS).format(table.name)

    def pick(self, choices: Sequence[Any]) -> Any:
        """One of several."""
        return self.rng.choice(choices)

    def sample(
        self,
        *,
        label: bool = False,
        category: bool = False,
        date: bool = False,
        numbers: int = 1,
        texts_only: bool = False,
        rows: tuple[int, int] = (20, 120),
    ) -> Sample:
        """Draw columns and rows.

        Args:
            label, category, date: which kinds are needed; a column of another kind may come along.
            numbers: how many number columns are needed.
            texts_only: a category must be a text; nothing else but numbers comes along.
            rows: the fewest and the most.
        """
        asked: dict[Kind, bool] = {"label": label, "category": category, "date": date}
        chosen: dict[Kind, list[Column]] = {
            kind: self._choose(kind, 1, texts_only=texts_only)
            for kind, wanted in asked.items()
            if wanted
        }
        chosen["number"] = self._choose("number", numbers)
        used = [column for columns in chosen.values() for column in columns]
        if not texts_only:
            rest = [column for column in self.table.columns if column not in used]
            used += self.rng.sample(rest, self.rng.randint(0, min(2, len(rest))))
        kept = [column for column in self.table.columns if column in used]
        frame = self._draw(kept, chosen, rows)
        named = {kind: tuple(self.named(c) for c in columns) for kind, columns in chosen.items()}
        return Sample(
            frame=frame.rename(columns={column.name: self.named(column) for column in kept}),
            label=named.get("label", ("",))[0],
            category=named.get("category", ("",))[0],
            date=named.get("date", ("",))[0],
            numbers=named["number"],
        )

    def named(self, column: Column) -> str:
        """The header of a column, in the style of this scene."""
        return column.name.lower().replace(" ", "_") if self._snake else column.name

    def grid(self, frame: pd.DataFrame, *, sheet: str = "", offset: bool = True) -> Grid:
        """A frame at a place in a sheet; with `offset`, the header may stand below a title."""
        sheet = sheet or self.pick((*SHEETS, self.table.name.title()))
        if offset and self.rng.random() < 0.2:
            title = f"{self.table.name.title()} overview"
            return Grid(sheet=sheet, frame=frame, header_row=3, title=title)
        return Grid(sheet=sheet, frame=frame)

    def workbook(self, *grids: Grid) -> bytes:
        """A workbook of these grids, sometimes with a sheet of notes."""
        style = Style(
            fill=self.pick(FILLS),
            bold=self.rng.random() < 0.8,
            date_format=self.pick(("yyyy-mm-dd", "dd/mm/yyyy", "d mmm yyyy")),
            frozen=self.rng.random() < 0.3,
            furniture=frozenset(self.rng.sample(FURNITURE, self.rng.randint(0, 4))),
        )
        with_notes = "hidden notes" in style.furniture or self.rng.random() < 0.2
        notes = self.rng.sample(NOTES, 2) if with_notes else ()
        return workbook_bytes(grids, notes=notes, style=style)

    def _choose(self, kind: Kind, count: int, *, texts_only: bool = False) -> list[Column]:
        fitting = [column for column in self.table.columns if column.kind == kind]
        if texts_only and kind == "category":
            fitting = [c for c in fitting if isinstance(self._rows[c.name].iloc[0], str)]
        if len(fitting) < count:
            raise Rejected("table_lacks_columns", f"{self.table.name} has too few {kind} columns")
        return self.rng.sample(fitting, count)

    def _draw(
        self, kept: list[Column], chosen: dict[Kind, list[Column]], rows: tuple[int, int]
    ) -> pd.DataFrame:
        drawn = self._rows[[column.name for column in kept]]
        for column in chosen.get("category", ()):
            values = sorted(drawn[column.name].unique().tolist())
            most = self.rng.randint(3, MAX_CATEGORIES)
            if len(values) > most:
                drawn = drawn[drawn[column.name].isin(self.rng.sample(values, most))]
        for column in chosen.get("label", ()):
            keys = drawn[column.name].str.casefold()
            drawn = drawn[~keys.duplicated() & ~keys.str.contains(r"[*?~<>=\"\\]")]
        count = min(self.rng.randint(*rows), len(drawn))
        if count < rows[0]:
            raise Rejected("too_few_rows", f"{len(drawn)} rows of {self.table.name} fit")
        drawn = drawn.iloc[sorted(self.rng.sample(range(len(drawn)), count))]
        for column in chosen.get("date", ()):
            drawn = drawn.sort_values(column.name, kind="stable")
        numbers = [column.name for column in kept if column.kind == "number"]
        return drawn.reset_index(drop=True).assign(**{n: _short(drawn[n]) for n in numbers})


def _short(values: pd.Series) -> list[Any]:
    """Numbers with few decimals; whole numbers as integers."""
    rounded = [round(float(value), DECIMALS) for value in values]
    whole = all(value.is_integer() for value in rounded)
    return [int(value) for value in rounded] if whole else rounded
