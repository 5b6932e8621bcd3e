"""Near misses and rewrites of gold tables: a row too few or too many, one cell or name wrong.

They are the same for every format; a row is a list of values, as the format stores them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Change = tuple[str, bytes]
Row = Sequence[Any]


def csv_mutants(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """One thing wrong each."""
    header, *rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig")))) or [[]]
    for label, names, changed in _wrong_tables(header, rows):
        yield label, _csv([names, *changed])


def csv_rewrites(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """Every cell quoted, and the line ends of another system."""
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    yield "quoted, CRLF line ends", buffer.getvalue().encode()


def parquet_mutants(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """One thing wrong each, the stored types being kept."""
    table = pq.read_table(io.BytesIO(content))
    rows = [list(record.values()) for record in table.to_pylist()]
    types = [field.type for field in table.schema]
    for label, names, changed in _wrong_tables(table.column_names, rows):
        columns = list(zip(*changed, strict=True)) or [()] * len(types)
        arrays = [pa.array(list(c), type=t) for c, t in zip(columns, types, strict=True)]
        yield label, _parquet(pa.table(arrays, names=list(names)))


def parquet_rewrites(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """The same table without compression, a row in each group."""
    table = pq.read_table(io.BytesIO(content))
    yield "uncompressed, in small groups", _parquet(table, compression="none", row_group_size=1)


def _wrong_tables(header: Row, rows: Sequence[Row]) -> Iterator[tuple[str, Row, Sequence[Row]]]:
    """What is wrong, the names of the columns, and the rows."""
    if rows:
        yield "the last row left out", header, rows[:-1]
        yield "the first row twice", header, [rows[0], *rows]
    if header:
        yield "a column under another name", [*header[:-1], f"{header[-1]}2"], rows
    for at, cell in enumerate(rows[-1] if rows else []):
        other = _other(cell)
        if other != cell:
            wrong = [*rows[-1][:at], other, *rows[-1][at + 1 :]]
            yield f"column {at + 1} of the last row changed", header, [*rows[:-1], wrong]


def _other(value: Any) -> Any:
    """A near miss of one cell; the cell itself where none is known."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.01 or 0.01
    if isinstance(value, date):
        return value + timedelta(days=1)
    if isinstance(value, str):
        try:
            return str(float(value) * 1.01 or 0.01)
        except ValueError:
            return f"{value}x"
    return value


def _csv(rows: Sequence[Row]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()


def _parquet(table: pa.Table, **how: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **how)
    return buffer.getvalue()
