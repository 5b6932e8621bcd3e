"""Parquet files with `datasets` features, a row group at a time. Knows no splits or cards."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import datasets
import pyarrow as pa
from pyarrow import parquet as pq

from .schema import SCHEMA, Row

GROUP_ROWS = 64
FILE_BYTES = 300_000_000
"""A file is closed once it is larger."""

FEATURES = datasets.Features.from_arrow_schema(SCHEMA)


class ParquetFiles:
    """Rows of one split into `NAME-00000.parquet`, `NAME-00001.parquet`, ...; a context manager."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._rows: list[Row] = []
        self._files = 0
        self._writer: Any = None
        self._path = folder

    def add(self, row: Row) -> None:
        """Take one row."""
        self._rows.append(row)
        if len(self._rows) == GROUP_ROWS:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._flush()
        self._close()

    def _flush(self) -> None:
        if not self._rows:
            return
        schema = FEATURES.arrow_schema
        if self._writer is None:
            self._path = self._folder / f"{self._name}-{self._files:05d}.parquet"
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, schema, compression="zstd")
            self._files += 1
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=schema))
        self._rows = []
        if self._path.stat().st_size > FILE_BYTES:
            self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
