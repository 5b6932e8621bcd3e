"""What became of each proposal: the lines behind the upper half of the funnel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from ..files import room_for, write_bytes
from .errors import CorruptRun

Stage = Literal["proposed", "built", "gold_valid", "admitted"]
STAGES: tuple[Stage, ...] = ("proposed", "built", "gold_valid", "admitted")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposalRecord:
    """One proposal and how far it came."""

    family: str
    key: str
    """Unique within the family."""
    source: str
    stage: Stage
    """The last stage it reached; each includes the ones before it."""
    reason: str = ""
    """Why it went no further, a short slug; empty = admitted."""
    detail: str = ""
    task_id: str = ""
    """Empty = it was never built."""
    build_s: float = 0.0
    admit_s: float = 0.0
    bytes: int = 0
    """Size of the task's seed and hidden assets; 0 = never built."""


_RECORD = TypeAdapter(ProposalRecord)


def append_record(path: Path, record: ProposalRecord) -> None:
    """Add one whole line, on disk when this returns.

    Raises:
        DiskFull: it does not fit; the file is as it was.
    """
    with room_for(path), path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            line = _RECORD.dump_json(record) + b"\n"
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(end)
            raise


def read_records(path: Path) -> list[ProposalRecord]:
    """Every whole line, the last one of each family and key. A torn last line is owed again.

    Raises:
        CorruptRun: a whole line that is no record.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    records: dict[tuple[str, str], ProposalRecord] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = _RECORD.validate_json(line)
        except ValidationError as error:
            raise CorruptRun(
                f"line {number} of {path} is no proposal record; delete the line "
                "and give the command that made the run again"
            ) from error
        records[record.family, record.key] = record
    return list(records.values())


def drop_torn_line(path: Path) -> None:
    """Rewrite a log to its whole lines, so that the next append does not glue two together."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        write_bytes(path, content[: content.rfind(b"\n") + 1])
