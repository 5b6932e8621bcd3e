"""Has a workbook read inside a workspace and returns its cells as plain values.

The host's half of `workbook_harness.py`: hostile files are parsed there, under the workspace's
limits and as the command user; the host sees JSON of bounded size. What the cells are worth is
for `workbook.py` to judge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Any, Literal

from ..workspaces import MIB, Workspace, WorkspaceError, unpack_tree

HARNESS = Path(__file__).with_name("workbook_harness.py").read_text(encoding="utf-8")
ORIGINAL = "/tmp/original.xlsx"
READING = "/tmp/reading.json"
MAX_READING_BYTES = 16 * MIB
RECALCULATE_S = 240.0
"""Wall clock, generous: a machine may be busy. The harness bounds the processor time."""
READ_S = 60.0
"""Allowed for parsing, on top of the recalculation."""

Ending = Literal["read", "missing", "no_workbook", "too_big", "not_recalculated"]
Kind = Literal["number", "text", "bool", "date", "error", "formula"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What stands in one cell."""

    kind: Kind
    value: Any
    """A date is in ISO format, a formula its text, an error its name such as `#REF!`."""

    def __str__(self) -> str:
        return f"{self.kind} {self.value!r}"


Sheets = Mapping[str, Mapping[str, Cell]]
"""Sheet -> cell such as `B2` -> what stands there; empty cells are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkbookReading:
    """One workbook, read."""

    ending: Ending
    detail: str = ""
    """Why it could not be read; empty = it was."""
    written: Sheets = field(default_factory=dict)
    """As it was saved: formulas are formulas."""
    values: Sheets = field(default_factory=dict)
    """After recalculation: formulas are their results; empty = there are no formulas."""
    original: Sheets = field(default_factory=dict)
    """As in the task's seed; empty = the seed has no such file."""

    def value(self, sheet: str, cell: str) -> Cell | None:
        """The value of a cell, a formula's as LibreOffice calculates it; None = empty."""
        written = self.written.get(sheet, {}).get(cell)
        if written is None or written.kind != "formula":
            return written
        return self.values.get(sheet, {}).get(cell)


async def read_workbook(workspace: Workspace, path: str) -> WorkbookReading:
    """Read a workbook that lies in `workspace`, and the seed's file of the same path.

    Raises:
        WorkspaceError: the workspace failed, or it cannot read any workbook.
    """
    seed = unpack_tree(workspace.spec.seed).get(path)
    if seed is not None:
        await workspace.put(ORIGINAL, seed)
    request = {
        "path": path,
        "original": None if seed is None else ORIGINAL,
        "out": READING,
        "timeout_s": RECALCULATE_S,
    }
    done = await workspace.exec(
        ["python3", "-I", "-B", "-c", HARNESS],
        stdin=json.dumps(request).encode(),
        timeout_s=RECALCULATE_S + READ_S,
    )
    if done.timed_out:
        return WorkbookReading(ending="not_recalculated", detail="reading it took too long")
    if done.exit_code == 128 + SIGKILL:
        return WorkbookReading(ending="too_big", detail="reading it took all memory")
    if done.exit_code != 0:
        raise WorkspaceError(f"the reader of workbooks broke: {done.stderr.strip()[-400:]}")
    raw = json.loads(await workspace.get(READING, max_bytes=MAX_READING_BYTES))
    if raw["ending"] == "no_office":
        raise WorkspaceError(f"{raw['detail']}; the task must name the image 'office'")
    if raw["ending"] != "read":
        return WorkbookReading(ending=raw["ending"], detail=raw["detail"])
    written, values, original = (_sheets(raw[name]) for name in ("written", "values", "original"))
    return WorkbookReading(ending="read", written=written, values=values, original=original)


def _sheets(raw: Mapping[str, Mapping[str, tuple[Kind, Any]]]) -> Sheets:
    return {
        name: {at: Cell(kind=kind, value=value) for at, (kind, value) in cells.items()}
        for name, cells in raw.items()
    }
