"""What a finished run holds, and one digest of its content. Reads shards, never changes them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .errors import CorruptRun, CorruptShard, NotARun
from .row_digest import row_digest
from .schema import VERSION, Row
from .shards import file_sha256, read_shard

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """One shard as it was written."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The last file of a run; its presence says that nothing is owed."""

    schema: str
    rows: int
    outcomes: Mapping[str, int]
    content_digest: str
    shards: tuple[ShardEntry, ...]

    def to_json(self) -> str:
        """As the file holds it."""
        return json.dumps(asdict(self), indent=2) + "\n"


_MANIFEST = TypeAdapter(Manifest)


def summarise(run: Path) -> Manifest:
    """Read every shard of a run back and say what it holds.

    Raises:
        CorruptShard: a shard is damaged.
    """
    outcomes: Counter[str] = Counter()
    digests: list[str] = []
    shards = []
    for path in sorted((run / "shards").glob("*.arrow")):
        before = len(digests)
        for row in read_shard(path):
            outcomes[row["outcome"]] += 1
            digests.append(row_digest(row))
        shards.append(
            ShardEntry(
                name=path.name,
                rows=len(digests) - before,
                bytes=path.stat().st_size,
                sha256=file_sha256(path),
            )
        )
    return Manifest(
        schema=VERSION,
        rows=len(digests),
        outcomes=dict(sorted(outcomes.items())),
        content_digest=_combine(digests),
        shards=tuple(shards),
    )


def content_digest(rows: Iterable[Row]) -> str:
    """Hash of what the rows say, whatever their order and shards.

    Left out is what may differ when the same configuration runs again with a deterministic
    policy; see `row_digest`.
    """
    return _combine([row_digest(row) for row in rows])


def read_manifest(run: Path) -> Manifest | None:
    """The manifest of a run; None = the run is not finished.

    Raises:
        CorruptRun: it cannot be read.
    """
    path = run / MANIFEST
    try:
        return _MANIFEST.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CorruptRun(
            f"{path} is no manifest; delete it and give the command that made the run again"
        ) from error


def is_finished(run: Path) -> bool:
    """Whether a run has its manifest and every shard that it names.

    Raises:
        CorruptShard: a shard is not what the manifest says.
    """
    manifest = read_manifest(run)
    if manifest is None or not all(_path(run, shard).is_file() for shard in manifest.shards):
        return False
    sound_shards(run)
    return True


def sound_shards(run: Path) -> list[Path]:
    """The files of a run's whole shards; where there is a manifest, each is what that says.

    Raises:
        CorruptShard: one was changed.
        CorruptRun: one is missing.
    """
    manifest = read_manifest(run)
    for shard in manifest.shards if manifest else ():
        path = _path(run, shard)
        if not path.is_file():
            raise CorruptRun(
                f"{path} is missing; give the command that made the run again to have it anew"
            )
        if file_sha256(path) != shard.sha256:
            raise CorruptShard(path, "its bytes are not those that the manifest names")
    return sorted((run / "shards").glob("*.arrow"))


def read_config(run: Path) -> Any:
    """The configuration that made a run.

    Raises:
        NotARun: there is no `run.json`.
        CorruptRun: it cannot be read.
    """
    path = run / "run.json"
    if not path.is_file():
        raise NotARun(run)
    try:
        return json.loads(path.read_bytes())["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptRun(
            f"{path} is no run description; restore it or choose another folder"
        ) from error


def _path(run: Path, shard: ShardEntry) -> Path:
    return run / "shards" / shard.name


def _combine(digests: list[str]) -> str:
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
