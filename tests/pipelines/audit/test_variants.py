"""Near misses differ from the gold artifact in one thing; rewrites in none that counts."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import openpyxl
import pytest

from rollmill.pipelines.audit import alternatives_of, mutants_of
from rollmill.pipelines.task import Task
from rollmill.workspaces import Artifact, WorkspaceSpec, pack_tree

from ..rollout.handmade import BROKEN, bug_task

FIXED = BROKEN.replace(b"a > b", b"a < b")
EXPECTED = {"regions": [{"sheet": "S", "top_left": "B2", "values": [[6], [4.5]], "formula": True}]}


def book(*, solved: bool) -> bytes:
    made = openpyxl.Workbook()
    sheet: Any = made.active
    sheet.title = "S"
    sheet.append(["Name", "Sum"] if solved else ["Name"])
    sheet.append(["a", "=SUM(A4:A9)"] if solved else ["a"])
    sheet.append(["b", "=A4*2"] if solved else ["b"])
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


def cells(content: bytes) -> dict[str, Any]:
    sheets = openpyxl.load_workbook(io.BytesIO(content)).worksheets
    return {
        f"{sheet.title}!{cell.coordinate}": cell.value
        for sheet in sheets
        for row in sheet.iter_rows()
        for cell in row
        if cell.value is not None
    }


def labels(task: Task, path: str, gold: bytes) -> dict[str, bytes]:
    found = mutants_of(task, Artifact(files={path: gold}))
    return {variant.label: variant.artifact.files[path] or b"" for variant in found}


def test_faults_are_made_in_the_repaired_function_alone_and_never_the_first_fault() -> None:
    made = labels(bug_task(), "calc.py", FIXED)
    assert any("a <= b" in label for label in made)
    assert not any("line 6" in label for label in made)
    assert BROKEN not in made.values()
    assert len({*made.values()}) == len(made)
    for code in made.values():
        old, new = FIXED.split(b"\n"), code.split(b"\n")
        assert sum(a != b for a, b in zip(old, new, strict=True)) == 1


def test_a_part_of_the_near_misses_is_the_same_every_time() -> None:
    gold = Artifact(files={"calc.py": FIXED})
    part = mutants_of(bug_task(), gold, 2)
    assert part == mutants_of(bug_task(), gold, 2)
    everything = mutants_of(bug_task(), gold)
    assert len(part) == 2
    assert [each for each in everything if each in part] == part


def test_code_written_differently_means_the_same() -> None:
    found = alternatives_of(bug_task(), Artifact(files={"calc.py": FIXED, "gone.py": None}))
    assert len(found) == 3
    for variant in found:
        space: dict[str, Any] = {}
        exec((variant.artifact.files["calc.py"] or b"").replace(b"\r", b""), space)
        assert space["low"](1, 2) == 1
        assert variant.artifact.files["gone.py"] is None


def test_one_value_of_an_answer_is_wrong_each_time() -> None:
    answer = {"name": "Ink", "total": 0, "ok": True}
    made = labels(bug_task(), "answer.json", json.dumps(answer).encode())
    parsed = [json.loads(content) for content in made.values()]
    assert answer not in parsed
    for each in parsed:
        pairs = {*map(str, each.items())} ^ {*map(str, answer.items())}
        assert 1 <= len(pairs) <= 2
    kinds = ("off by 1 %", "as text", "left out", "a key more", "negated", "a letter more")
    assert all(any(kind in label for label in made) for kind in kinds)


def test_a_row_or_a_cell_of_a_table_is_wrong() -> None:
    made = labels(bug_task(), "out.csv", b"a,b\n1,x\n2,y\n")
    assert b"a,b\n1,x\n" in made.values()
    assert b"a,b\n1,x\n2.02,y\n" in made.values()


def test_one_thing_is_wrong_in_each_workbook() -> None:
    hidden = {"expected.json": json.dumps(EXPECTED).encode()}
    seed = WorkspaceSpec(image="office", seed=pack_tree({"s.xlsx": book(solved=False)}))
    task = replace(bug_task(), hidden=hidden, workspace=seed)
    made = labels(task, "s.xlsx", book(solved=True))
    gold: dict[str, Any] = cells(book(solved=True))
    kinds: dict[str, dict[str, Any]] = {
        "its value, no formula": {"S!B2": 6},
        "range one row short": {"S!B2": "=SUM(A4:A8)"},
        "S!B3 one row off": {"S!B3": "=A5*2"},
        "B1 with a letter more": {"S!B1": "Sums"},
        "left empty": {"S!B3": None},
        "a cell more": {"S!A6": 7},
    }
    for kind, change in kinds.items():
        content = next(data for label, data in made.items() if kind in label)
        expected = {k: v for k, v in (gold | change).items() if v is not None}
        assert cells(content) == expected, kind
    renamed = next(data for label, data in made.items() if "another name" in label)
    assert {key.partition("!")[0] for key in cells(renamed)} == {"S 2"}


@pytest.mark.parametrize("path", ["notes.txt", "picture.png"])
def test_a_kind_that_nobody_knows_has_none(path: str) -> None:
    gold = Artifact(files={path: b"x"})
    assert (mutants_of(bug_task(), gold), alternatives_of(bug_task(), gold)) == ([], [])
