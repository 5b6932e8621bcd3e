"""A new sheet with one row per category: sum, average, count or largest of a number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ..grid import Grid
from ..scene import Scene
from ..sheets import plain
from .template import (
    Draft,
    Template,
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
class Summary:
    """One way to sum a group of numbers up."""

    heading: str
    meaning: str
    reducer: str
    """The name in pandas."""
    expression: str
    """Python over `values`."""
    function: str = ""
    """The spreadsheet function; empty = it is asked for as values only."""


SUMMARIES = {
    "total": Summary(
        heading="Total {}",
        meaning="the sum of {}",
        reducer="sum",
        expression="sum(values)",
        function="SUMIF",
    ),
    "average": Summary(
        heading="Average {}",
        meaning="the mean of {}",
        reducer="mean",
        expression="sum(values) / len(values)",
        function="AVERAGEIF",
    ),
    "count": Summary(
        heading="Count",
        meaning="the number of rows",
        reducer="count",
        expression="len(values)",
        function="COUNTIF",
    ),
    "largest": Summary(
        heading="Largest {}", meaning="the largest {}", reducer="max", expression="max(values)"
    ),
}
SHEETS = ("Summary", "Totals", "Overview", "By Group")
ASKS = (
    "In {book}, add a sheet {new!r} with one row per {category} of the sheet {sheet!r}.",
    "Please summarise the sheet {sheet!r} of {book} in a new sheet {new!r}: a row per {category}.",
    "{book} needs a sheet {new!r} that sums the sheet {sheet!r} up, one row per {category}.",
)
CONTENTS = (
    "Row 1 is the header, {category} and {heading}; below it come the values of {category} in "
    "ascending order, each with {meaning}.",
    "Column A holds {category} in ascending order, column B {heading}, which is {meaning}; both "
    "have their header in row 1.",
)


def make(scene: Scene) -> Draft:
    """See `Template.make`."""
    sample = scene.sample(category=True)
    category, number = sample.category, sample.numbers[0]
    how = scene.pick(tuple(SUMMARIES))
    summary = SUMMARIES[how]
    heading, meaning = summary.heading.format(number), summary.meaning.format(number)
    live = bool(summary.function) and scene.rng.random() < 0.6
    grid, new = scene.grid(sample.frame), scene.pick(SHEETS)
    variants = _variants(scene, grid, new, summary, (category, number)) if live else []
    live = live and bool(variants)
    ask = scene.pick(ASKS).format(book=scene.book, new=new, sheet=grid.sheet, category=category)
    content = scene.pick(CONTENTS).format(category=category, heading=heading, meaning=meaning)
    formulas = " Column B must hold formulas." if live else ""
    found = _found(sample.frame, summary, category, number)
    keys, values = grid.letter(category), grid.letter(number)
    body = _formulas(summary, grid, keys, values) if live else _values(summary, grid, keys, values)
    code = f"""
    import openpyxl
    wb = openpyxl.load_workbook({scene.book!r})
    ws = wb[{grid.sheet!r}]
    out = wb.create_sheet({new!r})
    out.append([{category!r}, {heading!r}])
    {body}
    wb.save({scene.book!r})
    """
    return Draft(
        instruction=f"{ask} {content}{where(grid)}{formulas} {keep(scene)}",
        files={scene.book: scene.workbook(grid)},
        output=scene.book,
        verifier="workbook",
        expected={
            "regions": [
                region(new, "A1", [[category, heading], *([name] for name in found.index)]),
                region(new, "B2", [[value] for value in found], formula=live),
            ],
            "variants": variants,
        },
        solution=(
            look(scene, scene.book),
            script(f"{category} is in column {keys} and {number} in column {values}.", code),
            look_again(scene.book, new),
        ),
        detail={"how": how, "formulas": str(live)},
    )


def _found(frame: pd.DataFrame, summary: Summary, category: str, number: str) -> pd.Series:
    return frame.groupby(category)[number].agg(summary.reducer).sort_index()


def _variants(
    scene: Scene, grid: Grid, new: str, summary: Summary, columns: tuple[str, str]
) -> list[Any]:
    """Other numbers; for a count, which no number changes, another category of one row.

    Without any, nothing could tell formulas from constants, and none are asked for.
    """
    category, number = columns
    if summary.function != "COUNTIF":
        other, changes = shaken(scene, grid, [number])
    else:
        counts = grid.frame[category].value_counts()
        often, rest = counts.index[0], sorted(counts.index[1:].tolist())
        if counts.iloc[0] < 2 or not rest:
            return []
        row = list(grid.frame[category]).index(often)
        frame = grid.frame.copy()
        frame[category] = [
            rest[0] if at == row else value for at, value in enumerate(frame[category])
        ]
        other = replace(grid, frame=frame)
        at = f"{grid.letter(category)}{grid.first_row + row}"
        changes = {grid.sheet: {at: plain(rest[0])}}
    found = _found(other.frame, summary, category, number)
    return [variant(changes, region(new, "B2", [[value] for value in found]))]


def _formulas(summary: Summary, grid: Grid, keys: str, values: str) -> str:
    arguments = f"{grid.quoted}!{keys}:{keys},A{{row}}"
    if summary.function != "COUNTIF":
        arguments += f",{grid.quoted}!{values}:{values}"
    return f"""names = sorted({{c.value for c in ws[{keys!r}][{grid.header_row}:]}})
    for row, name in enumerate(names, 2):
        out.append([name, f"={summary.function}({arguments})"])"""


def _values(summary: Summary, grid: Grid, keys: str, values: str) -> str:
    return f"""groups = {{}}
    for name, number in list(zip(ws[{keys!r}], ws[{values!r}]))[{grid.header_row}:]:
        groups.setdefault(name.value, []).append(number.value)
    for name in sorted(groups):
        values = groups[name]
        out.append([name, {summary.expression}])"""


TEMPLATE = Template(name="totals", make=make, needs={"category": 1, "number": 1})
