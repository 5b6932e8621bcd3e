"""Datasets: the Arrow schema, the run directory, exports, reports."""

from .errors import (
    BrokenTrajectory,
    CorruptRun,
    CorruptShard,
    ExportError,
    NotARun,
    RunError,
    RunLocked,
    RunMismatch,
)
from .manifest import Manifest, content_digest
from .records import ProposalRecord
from .schema import SCHEMA, from_row, to_row
from .store import Run, read_rows, read_run, read_tasks

__all__ = [
    "SCHEMA",
    "BrokenTrajectory",
    "CorruptRun",
    "CorruptShard",
    "ExportError",
    "Manifest",
    "NotARun",
    "ProposalRecord",
    "Run",
    "RunError",
    "RunLocked",
    "RunMismatch",
    "content_digest",
    "from_row",
    "read_rows",
    "read_run",
    "read_tasks",
    "to_row",
]
