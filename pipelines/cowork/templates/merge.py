"""A column brought from a .csv file into a workbook by key."""

from __future__ import annotations

from ..scene import Scene
from ..sheets import csv_bytes
from .template import (
    Draft,
    Template,
    column_region,
    keep,
    look,
    look_again,
    region,
    script,
    where,
)

ASKS = (
    "{source} has {number} by {label}. Bring it into {book}: add a column {number!r} to the sheet "
    "{sheet!r}, in column {letter}.",
    "Add {number} from {source} to the sheet {sheet!r} of {book}, matched by {label}. The new "
    "column is {letter}, its header {number!r}.",
    "Fill column {letter} of the sheet {sheet!r} in {book} with {number} (which is also its "
    "header), taken from {source} by {label}.",
)
GAPS = (
    "Rows that the file does not know stay empty.",
    "Where {source} has no such {label}, leave the cell empty.",
)


def make(scene: Scene) -> Draft:
    """See `Template.make`."""
    sample = scene.sample(label=True, rows=(15, 60))
    label, number = sample.label, sample.numbers[0]
    others = [name for name in sample.frame.columns if name != number]
    seed = scene.rng.getrandbits(31)
    known = sample.frame[[label, number]].sample(frac=0.8, random_state=seed)
    left = sample.frame[others].sample(frac=0.8, random_state=seed + 1).sort_index()
    grid = scene.grid(left)
    source = scene.pick(("{}.csv", "new_{}.csv", "{}_update.csv")).format(
        number.lower().replace(" ", "_")
    )
    letter, keys = grid.next_letter, grid.letter(label)
    names = {"source": source, "book": scene.book, "sheet": grid.sheet, "letter": letter}
    names |= {"label": label, "number": number}
    ask = scene.pick(ASKS).format(**names)
    gap = scene.pick(GAPS).format(**names)
    merged = left.merge(known, on=label, how="left")[number]
    code = f"""
    import csv, openpyxl
    found = {{row[{label!r}]: row[{number!r}] for row in csv.DictReader(open({source!r}))}}
    wb = openpyxl.load_workbook({scene.book!r})
    ws = wb[{grid.sheet!r}]
    ws['{letter}{grid.header_row}'] = {number!r}
    for row in range({grid.first_row}, {grid.last_row + 1}):
        key = ws[f'{keys}{{row}}'].value
        if key in found:
            ws[f'{letter}{{row}}'] = float(found[key])
    wb.save({scene.book!r})
    """
    return Draft(
        instruction=f"{ask}{where(grid)} {gap} {keep(scene)}",
        files={scene.book: scene.workbook(grid), source: csv_bytes(known)},
        output=scene.book,
        verifier="workbook",
        expected={
            "regions": [
                region(grid.sheet, f"{letter}{grid.header_row}", [[number]]),
                column_region(grid, letter, list(merged)),
            ]
        },
        solution=(
            look(scene, scene.book),
            script(
                f"{label} is column {keys}; the rows go from {grid.first_row} to {grid.last_row}.",
                code,
            ),
            look_again(scene.book, grid.sheet, first=grid.header_row, last=grid.first_row + 2),
        ),
        detail={"column": number},
    )


TEMPLATE = Template(name="merge", make=make, needs={"label": 1, "number": 1})
