"""Judges a workbook: what its regions hold, how its formulas react, and that nothing else changed.

LibreOffice calculates every formula anew, also after the inputs that the task names were changed.
How a workbook was made is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..workspaces import Workspace
from .reading import summary, unreadable
from .types import Check, Verdict, VerifierSpec, judge_edit
from .workbook_changes import (
    changed_parts,
    changed_styles,
    changed_values,
    declared_cells,
    errors,
)
from .workbook_reading import Sheets, WorkbookReading, read_saved, read_workbook
from .workbook_region import Region, compare_region, compare_variant, expected_of

EXPECTED, GOLD = "expected.json", "gold.xlsx"
LOOKS = ("styles", "other parts")
"""Checks that depend on which program saved the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """Other inputs, and what the formulas must come to then."""

    changes: Mapping[str, Mapping[str, Any]]
    """Sheet -> cell -> the input to put there."""
    regions: Sequence[Region] = ()
    """Empty = whatever the gold workbook comes to, in every region of formulas."""


class WorkbookVerifier:
    """Passes when every region holds what it must and nothing else was changed.

    Params: `path`, the workbook. Hidden asset `expected.json`: `{"regions": [...], "variants":
    [...], "inputs": {sheet: [areas]}}` with the fields of `Region` and `Variant`; `gold.xlsx` where
    a variant has no regions or inputs are named: one more variant is then made of them.
    """

    name: ClassVar[str] = "workbook"
    version: ClassVar[str] = "3"

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the workbook in `workspace`; see `Verifier.verify`."""
        expected = json.loads(hidden[EXPECTED])
        regions = [Region(**fields) for fields in expected["regions"]]
        variants = [_variant(fields, hidden) for fields in expected.get("variants", ())]
        inputs = expected.get("inputs")
        if inputs and GOLD not in hidden:
            raise ValueError(f"expected a hidden {GOLD} where inputs are named; got none")
        path = spec.params["path"]
        reading = await read_workbook(
            workspace,
            path,
            changes=[variant.changes for variant in variants],
            gold=hidden.get(GOLD),
            inputs=inputs,
        )
        judged = f"{self.name}@{self.version}"
        if reading.ending != "read":
            check = unreadable(path, "a workbook", reading.ending, reading.detail)
            return judge_edit((check,), (), verifier=judged)
        if inputs:
            variants.append(Variant(changes={}))
        work = compare_work(reading, regions, variants)
        rest = compare_rest(reading, regions)
        if reading.original and any(each.name in LOOKS and each.outcome == "fail" for each in rest):
            reading = replace(reading, saved_looks=await read_saved(workspace, path))
            rest = compare_rest(reading, regions)
        return judge_edit(work, rest, verifier=judged)


def compare_work(
    reading: WorkbookReading, regions: Sequence[Region], variants: Sequence[Variant] = ()
) -> tuple[Check, ...]:
    """One check a region, and one for each change of inputs."""
    checks = [compare_region(reading, region) for region in regions]
    for number, variant in enumerate(variants):
        results = reading.variants[number] if reading.variants else {}
        wanted = variant.regions
        if not wanted and reading.gold:
            wanted = [_as_gold(r, reading.gold[number]) for r in regions if r.formula]
        name = f"other inputs {number + 1}"
        checks.append(compare_variant(reading, results, wanted, name))
    return tuple(checks)


def compare_rest(reading: WorkbookReading, regions: Sequence[Region]) -> tuple[Check, ...]:
    """One check each for values, styles and other parts outside of the regions, and for errors."""
    declared = declared_cells(regions)
    return (
        summary("unchanged", changed_values(reading, declared)),
        summary("styles", changed_styles(reading, declared)),
        summary("other parts", changed_parts(reading, declared)),
        summary("no errors", errors(reading)),
    )


def _variant(fields: Mapping[str, Any], hidden: Mapping[str, bytes]) -> Variant:
    regions = [Region(**each) for each in fields.get("regions", ())]
    if not regions and GOLD not in hidden:
        raise ValueError(f"expected regions in a variant, or a hidden {GOLD}; got neither")
    return Variant(changes=fields["changes"], regions=regions)


def _as_gold(region: Region, results: Sheets) -> Region:
    """The region with what the gold workbook's formulas come to."""
    found = results.get(region.sheet, {})
    names = iter([at for at, _ in region.cells()])
    values = [
        [value if (cell := found.get(next(names))) is None else expected_of(cell) for value in row]
        for row in region.values
    ]
    return replace(region, values=values)
