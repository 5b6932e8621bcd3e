"""What counts as the right table, in each format, and what does not."""

import json
import sqlite3
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from rollmill.verifiers import VerifierSpec
from rollmill.verifiers.inside import table as inside
from rollmill.verifiers.table import Column, TableVerifier, compare_table
from rollmill.workspaces import DockerProvider, WorkspaceSpec, opened

from .inside_run import run_inside

COLUMNS: list[dict[str, Any]] = [
    {"name": "city", "type": "text"},
    {"name": "opened", "type": "date"},
    {"name": "sales", "type": "number", "absolute": 0.01},
    {"name": "staff", "type": "integer", "nullable": True},
    {"name": "open", "type": "boolean"},
]
ROWS: list[list[Any]] = [
    ["Oslo", "2012-03-01", 1200.5, 7, True],
    ["Åre", "2014-11-30", 80.25, None, False],
]
NAMES = [str(column["name"]) for column in COLUMNS]


def csv(rows: list[list[Any]], path: Path) -> None:
    lines = [",".join("" if v is None else str(v) for v in row) for row in [NAMES, *rows]]
    path.write_text("\n".join(lines) + "\n")


def as_json(rows: list[list[Any]], path: Path) -> None:
    path.write_text(json.dumps([dict(zip(NAMES, row, strict=True)) for row in rows]))


def jsonl(rows: list[list[Any]], path: Path) -> None:
    path.write_text("".join(json.dumps(dict(zip(NAMES, r, strict=True))) + "\n" for r in rows))


def parquet(rows: list[list[Any]], path: Path) -> None:
    dated = [[row[0], date.fromisoformat(row[1]), *row[2:]] for row in rows]
    table = pa.Table.from_pylist([dict(zip(NAMES, row, strict=True)) for row in dated])
    pa.parquet.write_table(table, path)


def sqlite(rows: list[list[Any]], path: Path) -> None:
    path.unlink(missing_ok=True)
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE shops (city TEXT, opened TEXT, sales REAL, staff INTEGER, open INT)")
    base.executemany("INSERT INTO shops VALUES (?, ?, ?, ?, ?)", rows)
    base.commit()
    base.close()


WRITERS: dict[str, Callable[[list[list[Any]], Path], None]] = {
    "csv": csv,
    "json": as_json,
    "jsonl": jsonl,
    "parquet": parquet,
    "sqlite": sqlite,
}


def failed(found: Any, key: tuple[str, ...] = ()) -> list[str]:
    columns = [Column(**fields) for fields in COLUMNS]
    return [c.name for c in compare_table(found, columns, ROWS, key) if c.outcome != "pass"]


def written(kind: str, rows: list[list[Any]], folder: Path) -> Any:
    path = folder / f"t.{kind}"
    WRITERS[kind](rows, path)
    return inside.read({"path": str(path), "format": kind, "table": "shops"})


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_rows_pass_in_every_format_and_each_wrong_cell_fails(
    kind: str, tmp_path: Path
) -> None:
    assert failed(written(kind, ROWS, tmp_path)) == []
    off = [[*ROWS[0][:2], 1200.52, 7, True], ROWS[1]]
    assert failed(written(kind, off, tmp_path)) == ["sales"]
    near = [[*ROWS[0][:2], 1200.505, 7, True], ROWS[1]]
    assert failed(written(kind, near, tmp_path)) == []
    assert failed(written(kind, ROWS[:1], tmp_path)) == ["rows"]
    assert "rows" in failed(written(kind, [*ROWS, ROWS[0]], tmp_path))
    assert "city" in failed(written(kind, ROWS[::-1], tmp_path))
    assert failed(written(kind, ROWS[::-1], tmp_path), key=("city",)) == []
    twice = [*ROWS, [*ROWS[0][:2], 9.0, 7, True]]
    assert "rows" in failed(written(kind, twice, tmp_path), key=("city",))


def test_types_count_where_the_format_has_them(tmp_path: Path) -> None:
    as_text = [[*row[:2], str(row[2]), row[3], row[4]] for row in ROWS]
    assert failed(written("csv", as_text, tmp_path)) == []
    assert failed(written("json", as_text, tmp_path)) == ["sales"]
    assert failed(written("parquet", as_text, tmp_path))[0] == "schema"
    assert failed(written("csv", [[*ROWS[0][:2], "NaN", 7, True], ROWS[1]], tmp_path)) == ["sales"]


def test_a_number_too_long_for_a_float_is_wrong_and_breaks_nothing(tmp_path: Path) -> None:
    endless = [[*ROWS[0][:2], 10**400, 10**400, True], ROWS[1]]
    assert failed(written("json", endless, tmp_path)) == ["sales", "staff"]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("csv", b""),
        ("csv", b"\xff\xfe\x00"),
        ("json", b'{"city": 1}'),
        ("json", b"[" * 100_000),
        ("parquet", b"PAR1PAR1"),
        ("sqlite", b"not a database"),
        ("xlsx", b"a,b"),
    ],
)
def test_what_is_no_table_is_refused(kind: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(data)
    found = run_inside("table", tmp_path, path=str(tmp_path / "t"), format=kind, table="shops")
    assert found["ending"] == "no_table"


def test_a_view_is_no_stored_table(tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "t.sqlite")
    base.execute("CREATE VIEW shops AS SELECT 1 AS city")
    base.commit()
    base.close()
    place = str(tmp_path / "t.sqlite")
    found = run_inside("table", tmp_path, path=place, format="sqlite", table="shops")
    assert found["ending"] == "no_table"


@pytest.mark.office
@pytest.mark.parametrize("kind", ["csv", "parquet"])
async def test_the_office_image_reads_them(
    kind: str, provider: DockerProvider, tmp_path: Path
) -> None:
    hidden = {"expected.json": json.dumps({"columns": COLUMNS, "rows": ROWS}).encode()}
    spec = VerifierSpec(name="table", params={"path": f"out/t.{kind}"})
    WRITERS[kind](ROWS, tmp_path / "t")
    async with opened(provider, WorkspaceSpec(image="office")) as workspace:
        missing = await TableVerifier().verify(workspace, spec, hidden)
        assert (missing.outcome, missing.score) == ("fail", 0.0)
        await workspace.put(f"out/t.{kind}", (tmp_path / "t").read_bytes())
        verdict = await TableVerifier().verify(workspace, spec, hidden)
        assert verdict.outcome == "pass", verdict.checks
