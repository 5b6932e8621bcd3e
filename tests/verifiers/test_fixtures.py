"""Every registered verifier: full score for right work, none for no work, told apart from noise.

A new verifier gets an entry in `FIXTURES`; without one these tests fail.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import openpyxl
import pytest

from rollmill.verifiers import VERIFIERS, Verdict, VerifierSpec, get_verifier
from rollmill.workspaces import (
    Artifact,
    DockerProvider,
    WorkspaceSpec,
    lay,
    opened,
    pack_tree,
)

from ..judges import judge as judge_by
from ..judges import reader

NOISE = b"\x00\xff\xfePK\x03\x04 neither text nor archive\n" * 99


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """A task for one verifier, by hand."""

    image: str
    seed: Mapping[str, bytes]
    params: Mapping[str, Any]
    hidden: Mapping[str, bytes]
    right: Mapping[str, bytes]
    """What right work leaves."""
    program: str = ""
    """Python that does the right work, where that takes a library of the image."""
    work: str
    """The file that is judged."""


def book(**more: str) -> bytes:
    made = openpyxl.Workbook()
    sheet: Any = made.active
    sheet.title = "S"
    for cell, value in {"A1": 2, "A2": 3, **more}.items():
        sheet[cell] = value
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


TESTS = {
    "tests/test_a.py": b"from a import one\n\n\ndef test_one():\n    assert one() == 1\n\n\n"
    b"def test_kept():\n    assert one\n"
}
REGION = {"sheet": "S", "top_left": "A3", "values": [[5]], "formula": True}
RISK, DATE = "It names rising prices.", "It is dated."
PANEL = (judge_by(reader({RISK: "Prices may rise", DATE: "3 May 2024"})),)
FIXTURES: dict[str, Fixture] = {
    "answer": Fixture(
        image="python",
        seed={"facts.txt": b"The total is 12.\n"},
        params={"path": "answer.json"},
        hidden={"expected.json": as_json({"total": {"value": 12}})},
        right={"answer.json": as_json({"total": 12})},
        work="answer.json",
    ),
    "deck": Fixture(
        image="office",
        seed={},
        params={"path": "d.pptx"},
        hidden={"expected.json": as_json({"count": 1, "slides": [{"at": 1, "title": "Sales"}]})},
        right={},
        program="""
from pptx import Presentation
d = Presentation()
d.slides.add_slide(d.slide_layouts[5]).shapes.title.text = "Sales"
d.save("d.pptx")
""",
        work="d.pptx",
    ),
    "document": Fixture(
        image="office",
        seed={},
        params={"path": "r.docx"},
        hidden={
            "expected.json": as_json({"outline": [[1, "Sales"]], "contains": [{"text": "up"}]})
        },
        right={},
        program="""
import docx
d = docx.Document()
d.add_heading("Sales", 1)
d.add_paragraph("They went up.")
d.save("r.docx")
""",
        work="r.docx",
    ),
    "rubric": Fixture(
        image="python",
        seed={},
        params={"path": "memo.md", "repeats": 2},
        hidden={
            "rubric.json": as_json(
                {"criteria": [{"name": "risk", "text": RISK}, {"name": "date", "text": DATE}]}
            )
        },
        right={"memo.md": b"Oslo, 3 May 2024\n\nPrices may rise.\n"},
        work="memo.md",
    ),
    "state": Fixture(
        image="python",
        seed={"state.json": as_json({"status": "open", "total": 10})},
        params={"path": "state.json"},
        hidden={"expected.json": as_json({"changes": {"/status": {"after": "shipped"}}})},
        right={"state.json": as_json({"status": "shipped", "total": 10})},
        work="state.json",
    ),
    "table": Fixture(
        image="python",
        seed={},
        params={"path": "t.csv"},
        hidden={
            "expected.json": as_json(
                {"columns": [{"name": "city", "type": "text"}], "rows": [["Oslo"], ["Bergen"]]}
            )
        },
        right={"t.csv": b"city\nOslo\nBergen\n"},
        work="t.csv",
    ),
    "test_suite": Fixture(
        image="python",
        seed={"a.py": b"def one():\n    return 2\n", **TESTS},
        params={
            "fail_to_pass": ["tests/test_a.py::test_one"],
            "pass_to_pass": ["tests/test_a.py::test_kept"],
            "tests": ["tests"],
            "timeout_s": 60.0,
        },
        hidden=TESTS,
        right={"a.py": b"def one():\n    return 1\n"},
        work="a.py",
    ),
    "workbook": Fixture(
        image="office",
        seed={"book.xlsx": book()},
        params={"path": "book.xlsx"},
        hidden={"expected.json": as_json({"regions": [REGION]})},
        right={"book.xlsx": book(A3="=A1+A2")},
        work="book.xlsx",
    ),
}


async def judged(name: str, artifact: Mapping[str, bytes | None], *, program: str = "") -> Verdict:
    fixture, provider = FIXTURES[name], DockerProvider()
    spec = WorkspaceSpec(image=fixture.image, seed=pack_tree(fixture.seed))
    judge = VerifierSpec(name=name, params=fixture.params)
    try:
        async with opened(provider, spec) as workspace:
            await lay(workspace, Artifact(files=artifact))
            if program:
                ran = await workspace.exec(["python3", "-c", program])
                assert ran.exit_code == 0, ran.stderr
            verifier = get_verifier(name, panel=PANEL)
            return await verifier.verify(workspace, judge, fixture.hidden)
    finally:
        await provider.close()


def each_verifier() -> list[Any]:
    office = {name for name, fixture in FIXTURES.items() if fixture.image == "office"}
    return [
        pytest.param(name, marks=pytest.mark.office if name in office else pytest.mark.docker)
        for name in VERIFIERS
    ]


def _told(verdict: Verdict) -> tuple[object, ...]:
    """What must not change: the words of a library's own error may name an address."""
    checks = [(check.name, check.outcome) for check in verdict.checks]
    return verdict.outcome, verdict.score, checks, verdict.verifier


def test_every_verifier_has_fixtures() -> None:
    assert set(FIXTURES) == set(VERIFIERS)


@pytest.mark.parametrize("name", each_verifier())
async def test_right_work_gets_the_full_score_every_time(name: str) -> None:
    fixture = FIXTURES[name]
    first, again = [await judged(name, fixture.right, program=fixture.program) for _ in range(2)]
    assert (first.outcome, first.score) == ("pass", 1.0)
    assert first == again
    assert first.verifier == f"{name}@{get_verifier(name).version}"


@pytest.mark.parametrize("name", each_verifier())
async def test_no_work_scores_nothing_every_time_with_evidence(name: str) -> None:
    verdict, again = [await judged(name, {}) for _ in range(2)]
    assert (verdict.outcome, verdict.score) == ("fail", 0.0)
    assert _told(verdict) == _told(again)
    assert any(check.evidence for check in verdict.checks if check.outcome == "fail")


@pytest.mark.parametrize("name", each_verifier())
async def test_noise_and_a_missing_file_fail_and_are_no_error_of_ours(name: str) -> None:
    work = FIXTURES[name].work
    for artifact in ({work: NOISE}, {work: None}, {work: b""}):
        verdict, again = [await judged(name, artifact) for _ in range(2)]
        assert (verdict.outcome, verdict.score) == ("fail", 0.0), (artifact, verdict)
        assert _told(verdict) == _told(again)
