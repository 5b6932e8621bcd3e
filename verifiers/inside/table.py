"""Reads a table from a .csv, .json, .jsonl, .parquet or .sqlite file as columns and rows.

Dates arrive as ISO text, bytes as hexadecimal; a cell of a .csv is always text, empty or not.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import sqlite3
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from .answering import Refusal, answer, parsing

MAX_FILE_BYTES = 64 << 20
MAX_CELLS = 500_000
MAX_TEXT = 10_000
SQLITE_STEPS = 50_000_000

Table = tuple[list[str], list[str], list[list[Any]]]
"""Names of columns, their stored types (empty = untyped), rows."""


def main() -> None:
    """Answer the request on standard input."""
    answer(read)


def read(request: dict[str, Any]) -> dict[str, Any]:
    """The columns and rows of the file at `path`, read as `format`."""
    path = Path(request["path"])
    if not path.exists():
        raise Refusal("missing", "there is no such file")
    if not path.is_file() or path.is_symlink():
        raise Refusal("no_table", "it is not a regular file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise Refusal("too_big", f"it has over {MAX_FILE_BYTES} bytes")
    if request["format"] not in READERS:
        raise Refusal("no_table", f"no table is read as {request['format']!r}")
    with parsing("table"):
        columns, types, rows = READERS[request["format"]](path, request["table"])
        if len(rows) * max(len(columns), 1) > MAX_CELLS:
            raise Refusal("too_big", f"it has over {MAX_CELLS} cells")
        plain = [[_plain(value) for value in row] for row in rows]
    texts = request["format"] == "csv"
    return {"columns": columns, "types": types, "rows": plain, "texts": texts}


def _csv(path: Path, table: str) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file, strict=True))
    if not rows:
        raise Refusal("no_table", "it is empty; its first line must be the header")
    header, *rows = rows
    return header, [""] * len(header), [row for row in rows if row]


def _json(path: Path, table: str) -> Table:
    return _records(json.loads(path.read_text(encoding="utf-8")))


def _jsonl(path: Path, table: str) -> Table:
    lines = path.read_text(encoding="utf-8").splitlines()
    return _records([json.loads(line) for line in lines if line.strip()])


def _records(found: Any) -> Table:
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Refusal("no_table", "expected a list of objects, one a row")
    columns = list(dict.fromkeys(name for record in found for name in record))
    return columns, [""] * len(columns), [[record.get(c) for c in columns] for record in found]


def _parquet(path: Path, table: str) -> Table:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    if file.metadata.num_rows * max(file.metadata.num_columns, 1) > MAX_CELLS:
        raise Refusal("too_big", f"it has over {MAX_CELLS} cells")
    read = file.read()
    names, types = list(read.schema.names), [str(kind) for kind in read.schema.types]
    columns = [read.column(at).to_pylist() for at in range(len(names))]
    return names, types, [list(row) for row in zip(*columns, strict=True)]


def _sqlite(path: Path, table: str) -> Table:
    """Tables only: a view or a virtual table could compute what was to be stored."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as base:
        base.execute("PRAGMA trusted_schema = OFF")
        base.set_progress_handler(lambda: 1, SQLITE_STEPS)
        stored = base.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name = ? "
            "AND sql NOT LIKE 'CREATE VIRTUAL%'",
            (table,),
        ).fetchall()
        if not stored:
            raise Refusal("no_table", f"it holds no table {table!r}")
        quoted = table.replace('"', '""')
        info = base.execute(f'PRAGMA table_info("{quoted}")').fetchall()
        rows = base.execute(f'SELECT * FROM "{quoted}" LIMIT {MAX_CELLS}').fetchall()
    return [each[1] for each in info], [each[2] for each in info], [list(row) for row in rows]


READERS: dict[str, Callable[[Path, str], Table]] = {
    "csv": _csv,
    "json": _json,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "sqlite": _sqlite,
}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()[:MAX_TEXT]
    return (value if isinstance(value, str) else json.dumps(value, default=str))[:MAX_TEXT]
