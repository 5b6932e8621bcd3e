"""Tells how a workbook looks after programs have only opened and saved it: what they change alone.

openpyxl, LibreOffice, one after the other, and LibreOffice twice. What comes of it is no fault of
whoever used them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from .answering import answer, parsing
from .soffice import convert
from .workbook import FILTER, load, look

TO = f"xlsx:{FILTER}"


def main() -> None:
    """Answer the request on standard input."""
    answer(read)


def read(request: dict[str, Any]) -> dict[str, Any]:
    """The looks of the copies. An original that is not there has none."""
    if not request["original"]:
        return {"looks": []}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        first, timeout_s = scratch / "seed.xlsx", request["timeout_s"]
        first.write_bytes(Path(request["original"]).read_bytes())
        by_python = [_resaved(first, scratch / "python.xlsx")]
        convert([first, *by_python], TO, scratch / "a", timeout_s, FILTER)
        by_office = [scratch / "a" / "out" / each.name for each in (first, *by_python)]
        by_python += [_resaved(each, scratch / f"again-{each.name}") for each in by_office]
        convert([by_python[-1]], TO, scratch / "b", timeout_s, FILTER)
        by_office.append(scratch / "b" / "out" / by_python[-1].name)
        return {"looks": [look(path, load(path)) for path in (*by_python, *by_office)]}


def _resaved(path: Path, copy: Path) -> Path:
    book = load(path)
    with parsing("workbook"):
        book.save(copy)
    return copy
