"""A new sheet with one row per month or year: sum or average of a number."""

from __future__ import annotations

from ..scene import Scene
from .template import Draft, Template, keep, look, look_again, script, table_regions, where

MAX_MONTHS = 30
ASKS = (
    "Add a sheet {new!r} to {book} that gives the {how} {number} per {period}, from the sheet "
    "{sheet!r}.",
    "In {book}, roll the sheet {sheet!r} up by {period}: a new sheet {new!r} with the {how} "
    "{number}.",
    "We need the {how} {number} of each {period}. The data is in the sheet {sheet!r} of {book}; "
    "put the result into a new sheet {new!r}.",
)
CONTENTS = (
    "Its header, in row 1, is {period_name} and {number}. One row per {period} follows, the "
    "earliest first, with the {period} {written} in column A.",
    "Column A is {period_name} ({written}), column B is {number}; the header is in row 1 and the "
    "earliest {period} comes first.",
)


def make(scene: Scene) -> Draft:
    """See `Template.make`."""
    sample = scene.sample(date=True, rows=(24, 120))
    frame, date, number = sample.frame, sample.date, sample.numbers[0]
    months = frame[date].dt.strftime("%Y-%m")
    yearly = frame[date].dt.month.nunique() == 1 or months.nunique() > MAX_MONTHS
    how = scene.pick(("total", "average"))
    grid, new = scene.grid(frame), "By Year" if yearly else scene.pick(("Monthly", "By Month"))
    period = "year" if yearly else "month"
    words = {
        "period": period,
        "period_name": period.title(),
        "written": "as a number such as 2012" if yearly else "as a text such as 2012-03",
    }
    names = {"book": scene.book, "sheet": grid.sheet, "new": new, "how": how, "number": number}
    instruction = " ".join(
        [
            scene.pick(ASKS).format(**words, **names),
            scene.pick(CONTENTS).format(**words, **names) + where(grid),
            keep(scene),
        ]
    )
    keys = (frame[date].dt.year if yearly else months).rename(period.title())
    reducer = "sum" if how == "total" else "mean"
    found = frame.groupby(keys)[number].agg(reducer).sort_index().reset_index()
    dates, values = grid.letter(date), grid.letter(number)
    key = "day.value.year" if yearly else "day.value.strftime('%Y-%m')"
    reduced = "sum(values)" if how == "total" else "sum(values) / len(values)"
    code = f"""
    import openpyxl
    wb = openpyxl.load_workbook({scene.book!r})
    ws = wb[{grid.sheet!r}]
    groups = {{}}
    for day, number in list(zip(ws[{dates!r}], ws[{values!r}]))[{grid.header_row}:]:
        groups.setdefault({key}, []).append(number.value)
    out = wb.create_sheet({new!r})
    out.append([{period.title()!r}, {number!r}])
    for name in sorted(groups):
        values = groups[name]
        out.append([name, {reduced}])
    wb.save({scene.book!r})
    """
    return Draft(
        instruction=instruction,
        files={scene.book: scene.workbook(grid)},
        output=scene.book,
        verifier="workbook",
        expected={"regions": table_regions(new, found)},
        solution=(
            look(scene, scene.book),
            script(f"The dates are in column {dates} and {number} is in column {values}.", code),
            look_again(scene.book, new),
        ),
        detail={"how": how, "period": period},
    )


TEMPLATE = Template(name="periods", make=make, needs={"date": 1, "number": 1})
