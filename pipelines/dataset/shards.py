"""Arrow files of rows: written whole, checked when read. `datasets.Dataset.from_file` reads them.

They are Arrow IPC *streams*, compressed with zstd. The number of rows stands in the head, so a
file that lost its tail between two batches is recognised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..files import replacing
from .errors import CorruptShard
from .schema import SCHEMA, Row

BATCH_ROWS = 8
"""A column of one batch holds 2 GiB at most, one artifact 32 MiB."""

_ROWS = b"rollmill.rows"


def write_shard(path: Path, rows: Sequence[Row]) -> None:
    """Write rows whole, by rename.

    Raises:
        DiskFull: they do not fit; nothing is left behind.
    """
    schema = SCHEMA.with_metadata({**SCHEMA.metadata, _ROWS: str(len(rows)).encode()})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with replacing(path) as file, pa.ipc.new_stream(file, schema, options=options) as stream:
        for start in range(0, len(rows), BATCH_ROWS):
            stream.write_batch(_batch(rows[start : start + BATCH_ROWS], schema))


def read_shard(path: Path) -> Iterator[Row]:
    """Every row of one file.

    Raises:
        CorruptShard: it is not whole, or of another schema.
    """
    try:
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
            if not stream.schema.equals(SCHEMA):
                raise CorruptShard(path, "its columns are not those of this version")
            left = int(stream.schema.metadata[_ROWS])
            for batch in stream:
                batch.validate(full=True)
                left -= batch.num_rows
                yield from batch.to_pylist()
    except (pa.ArrowException, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CorruptShard(path, str(error).partition("\n")[0]) from error
    if left:
        raise CorruptShard(path, f"{left} of its rows are missing")


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    try:
        return pa.RecordBatch.from_pylist(rows, schema=schema)
    except UnicodeEncodeError:
        return pa.RecordBatch.from_pylist([_encodable(row) for row in rows], schema=schema)


def _encodable(value: Any) -> Any:
    """The value with every lone surrogate, which a policy may send, replaced by `?`."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value
