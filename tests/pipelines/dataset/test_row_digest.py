"""The digest of a row: the same for the same work, another for any other."""

from __future__ import annotations

import io
import time
import zipfile
from typing import Any

import openpyxl
import pytest

from rollmill.pipelines.dataset.row_digest import row_digest


def _workbook(value: int, saved: tuple[int, ...]) -> bytes:
    """A workbook whose members claim to be written at `saved`."""
    book = openpyxl.Workbook()
    book["Sheet"]["A1"] = value
    plain, dated = io.BytesIO(), io.BytesIO()
    book.save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(dated, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "docProps/core.xml":
                content += f"<!-- {saved} -->".encode()
            target.writestr(zipfile.ZipInfo(name, saved), content)  # type: ignore[arg-type]
    return dated.getvalue()


def _row(content: bytes | None, **more: Any) -> dict[str, Any]:
    turns = [{"parent": -1, "completion_ids": [1, 2], "policy_s": time.monotonic()}]
    file = {"path": "book.xlsx", "content": content, "deleted": content is None}
    return {"task_id": "t", "turns": turns, "artifact": [file], "error": "", **more}


def test_when_a_workbook_was_saved_does_not_count() -> None:
    early, late = (2020, 1, 1, 0, 0, 0), (2026, 5, 4, 3, 2, 0)

    assert row_digest(_row(_workbook(7, early))) == row_digest(_row(_workbook(7, late)))


def test_what_stands_in_a_workbook_counts() -> None:
    day = (2020, 1, 1, 0, 0, 0)

    assert row_digest(_row(_workbook(7, day))) != row_digest(_row(_workbook(8, day)))


def test_seconds_and_our_failures_do_not_count() -> None:
    assert row_digest(_row(b"x", timings=1, error="a")) == row_digest(_row(b"x", timings=2))


@pytest.mark.parametrize("other", [b"PK\x03\x04 torn", b"y", b"", None])
def test_any_other_file_counts_by_its_bytes(other: bytes | None) -> None:
    assert row_digest(_row(b"x")) != row_digest(_row(other))
