"""A new sheet with one row per category: sum, average, count or largest of a number."""

from __future__ import annotations

from dataclasses import dataclass

from ..scene import Scene
from ..sheets import Grid
from .template import Draft, Template, keep, look, look_again, region, script, where


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
    ask = scene.pick(ASKS).format(book=scene.book, new=new, sheet=grid.sheet, category=category)
    content = scene.pick(CONTENTS).format(category=category, heading=heading, meaning=meaning)
    formulas = " Column B must hold formulas." if live else ""
    found = sample.frame.groupby(category)[number].agg(summary.reducer).sort_index()
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
            ]
        },
        solution=(
            look(scene, scene.book),
            script(f"{category} is in column {keys} and {number} in column {values}.", code),
            look_again(scene.book, new),
        ),
        detail={"how": how, "formulas": str(live)},
    )


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
