"""A new column of formulas: ratio, difference, share, rank or change from row to row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ...task import Move
from ..grid import Grid
from ..scene import Sample, Scene
from .template import (
    Draft,
    Template,
    column_region,
    keep,
    look,
    look_again,
    region,
    script,
    shaken,
    variant,
    where,
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One way to compute a column."""

    heading: str
    meaning: str
    formula: str
    """`{a}` and `{b}` are letters, `{first}` and `{last}` rows, `ROW` and `BEFORE` the running row
    and the one above it."""
    compute: Callable[[pd.Series, pd.Series], pd.Series]
    skips_first: bool = False
    two: bool = False
    """It needs two number columns."""


KINDS = {
    "ratio": Kind(
        heading="{x} per {y}",
        meaning="{x} divided by {y}",
        formula="={a}ROW/{b}ROW",
        compute=lambda x, y: x / y,
        two=True,
    ),
    "difference": Kind(
        heading="{x} minus {y}",
        meaning="{x} minus {y}",
        formula="={a}ROW-{b}ROW",
        compute=lambda x, y: x - y,
        two=True,
    ),
    "share": Kind(
        heading="Share of {x}",
        meaning="{x} divided by the sum of {x} over all rows (as a fraction, not in percent)",
        formula="={a}ROW/SUM({a}${first}:{a}${last})",
        compute=lambda x, y: x / x.sum(),
    ),
    "rank": Kind(
        heading="Rank",
        meaning="the rank of {x} among all rows: 1 for the largest, ties share the better rank",
        formula="=RANK({a}ROW,{a}${first}:{a}${last})",
        compute=lambda x, y: x.rank(ascending=False, method="min"),
    ),
    "change": Kind(
        heading="Change",
        meaning="{x} minus {x} of the row above; the first row stays empty",
        formula="={a}ROW-{a}BEFORE",
        compute=lambda x, y: x.diff(),
        skips_first=True,
    ),
}
ASKS = (
    "Add a column {heading!r} to the sheet {sheet!r} of {book}, in column {letter}, right after "
    "the last one. Each row holds a formula for {meaning}.",
    "In {book}, sheet {sheet!r}, fill column {letter} with formulas: {meaning}. Its header is "
    "{heading!r}.",
    "The sheet {sheet!r} of {book} lacks a column. Put {heading!r} into column {letter} and below "
    "it, in each row, a formula that gives {meaning}.",
)


def make(scene: Scene) -> Draft:
    """See `Template.make`."""
    two = sum(column.kind == "number" for column in scene.table.columns) > 1
    name = scene.pick([name for name, kind in KINDS.items() if two or not kind.two])
    kind = KINDS[name]
    sample = _without_zeros(scene.sample(numbers=2 if kind.two else 1))
    x, y = sample.numbers[0], sample.numbers[-1]
    grid = scene.grid(sample.frame)
    letter, heading = grid.next_letter, kind.heading.format(x=x, y=y)
    ask = scene.pick(ASKS).format(
        book=scene.book,
        sheet=grid.sheet,
        letter=letter,
        heading=heading,
        meaning=kind.meaning.format(x=x, y=y),
    )
    values: list[Any] = list(kind.compute(sample.frame[x], sample.frame[y]))
    other, changes = shaken(scene, grid, [x, y] if kind.two else [x])
    then = list(kind.compute(other.frame[x], other.frame[y]))
    header = region(grid.sheet, f"{letter}{grid.header_row}", [[heading]])
    return Draft(
        instruction=f"{ask}{where(grid)} {keep(scene)}",
        files={scene.book: scene.workbook(grid)},
        output=scene.book,
        verifier="workbook",
        expected={
            "regions": [header, column_region(grid, letter, values, formula=True)],
            "variants": [variant(changes, column_region(grid, letter, then))],
        },
        solution=(
            look(scene, scene.book),
            _write(scene, grid, kind, x, y, heading),
            look_again(scene.book, grid.sheet, first=grid.header_row, last=grid.first_row + 2),
        ),
        detail={"kind": name},
    )


def _write(scene: Scene, grid: Grid, kind: Kind, x: str, y: str, heading: str) -> Move:
    a, b, new = grid.letter(x), grid.letter(y), grid.next_letter
    formula = kind.formula.format(a=a, b=b, first=grid.first_row, last=grid.last_row)
    formula = formula.replace("ROW", "{row}").replace("BEFORE", "{row - 1}")
    columns = f"{x} is column {a} and {y} is column {b}" if kind.two else f"{x} is column {a}"
    return script(
        f"{columns}; the rows go from {grid.first_row} to {grid.last_row}.",
        f"""
        import openpyxl
        wb = openpyxl.load_workbook({scene.book!r})
        ws = wb[{grid.sheet!r}]
        ws['{new}{grid.header_row}'] = {heading!r}
        for row in range({grid.first_row + kind.skips_first}, {grid.last_row + 1}):
            ws[f'{new}{{row}}'] = f'{formula}'
        wb.save({scene.book!r})
        """,
    )


def _without_zeros(sample: Sample) -> Sample:
    """Nothing is divided by zero."""
    whole = (sample.frame[list(sample.numbers)] != 0).all(axis=1)
    frame = sample.frame[whole].reset_index(drop=True)
    return Sample(
        frame=frame,
        label=sample.label,
        category=sample.category,
        date=sample.date,
        numbers=sample.numbers,
    )


TEMPLATE = Template(name="column", make=make, needs={"number": 1})
