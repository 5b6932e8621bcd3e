"""Near misses differ from the gold artifact in one thing; rewrites in none that counts."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from datetime import date
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
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


def test_a_row_a_name_or_a_cell_of_a_table_is_wrong() -> None:
    made = labels(bug_task(), "out.csv", b"a,b\n1,x\n2,y\n")
    for wrong in (b"a,b\n1,x\n", b"a,b\n1,x\n2.02,y\n", b"a,b2\n1,x\n2,y\n", b"a,b\n1,x\n2,yx\n"):
        assert wrong in made.values()


def test_the_same_of_a_typed_table_whose_types_stay() -> None:
    rows = [{"city": "Oslo", "sales": 2.0, "day": date(2024, 5, 3)}] * 2
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    made = labels(bug_task(), "out.parquet", buffer.getvalue())
    tables = {label: pq.read_table(io.BytesIO(data)) for label, data in made.items()}
    assert tables["out.parquet: the last row left out"].to_pylist() == rows[:1]
    assert {str(t.schema.field(2).type) for t in tables.values()} == {"date32[day]"}
    last = {str(table.to_pylist()[-1]) for label, table in tables.items() if "column" in label}
    assert len(last) == 4
    (same,) = alternatives_of(bug_task(), Artifact(files={"out.parquet": buffer.getvalue()}))
    content = same.artifact.files["out.parquet"] or b""
    assert pq.read_table(io.BytesIO(content)).to_pylist() == rows


def package(**parts: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, text in parts.items():
            made.writestr(name.replace("__", "/") + ".xml", text)
    return buffer.getvalue()


def read_part(content: bytes | None, name: str) -> str:
    with zipfile.ZipFile(io.BytesIO(content or b"")) as made:
        return made.read(name).decode()


def paragraphs(*texts: str) -> str:
    return "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in texts)


def test_a_text_or_a_figure_of_a_document_is_wrong() -> None:
    name = "word/document.xml"
    seed = package(word__document=paragraphs("Report"), word__styles="x")
    gold = package(
        word__document=paragraphs("Report", "Prices &amp; costs rise", "1,200"), word__styles="x"
    )
    space = WorkspaceSpec(image="office", seed=pack_tree({"r.docx": seed}))
    made = labels(replace(bug_task(), workspace=space), "r.docx", gold)
    assert {read_part(data, name) for data in made.values()} == {
        paragraphs("Report", "Prices &amp; costs rise", "1212.0000"),
        paragraphs("Report", "Prices &amp; costs rises", "1,200"),
        paragraphs("Report", "", "1,200"),
        paragraphs("Report", "1,200"),
        paragraphs("changed", "Prices &amp; costs rise", "1,200"),
    }
    assert {read_part(data, "word/styles.xml") for data in made.values()} == {"x"}
    (same,) = alternatives_of(bug_task(), Artifact(files={"r.docx": gold}))
    assert read_part(same.artifact.files["r.docx"], name) == read_part(gold, name)


def test_a_text_of_a_slide_or_a_point_of_its_chart_is_wrong() -> None:
    gold = package(
        ppt__slides__slide1="<a:t>Sales</a:t>", ppt__charts__chart1="<c:v>40</c:v><c:v>Oslo</c:v>"
    )
    made = labels(bug_task(), "d.pptx", gold)
    charts = {read_part(data, "ppt/charts/chart1.xml") for data in made.values()}
    slides = {read_part(data, "ppt/slides/slide1.xml") for data in made.values()}
    assert {"<c:v>40.4000</c:v><c:v>Oslo</c:v>", "<c:v>40</c:v><c:v>Oslos</c:v>"} <= charts
    assert slides == {"<a:t>Sales</a:t>", "<a:t>Saless</a:t>", "<a:t></a:t>"}


def test_one_thing_is_wrong_in_each_workbook() -> None:
    hidden = {"expected.json": json.dumps(EXPECTED).encode()}
    seed = WorkspaceSpec(image="office", seed=pack_tree({"s.xlsx": book(solved=False)}))
    task = replace(bug_task(), hidden=hidden, workspace=seed)
    made = labels(task, "s.xlsx", book(solved=True))
    gold: dict[str, Any] = cells(book(solved=True))
    kinds: dict[str, dict[str, Any]] = {
        "one cell off by 1 %": {"S!B3": "=(A4*2)*1.01"},
        "replaced by values": {"S!B2": 6, "S!B3": 4.5},
        "range one row short": {"S!B2": "=SUM(A4:A8)"},
        "next row": {"S!B2": gold["S!B3"], "S!B3": gold["S!B2"]},
        "changed outside": {"S!A1": "changed"},
        "a cell more": {"S!A6": 7},
    }
    for kind, change in kinds.items():
        content = next(data for label, data in made.items() if kind in label)
        assert cells(content) == gold | change, kind
    renamed = next(data for label, data in made.items() if "wrong sheet name" in label)
    assert {key.partition("!")[0] for key in cells(renamed)} == {"S 2"}
    bare = replace(task, hidden={})
    assert labels(bare, "s.xlsx", book(solved=True)) == {}


@pytest.mark.parametrize("path", ["notes.txt", "picture.png"])
def test_a_kind_that_nobody_knows_has_none(path: str) -> None:
    gold = Artifact(files={path: b"x"})
    assert (mutants_of(bug_task(), gold), alternatives_of(bug_task(), gold)) == ([], [])
