"""Everything outside of the declared regions must stay, whichever program saved the file."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from rollmill.verifiers import Verdict, VerifierSpec
from rollmill.verifiers.inside import workbook as inside
from rollmill.verifiers.workbook import WorkbookVerifier, compare_rest
from rollmill.verifiers.workbook_reading import Cell, Look, Sheets, WorkbookReading
from rollmill.verifiers.workbook_region import Region
from rollmill.workspaces import DockerProvider, Workspace, WorkspaceSpec, opened, pack_tree

from .furnished import DAMAGES, SPOILED, UNUSUAL, done, furnished, saved

REGIONS: list[dict[str, Any]] = [
    {"sheet": "Sums", "top_left": "A1", "values": [["Sum"]]},
    {"sheet": "Sums", "top_left": "A2", "values": [[18.5]], "formula": True},
]
CHANGES = {"Data": {"B2": 30, "B5": 60.5}}
VARIANT = {
    "changes": CHANGES,
    "regions": [{"sheet": "Sums", "top_left": "A2", "values": [[99.5]]}],
}
SPEC = VerifierSpec(name="workbook", params={"path": "b.xlsx"})


async def judged(
    workspace: Workspace, data: bytes, variants: list[Any], gold: bytes | None = None
) -> Verdict:
    expected = {"regions": REGIONS, "variants": variants}
    hidden: Mapping[str, bytes] = {"expected.json": json.dumps(expected).encode()}
    if gold is not None:
        hidden = {**hidden, "gold.xlsx": gold}
    await workspace.put("b.xlsx", data)
    return await WorkbookVerifier().verify(workspace, SPEC, hidden)


def failed(verdict: Verdict) -> str:
    return " ".join(check.name for check in verdict.checks if check.outcome != "pass")


def look_of(data: bytes, folder: Path) -> tuple[Sheets, Look]:
    path = folder / "b.xlsx"
    path.write_bytes(data)
    book = inside.load(path)
    cells = {
        sheet: {at: Cell(kind=kind, value=value) for at, (kind, value) in row.items()}
        for sheet, row in inside.cells_of(book).items()
    }
    return cells, Look(**inside.look(path, book))


@pytest.mark.parametrize("name", [None, *DAMAGES])
def test_each_damage_is_seen_by_the_check_that_watches_it(name: str | None, tmp_path: Path) -> None:
    seed = saved(furnished())
    book = done(openpyxl.load_workbook(io.BytesIO(seed)))
    damage, watched = DAMAGES[name] if name else (lambda book: None, "")
    damage(book)
    original, before = look_of(seed, tmp_path)
    written, after = look_of(saved(book), tmp_path)
    reading = WorkbookReading(
        ending="read", written=written, look=after, original=original, original_look=before
    )
    regions = [Region(**fields) for fields in REGIONS]
    checks = compare_rest(reading, regions)
    assert " ".join(c.name for c in checks if c.outcome != "pass") == watched, checks


@pytest.mark.office
async def test_work_that_only_looks_done_fails_and_unusual_work_passes(
    provider: DockerProvider,
) -> None:
    seed = saved(furnished())
    spec = WorkspaceSpec(image="office", seed=pack_tree({"b.xlsx": seed}))
    async with opened(provider, spec) as workspace:
        for name, (spoil, watched) in SPOILED.items():
            book = done(openpyxl.load_workbook(io.BytesIO(seed)))
            spoil(book)
            verdict = await judged(workspace, saved(book), [VARIANT])
            assert failed(verdict) == watched, (name, verdict.checks)
            assert verdict.score < 1
        for name, change in UNUSUAL.items():
            book = done(openpyxl.load_workbook(io.BytesIO(seed)))
            change(book)
            verdict = await judged(workspace, saved(book), [VARIANT])
            assert verdict.outcome == "pass", (name, verdict.checks)


@pytest.mark.office
async def test_work_done_with_any_program_passes_and_doing_nothing_earns_nothing(
    provider: DockerProvider,
) -> None:
    seed = saved(furnished())
    spec = WorkspaceSpec(image="office", seed=pack_tree({"b.xlsx": seed}))
    gold = saved(done(openpyxl.load_workbook(io.BytesIO(seed))))
    async with opened(provider, spec) as workspace:
        by_gold = [{"changes": CHANGES}]
        for variants in ([VARIANT], by_gold):
            verdict = await judged(workspace, gold, variants, gold)
            assert verdict.outcome == "pass", verdict.checks
        by_hand = done(openpyxl.load_workbook(io.BytesIO(seed)))
        by_hand["Sums"]["A2"] = "=Data!B2+Data!B3+Data!B4+Data!B5"
        by_hand["Sums"].column_dimensions["A"].width = 40
        verdict = await judged(workspace, saved(by_hand), by_gold, gold)
        assert verdict.outcome == "pass", verdict.checks
        constant = done(openpyxl.load_workbook(io.BytesIO(seed)))
        constant["Sums"]["A2"] = "=18.5+0*Data!B2"
        assert failed(await judged(workspace, saved(constant), by_gold, gold)) == "other inputs 1"
        nothing = await judged(workspace, seed, [VARIANT])
        assert (nothing.outcome, nothing.score) == ("fail", 0.0)
        by_office = await converted(workspace, gold)
        verdict = await judged(workspace, by_office, [VARIANT])
        assert verdict.outcome == "pass", verdict.checks
        again = openpyxl.load_workbook(io.BytesIO(by_office))
        verdict = await judged(workspace, saved(again), [VARIANT])
        assert verdict.outcome == "pass", verdict.checks
        for name in ("axis cut", "header lost", "validation switched off", "row lower"):
            book = openpyxl.load_workbook(io.BytesIO(by_office))
            DAMAGES[name][0](book)
            verdict = await judged(workspace, saved(book), [VARIANT])
            assert failed(verdict) == "other parts", (name, verdict.checks)


@pytest.mark.office
async def test_inputs_that_the_task_names_make_a_variant_of_their_own(
    provider: DockerProvider,
) -> None:
    seed = saved(furnished())
    spec = WorkspaceSpec(image="office", seed=pack_tree({"b.xlsx": seed}))
    gold = saved(done(openpyxl.load_workbook(io.BytesIO(seed))))
    expected = {"regions": REGIONS, "inputs": {"Data": ["B:B"]}}
    hidden = {"expected.json": json.dumps(expected).encode(), "gold.xlsx": gold}
    async with opened(provider, spec) as workspace:
        for formula, watched in (
            ("=SUM(Prices)", ""),
            ("=18.5+0*Data!B2", "other inputs 1"),
            ("=IF(Data!B2=3,18.5,0)", "other inputs 1"),
        ):
            book = done(openpyxl.load_workbook(io.BytesIO(seed)))
            book["Sums"]["A2"] = formula
            await workspace.put("b.xlsx", saved(book))
            verdict = await WorkbookVerifier().verify(workspace, SPEC, hidden)
            assert failed(verdict) == watched, (formula, verdict.checks)
        del hidden["gold.xlsx"]
        with pytest.raises(ValueError, match="where inputs are named"):
            await WorkbookVerifier().verify(workspace, SPEC, hidden)


async def converted(workspace: Workspace, data: bytes) -> bytes:
    await workspace.put("/tmp/lo/b.xlsx", data)
    made = await workspace.exec(["bash", "-c", CONVERT], cwd="/tmp/lo", timeout_s=120)
    assert made.exit_code == 0, made.stderr
    return await workspace.get("/tmp/lo/out/b.xlsx", max_bytes=1 << 20)


CONVERT = (
    "soffice -env:UserInstallation=file:///tmp/lo/profile --headless "
    '--convert-to xlsx:"Calc MS Excel 2007 XML" --outdir out b.xlsx'
)
