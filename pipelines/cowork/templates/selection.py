"""A new sheet with the rows of one category, sorted by a number."""

from __future__ import annotations

from ..scene import Scene
from .template import Draft, Template, keep, look, look_again, script, table_regions, where

ASKS = (
    "Copy the rows of the sheet {sheet!r} in {book} whose {category} is {value} to a new sheet "
    "{new!r}, sorted by {number}, {order} first.",
    "In {book}, make a sheet {new!r} with only those rows of {sheet!r} where {category} is "
    "{value}. Sort them by {number}, {order} first.",
    "I need a list of all rows with {category} {value} from {sheet!r} ({book}), in a new sheet "
    "{new!r}, ordered by {number}, {order} first.",
)
RULE = (
    "All columns come along, with the same header in row 1; rows with equal {number} keep their "
    "order."
)


def make(scene: Scene) -> Draft:
    """See `Template.make`."""
    sample = scene.sample(category=True)
    frame, category, number = sample.frame, sample.category, sample.numbers[0]
    grid, new = scene.grid(frame), scene.pick(("Selection", "Filtered", "Extract"))
    value = scene.pick(sorted(frame[category].unique().tolist()))
    down = scene.rng.random() < 0.5
    ask = scene.pick(ASKS).format(
        book=scene.book,
        sheet=grid.sheet,
        new=new,
        category=category,
        value=value,
        number=number,
        order="largest" if down else "smallest",
    )
    found = frame[frame[category] == value].sort_values(number, ascending=not down, kind="stable")
    code = f"""
    import openpyxl
    wb = openpyxl.load_workbook({scene.book!r})
    ws = wb[{grid.sheet!r}]
    head = [c.value for c in ws[{grid.header_row}]]
    rows = list(ws.iter_rows(min_row={grid.first_row}, values_only=True))
    rows = [row for row in rows if row[head.index({category!r})] == {value!r}]
    rows.sort(key=lambda row: row[head.index({number!r})], reverse={down})
    out = wb.create_sheet({new!r})
    out.append(head)
    for row in rows:
        out.append(row)
    wb.save({scene.book!r})
    """
    return Draft(
        instruction=f"{ask}{where(grid)} {RULE.format(number=number)} {keep(scene)}",
        files={scene.book: scene.workbook(grid)},
        output=scene.book,
        verifier="workbook",
        expected={"regions": table_regions(new, found)},
        solution=(
            look(scene, scene.book),
            script(f"I keep the rows where {category} is {value} and sort them.", code),
            look_again(scene.book, new),
        ),
        detail={"category": category, "descending": str(down)},
    )


TEMPLATE = Template(name="selection", make=make, needs={"category": 1, "number": 1})
