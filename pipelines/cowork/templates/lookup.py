"""A column of broken lookups that must be repaired and stay formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..grid import Grid
from ..scene import Scene
from .template import (
    Draft,
    Template,
    column_region,
    keep,
    look,
    look_again,
    script,
    shaken,
    variant,
    where,
)

ASKS = (
    "The column {column} of the sheet {sheet!r} in {book} should look {number} up in the sheet "
    "{source!r} by {label}, but its formulas are broken.",
    "Someone broke the lookups in {book}: the column {column} of {sheet!r} no longer shows the "
    "{number} that the sheet {source!r} has for each {label}.",
    "In {book}, {number} (column {column} of the sheet {sheet!r}) is looked up by {label} in the "
    "sheet {source!r}. The formulas give wrong values or errors.",
)
ORDERS = (
    "Repair the formula in every row.",
    "Fix all of them so that each row is right; they must stay formulas.",
    "Put a working lookup formula into every row.",
)


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """A lookup formula in parts, so that one part can be wrong."""

    sheet: str
    key: str
    """Letter of the column that is searched."""
    value: str
    """Letter of the column that is shown."""
    indexed: bool
    """INDEX and MATCH instead of VLOOKUP."""
    last_row: int | None = None
    """None = whole columns."""
    exact: bool = True
    lost: bool = False
    """The range is `#REF!`."""

    def formula(self, cell: str) -> str:
        """The formula that looks a cell up."""
        if self.indexed:
            found = f"MATCH({cell},{self._range(self.key, self.key)},{0 if self.exact else 1})"
            return f"=INDEX({self._range(self.value, self.value)},{found})"
        offset = ord(self.value) - ord(self.key) + 1
        exact = "FALSE" if self.exact else "TRUE"
        return f"=VLOOKUP({cell},{self._range(self.key, self.value)},{offset},{exact})"

    def _range(self, first: str, last: str) -> str:
        if self.lost:
            return "#REF!"
        if self.last_row is None:
            return f"{self.sheet}!{first}:{last}"
        return f"{self.sheet}!${first}$2:${last}${self.last_row}"


def make(scene: Scene) -> Draft:
    """See `Template.make`."""
    sample = scene.sample(label=True, numbers=2, rows=(15, 60))
    label, number = sample.label, sample.numbers[0]
    shuffled = sample.frame.sample(frac=1, random_state=scene.rng.getrandbits(31))
    source = Grid(sheet=scene.pick(("Lookup", "Reference", "Details")), frame=shuffled)
    asked = sample.frame[[label]].sample(
        n=min(len(sample.frame), scene.rng.randint(8, 40)), random_state=scene.rng.getrandbits(31)
    )
    found = asked.merge(sample.frame, on=label, how="left")[number]
    key, value = source.letter(label), source.letter(number)
    indexed = value < key or scene.rng.random() < 0.4
    right = Lookup(sheet=source.quoted, key=key, value=value, indexed=indexed)
    fault = scene.pick(tuple(FAULTS))
    wrong = FAULTS[fault](right, source, source.letter(sample.numbers[1]))
    main = scene.grid(asked.assign(**{number: ""}), sheet=scene.pick(("Main", "Orders", "Report")))
    rows = range(main.first_row, main.last_row + 1)
    broken = asked.assign(**{number: [wrong.formula(f"A{row}") for row in rows]})
    main = replace(main, frame=broken)
    other, changes = shaken(scene, source, [number])
    then = asked.merge(other.frame, on=label, how="left")[number]
    letter = main.letter(number)
    names = {"book": scene.book, "sheet": main.sheet, "source": source.sheet, "label": label}
    ask = scene.pick(ASKS).format(**names, column=letter, number=number)
    formula = right.formula("A{row}")
    there = f"In {source.sheet}, {label} is column {key} and {number} is column {value}"
    code = f"""
    import openpyxl
    wb = openpyxl.load_workbook({scene.book!r})
    ws = wb[{main.sheet!r}]
    for row in range({main.first_row}, {main.last_row + 1}):
        ws[f'{letter}{{row}}'] = f"{formula}"
    wb.save({scene.book!r})
    """
    return Draft(
        instruction=" ".join([ask + where(main), scene.pick(ORDERS), keep(scene)]),
        files={scene.book: scene.workbook(main, source)},
        output=scene.book,
        verifier="workbook",
        expected={
            "regions": [column_region(main, letter, list(found), formula=True)],
            "variants": [variant(changes, column_region(main, letter, list(then)))],
        },
        solution=(
            look(scene, scene.book),
            script(f"{there}, so I write the lookup again.", code),
            look_again(scene.book, main.sheet, last=main.first_row + 2),
        ),
        detail={"fault": fault, "function": "INDEX" if indexed else "VLOOKUP"},
    )


def _wrong_column(right: Lookup, source: Grid, other: str) -> Lookup:
    return replace(right, value=other, indexed=right.indexed or other < right.key)


def _short_range(right: Lookup, source: Grid, other: str) -> Lookup:
    return replace(right, last_row=max(3, source.last_row // 3))


FAULTS: dict[str, Callable[[Lookup, Grid, str], Lookup]] = {
    "wrong column": _wrong_column,
    "short range": _short_range,
    "approximate match": lambda right, source, other: replace(right, exact=False),
    "lost reference": lambda right, source, other: replace(right, lost=True),
}
"""Fault -> the right lookup made wrong, given its source and another column's letter."""
TEMPLATE = Template(name="lookup", make=make, needs={"label": 1, "number": 2})
