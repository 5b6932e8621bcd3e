"""A messy sheet copied clean: names trimmed, numbers made numbers, repeated rows dropped."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..scene import Scene
from .template import Draft, Template, keep, look, look_again, script, table_regions, where

ASKS = (
    "The sheet {sheet!r} of {book} is messy. Make a clean copy in a new sheet {new!r}, with the "
    "same header in row 1 and the rows in the same order.",
    "Clean the sheet {sheet!r} of {book} up into a new sheet {new!r}: same header (in row 1), same "
    "order of rows.",
    "Write a cleaned version of {sheet!r} ({book}) to a new sheet {new!r}. The header goes to "
    "row 1, the order of the rows stays.",
)
RULES = (
    "Remove spaces around texts, turn {numbers} into real numbers (they may have thousands "
    "separators), then drop every row that repeats an earlier one.",
    "Texts lose their outer spaces. {numbers} become numbers instead of texts such as '1,200'. Of "
    "rows that are then the same, only the first stays.",
)


def make(scene: Scene) -> Draft:
    """See `Template.make`."""
    numbers = sum(column.kind == "number" for column in scene.table.columns)
    labelled = any(column.kind == "label" for column in scene.table.columns)
    sample = scene.sample(
        label=labelled,
        category=not labelled,
        numbers=min(2, numbers),
        texts_only=True,
        rows=(12, 50),
    )
    clean = sample.frame.drop_duplicates().reset_index(drop=True)
    grid = scene.grid(_messy(scene, clean, sample.numbers))
    new = scene.pick(("Clean", "Cleaned", "Tidy"))
    listed = [name for name in clean.columns if name in sample.numbers]
    names = {"book": scene.book, "sheet": grid.sheet, "new": new, "numbers": " and ".join(listed)}
    ask, rule = scene.pick(ASKS).format(**names), scene.pick(RULES).format(**names)
    code = f"""
    import openpyxl
    wb = openpyxl.load_workbook({scene.book!r})
    ws = wb[{grid.sheet!r}]
    head = [c.value for c in ws[{grid.header_row}]]
    out = wb.create_sheet({new!r})
    out.append(head)
    seen = set()
    for row in ws.iter_rows(min_row={grid.first_row}, values_only=True):
        row = [str(value).strip() for value in row]
        for name in {listed!r}:
            i = head.index(name)
            row[i] = float(row[i].replace(',', ''))
        if tuple(row) not in seen:
            seen.add(tuple(row))
            out.append(row)
    wb.save({scene.book!r})
    """
    return Draft(
        instruction=f"{ask}{where(grid)} {rule} {keep(scene)}",
        files={scene.book: scene.workbook(grid)},
        output=scene.book,
        verifier="workbook",
        expected={"regions": table_regions(new, clean)},
        solution=(
            look(scene, scene.book),
            script(f"The header is in row {grid.header_row}; I clean row by row.", code),
            look_again(scene.book, new),
        ),
        detail={"numbers": ", ".join(listed)},
    )


def _messy(scene: Scene, clean: pd.DataFrame, numbers: tuple[str, ...]) -> pd.DataFrame:
    rows: list[list[Any]] = clean.values.tolist()
    for _ in range(scene.rng.randint(2, 5)):
        source = scene.rng.randrange(len(rows))
        rows.insert(scene.rng.randint(source + 1, len(rows)), list(rows[source]))
    for row in rows:
        for at, name in enumerate(clean.columns):
            row[at] = _soil(scene, row[at], number=name in numbers)
    return pd.DataFrame(rows, columns=clean.columns, dtype=object)


def _soil(scene: Scene, value: Any, *, number: bool) -> Any:
    if number:
        value = round(value, 3)
        value = int(value) if float(value).is_integer() else value
        return value if scene.rng.random() < 0.4 else f"{value:,}"
    return scene.pick((value, value, f" {value}", f"{value}  ", f"  {value} "))


TEMPLATE = Template(name="clean", make=make, needs={"category": 1, "number": 1})
