"""What earns a pass from the workbook verifier, and what does not."""

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from rollmill.verifiers import VerifierSpec
from rollmill.verifiers.reading import READING
from rollmill.verifiers.workbook import WorkbookVerifier, compare_rest, compare_work
from rollmill.verifiers.workbook_reading import Cell, Sheets, WorkbookReading
from rollmill.verifiers.workbook_region import Region
from rollmill.workspaces import (
    DockerProvider,
    ExecResult,
    ScriptedWorkspace,
    WorkspaceError,
    WorkspaceSpec,
    opened,
    pack_tree,
)

from .inside_run import run_inside


def book(sheets: Mapping[str, Mapping[str, Any]]) -> bytes:
    made = openpyxl.Workbook()
    made.remove(made.worksheets[0])
    for name, cells in sheets.items():
        sheet = made.create_sheet(name)
        for at, value in cells.items():
            sheet[at] = value
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


def cells(sheets: Mapping[str, Mapping[str, Any]]) -> Sheets:
    def described(value: Any) -> Cell:
        if isinstance(value, str) and value.startswith("="):
            return Cell(kind="formula", value=value)
        return Cell(kind="text" if isinstance(value, str) else "number", value=value)

    return {name: {at: described(v) for at, v in row.items()} for name, row in sheets.items()}


SEED = {"Data": {"A1": "Origin", "B1": "Price", "A2": "USA", "B2": 3, "A3": "Japan", "B3": 4}}
REGIONS = [
    Region(sheet="Sums", top_left="A1", values=[["Sum"]]),
    Region(sheet="Sums", top_left="A2", values=[[7]], formula=True),
]
DONE: dict[str, dict[str, Any]] = {**SEED, "Sums": {"A1": "Sum", "A2": "=SUM(Data!B2:B3)"}}


def failures(after: Mapping[str, Mapping[str, Any]], result: Any = 7) -> list[str]:
    """Names of the failed checks; `result` is what the formulas of `after` come to."""
    written = cells(after)
    kind = "error" if str(result).startswith("#") else "number"
    values = {
        name: {
            at: Cell(kind=kind, value=result) if c.kind == "formula" else c  # type: ignore[arg-type]
            for at, c in row.items()
        }
        for name, row in written.items()
    }
    reading = WorkbookReading(ending="read", written=written, values=values, original=cells(SEED))
    checks = (*compare_work(reading, REGIONS), *compare_rest(reading, REGIONS))
    return [c.name for c in checks if c.outcome != "pass"]


def test_the_work_done_passes() -> None:
    assert failures(DONE) == []


def test_doing_nothing_fails() -> None:
    assert failures(SEED) == ["Sums!A1:A1", "Sums!A2:A2"]


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"Sums": {"A1": "Sum", "A2": 7}}, ["Sums!A2:A2"]),
        ({"Sums": {"A1": "Sum", "A2": "=7"}}, ["Sums!A2:A2"]),
        ({"Sums": {"A1": "Sum", "A2": '=7+LEN("A1")'}}, ["Sums!A2:A2"]),
        ({"Sums": {"A1": "Sum", "A2": "=LOG10(10000000)"}}, ["Sums!A2:A2"]),
        ({"Sums": {"A1": "Sum ", "A2": "=A3"}}, ["Sums!A1:A1"]),
        ({"Sums": {"A1": "Sum", "A2": "=A3", "A3": 1}}, ["unchanged"]),
        ({"Data": {**SEED["Data"], "B3": 4.001}}, ["unchanged"]),
        ({"Data": {**SEED["Data"], "B3": "4"}}, ["unchanged"]),
        ({"Data": {"A1": "Origin"}}, ["unchanged"]),
        ({"Scratch": {"A1": 1}}, ["unchanged"]),
    ],
)
def test_one_cell_off_fails_the_check_that_watches_it(
    change: dict[str, Any], failed: list[str]
) -> None:
    assert failures(DONE | change) == failed


def test_a_wrong_result_and_an_error_both_fail() -> None:
    assert failures(DONE, result=7.01) == ["Sums!A2:A2"]
    assert failures(DONE, result="#REF!") == ["Sums!A2:A2", "no errors"]
    assert failures(DONE, result=7 * (1 + 1e-9)) == []


def test_a_deleted_sheet_fails() -> None:
    assert failures({"Sums": DONE["Sums"]}) == ["unchanged"]


@pytest.mark.parametrize(
    "live", ["=SUM(B:B)", "=$A$1*2", "=t[Price]", "='A b'!C3", "=vlookup(a2,B:C,2,0)"]
)
def test_a_formula_that_refers_to_cells_counts_as_one(live: str) -> None:
    assert failures(DONE | {"Sums": {"A1": "Sum", "A2": live}}) == []


def bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in range(4):
            archive.writestr(f"xl/worksheets/sheet{part}.xml", b" " * (20 << 20))
    return packed.getvalue()


def far_corner() -> bytes:
    return book({"S": {"A1": 1, "XFD1048576": 2}})


def crowded() -> bytes:
    made = openpyxl.Workbook(write_only=True)
    sheet = made.create_sheet("S")
    for _ in range(501):
        sheet.append([1] * 100)
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


def without(part: str) -> bytes:
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(book(DONE))) as whole,
        zipfile.ZipFile(packed, "w") as archive,
    ):
        for name in whole.namelist():
            if name != part:
                archive.writestr(name, whole.read(name))
    return packed.getvalue()


def harness(path: Path) -> Any:
    asked: dict[str, Any] = {"original": None, "changes": [], "gold": None}
    return run_inside("workbook", path.parent, path=str(path), **asked)


@pytest.mark.parametrize(
    ("make", "ending"),
    [
        (lambda: b"", "no_workbook"),
        (lambda: b"Origin,Price\nUSA,3\n", "no_workbook"),
        (lambda: book(SEED)[:-200], "no_workbook"),
        (lambda: without("xl/workbook.xml"), "no_workbook"),
        (bomb, "too_big"),
        (crowded, "too_big"),
        (far_corner, "read"),
        (lambda: book(SEED), "read"),
    ],
    ids=["empty", "csv", "torn", "no book", "bomb", "crowded", "far corner", "good"],
)
def test_the_reader_tells_a_workbook_from_what_is_none(
    make: Callable[[], bytes], ending: str, tmp_path: Path
) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(make())
    assert harness(path)["ending"] == ending


def test_the_reader_takes_no_folder_and_no_absent_file(tmp_path: Path) -> None:
    (tmp_path / "folder.xlsx").mkdir()
    assert harness(tmp_path / "folder.xlsx")["ending"] == "no_workbook"
    assert harness(tmp_path / "absent.xlsx")["ending"] == "missing"


def with_saved_value(data: bytes, formula: str, value: str) -> bytes:
    """The workbook with a result planted beside its formula."""
    packed, planted = io.BytesIO(), f"<f>{formula}</f><v>{value}</v>".encode()
    empty = re.compile(re.escape(f"<f>{formula}</f>").encode() + rb"<v ?(/>|></v>)")
    count = 0
    with zipfile.ZipFile(io.BytesIO(data)) as whole, zipfile.ZipFile(packed, "w") as archive:
        for name in whole.namelist():
            text, found = empty.subn(planted, whole.read(name))
            archive.writestr(name, text)
            count += found
    assert count == 1
    return packed.getvalue()


@pytest.mark.office
async def test_libreoffice_calculates_anew_and_saved_results_are_not_believed(
    provider: DockerProvider,
) -> None:
    hidden = {
        "expected.json": json.dumps(
            {
                "regions": [
                    {"sheet": "Sums", "top_left": "A1", "values": [["Sum"]]},
                    {"sheet": "Sums", "top_left": "A2", "values": [[7]], "formula": True},
                ]
            }
        ).encode()
    }
    spec = WorkspaceSpec(image="office", seed=pack_tree({"b.xlsx": book(SEED)}))
    judged = VerifierSpec(name="workbook", params={"path": "b.xlsx"})
    wrong = DONE | {"Sums": {"A1": "Sum", "A2": "=SUM(Data!B2:B2)"}}
    async with opened(provider, spec) as workspace:

        async def verdict(data: bytes) -> tuple[str, str]:
            await workspace.put("b.xlsx", data)
            found = await WorkbookVerifier().verify(workspace, judged, hidden)
            return found.outcome, " ".join(check.evidence for check in found.checks)

        assert await verdict(book(DONE)) == ("pass", " " * 5)
        lying = with_saved_value(book(wrong), "SUM(Data!B2:B2)", "7")
        outcome, evidence = await verdict(lying)
        assert outcome == "fail"
        assert "A2: expected 7, got number 3" in evidence
        broken = DONE | {"Sums": {"A1": "Sum", "A2": "=Data!B2/0"}}
        outcome, evidence = await verdict(book(broken))
        assert outcome == "fail"
        assert "#DIV/0!" in evidence


def ran(exit_code: int = 0, *, timed_out: bool = False) -> ExecResult:
    return ExecResult(
        exit_code=exit_code, stdout="", stderr="boom", duration_s=1.0, timed_out=timed_out
    )


async def outcome_of(result: ExecResult, reading: Mapping[str, Any]) -> str:
    workspace = ScriptedWorkspace(WorkspaceSpec(image="office"), [result])
    await workspace.put(READING, json.dumps(reading).encode())
    spec = VerifierSpec(name="workbook", params={"path": "b.xlsx"})
    return (
        await WorkbookVerifier().verify(workspace, spec, {"expected.json": b'{"regions": []}'})
    ).outcome


@pytest.mark.parametrize("ending", ["missing", "no_workbook", "too_big"])
async def test_a_file_that_is_no_workbook_fails(ending: str) -> None:
    assert await outcome_of(ran(), {"ending": ending, "detail": "why"}) == "fail"


async def test_a_file_that_takes_all_memory_fails() -> None:
    assert await outcome_of(ran(137), {}) == "fail"


async def test_libreoffice_failing_or_late_says_nothing_about_the_work() -> None:
    assert await outcome_of(ran(137, timed_out=True), {}) == "unscored"
    told = {"ending": "not_converted", "detail": "soffice ended with 1"}
    assert await outcome_of(ran(), told) == "unscored"


@pytest.mark.parametrize(
    ("result", "reading"),
    [
        (ran(1), {}),
        (ran(-1), {}),
        (ran(), {"ending": "no_office", "detail": "soffice is not installed"}),
    ],
)
async def test_a_reader_that_breaks_is_an_error_of_ours(
    result: ExecResult, reading: Mapping[str, Any]
) -> None:
    with pytest.raises(WorkspaceError, match=r"the reader|office"):
        await outcome_of(result, reading)
