"""Judges a table in a file: its columns, their types, and every row within tolerances.

How the rows were computed is not looked at.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

from ..workspaces import Workspace
from .reading import read_inside, summary, unreadable
from .sameness import near
from .types import Check, Verdict, VerifierSpec, judge_edit

EXPECTED = "expected.json"
FORMATS = {"db": "sqlite", "sqlite3": "sqlite", "ndjson": "jsonl"}
"""Endings of files that are not the name of their format."""
STORED = {
    "number": r"u?int\d+|float|double|halffloat|decimal.*|INT.*|REAL|NUM.*|DOUBLE.*|FLOAT|DEC.*",
    "integer": r"u?int\d+|INT.*|BIGINT|SMALLINT",
    "text": r"(large_)?string.*|dictionary.*|TEXT|.*CHAR.*|CLOB",
    "boolean": r"bool|BOOL.*|INT.*",
    "date": r"date.*|timestamp.*|TEXT|DATE.*|TIMESTAMP",
}
"""How a typed file (Parquet, SQLite) may store a column of each type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What one column must be."""

    name: str
    type: Literal["number", "integer", "text", "boolean", "date"]
    absolute: float | None = None
    """How far off a number may be; None = 1e-6 of its value."""
    nullable: bool = False
    """False = an empty cell fails, whatever is expected elsewhere."""


class TableVerifier:
    """Passes when the file holds the expected columns and rows.

    Params: `path`; `format` where the file's ending does not tell (csv, json, jsonl, parquet,
    sqlite); `table`, which table of a database. Hidden asset `expected.json`: `columns`, with the
    fields of `Column`; `rows`; `key`, names of columns by which rows are matched whatever their
    order (empty = the order counts).
    """

    name: ClassVar[str] = "table"
    version: ClassVar[str] = "2"

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the table in `workspace`; see `Verifier.verify`."""
        path, expected = spec.params["path"], json.loads(hidden[EXPECTED])
        columns = [Column(**fields) for fields in expected["columns"]]
        ending = PurePosixPath(path).suffix.lstrip(".").lower()
        request = {
            "path": path,
            "format": spec.params.get("format", FORMATS.get(ending, ending)),
            "table": spec.params.get("table", ""),
        }
        found = await read_inside(workspace, "table", request)
        judged = f"{self.name}@{self.version}"
        if found["ending"] != "read":
            check = unreadable(path, "a table", found["ending"], found["detail"])
            return judge_edit((check,), (), verifier=judged)
        checks = compare_table(found, columns, expected["rows"], expected.get("key", ()))
        return judge_edit(checks, (), verifier=judged)


def compare_table(
    found: Mapping[str, Any],
    columns: Sequence[Column],
    rows: Sequence[Sequence[Any]],
    key: Sequence[str] = (),
) -> tuple[Check, ...]:
    """One check for the schema, one for the number of rows, and one for each column's values."""
    names = [column.name for column in columns]
    if found["columns"] != names:
        evidence = f"expected the columns {names}, got {found['columns']}"
        return (Check(name="schema", outcome="fail", evidence=evidence[:400]),)
    stored = zip(columns, found["types"], strict=True)
    wrong = [
        f"{column.name}: expected a column of {column.type}, got {kind}"
        for column, kind in stored
        if kind and not re.fullmatch(STORED[column.type], kind, re.IGNORECASE)
    ]
    ragged = [row for row in found["rows"] if len(row) != len(names)]
    wrong += [f"expected {len(names)} cells a row, got {len(ragged[0])}"] if ragged else []
    checks = [summary("schema", wrong)]
    if ragged:
        return tuple(checks)
    read = _from_text if found["texts"] else _from_stored
    got = [[read(v, c) for v, c in zip(row, columns, strict=True)] for row in found["rows"]]
    pairs, unmatched = _paired(got, rows, [names.index(name) for name in key])
    checks.append(summary("rows", unmatched))
    for at, column in enumerate(columns):
        wrong = [
            f"row {number + 1}: expected {right[at]!r}, got {left[at]!r}"
            for number, (left, right) in enumerate(pairs)
            if not same_value(left[at], right[at], column)
        ]
        checks.append(summary(column.name, wrong if pairs or not rows else ["no row to compare"]))
    return tuple(checks)


def same_value(got: Any, wanted: Any, column: Column) -> bool:
    """Whether a cell holds what it must. An empty cell is right only where one is expected."""
    if got is None or wanted is None:
        return got is wanted and column.nullable
    if column.type in ("number", "integer"):
        if isinstance(got, bool) or not isinstance(got, (int, float)):
            return False
        if column.type == "integer" and isinstance(got, float) and not got.is_integer():
            return False
        return near(got, wanted, column.absolute)
    if column.type == "date":
        return isinstance(got, str) and _day(got) == _day(wanted)
    return type(got) is type(wanted) and bool(got == wanted)


def _from_text(text: str, column: Column) -> Any:
    """A cell of a .csv as its column's type; the text itself where it is none."""
    bare = text.strip()
    if bare == "" and (column.nullable or column.type != "text"):
        return None
    if column.type == "boolean":
        return {"true": True, "false": False, "1": True, "0": False}.get(bare.lower(), text)
    if column.type in ("text", "date"):
        return text
    try:
        number = float(bare)
    except ValueError:
        return text
    return number if math.isfinite(number) and "_" not in bare else text


def _from_stored(value: Any, column: Column) -> Any:
    """A cell of a typed file. SQLite has no booleans, so 0 and 1 are taken for them."""
    return bool(value) if column.type == "boolean" and value in (0, 1) else value


def _paired(
    got: Sequence[Sequence[Any]], rows: Sequence[Sequence[Any]], key: Sequence[int]
) -> tuple[list[tuple[Sequence[Any], Sequence[Any]]], list[str]]:
    """Rows beside the ones they must be, and what is wrong with their number."""
    if not key:
        wrong = [] if len(got) == len(rows) else [f"expected {len(rows)} rows, got {len(got)}"]
        return list(zip(got, rows, strict=False)), wrong

    def name(row: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(_day(v) if isinstance(v, str) else v for v in (row[at] for at in key))

    known: dict[tuple[Any, ...], Sequence[Any]] = {}
    wrong = []
    for row in got:
        if name(row) in known:
            wrong.append(f"{name(row)} stands there twice")
        known[name(row)] = row
    wanted = {name(row): row for row in rows}
    wrong += [f"the row {each} is missing" for each in wanted if each not in known]
    wrong += [f"the row {each} was not asked for" for each in known if each not in wanted]
    return [(known[each], row) for each, row in wanted.items() if each in known], wrong


def _day(iso: str) -> str:
    return re.sub(r"[T ]00:00:00(\.0+)?$", "", iso)
