"""The run directory: everything one invocation made. Killed at any moment, it can be resumed.

    run.json            the configuration that made it
    proposals.jsonl     what became of each proposal, appended line by line
    tasks/TASK_ID/      admitted tasks, as Harbor task folders
    journal/shard-N/    finished episodes of a shard that is not whole yet, one file each
    attempts/           every attempt that our machinery failed
    shards/shard-N.arrow  the dataset
    manifest.json       written last: shards with rows, bytes and SHA-256

Knows nothing about how tasks or episodes are made.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..files import TEMPORARY, write_bytes
from ..task import Task
from ..taskfolder import load_task, save_task
from ..trajectory import RETRIED, Trajectory
from .errors import NotARun, RunMismatch
from .lock import WriteLock
from .manifest import MANIFEST, Manifest, is_finished, read_config, sound_shards, summarise
from .records import ProposalRecord, append_record, drop_torn_line, read_records
from .schema import Row, from_row, to_row
from .shards import read_shard, write_shard

RUN_FORMAT = 1


class Run:
    """A run directory open for writing, by one process at a time. Threads may share it."""

    def __init__(self, path: Path, config: Mapping[str, Any], lock: WriteLock) -> None:
        self.path = path
        self.config = config
        self._lock = lock
        self._appending = threading.Lock()
        self._records = path / "proposals.jsonl"

    @classmethod
    def open(cls, out: Path, config: Mapping[str, Any]) -> Self:
        """Create a run, or resume the one that the same configuration made.

        Args:
            config: JSON values only; what decides the content, nothing about speed or paths.

        Raises:
            RunMismatch: another configuration made it.
            NotARun: the folder holds something else.
            RunLocked: another process is writing it.
            CorruptRun: a file of it cannot be read back.
            DiskFull: the file system has no room.
        """
        wanted = json.loads(json.dumps(config))
        if out.exists() and (not out.is_dir() or _holds_something_else(out)):
            raise NotARun(out)
        out.mkdir(parents=True, exist_ok=True)
        lock = WriteLock(out)
        try:
            if (out / "run.json").exists():
                _demand_same(out, read_config(out), wanted)
            else:
                text = json.dumps({"format": RUN_FORMAT, "config": wanted}, indent=2)
                write_bytes(out / "run.json", text.encode() + b"\n")
            run = cls(out, wanted, lock)
            run._tidy()
        except BaseException:
            lock.release()
            raise
        return run

    def record_proposal(self, record: ProposalRecord) -> None:
        """Keep what became of a proposal; a later record of the same key replaces it."""
        with self._appending:
            append_record(self._records, record)

    def proposals(self) -> list[ProposalRecord]:
        """What is known of every proposal so far, in the order of first mention."""
        return read_records(self._records)

    def save_task(self, task: Task, admission: Mapping[str, Any]) -> Path:
        """Keep an admitted task with the evidence for it; returns its folder."""
        folder = self.path / "tasks" / task.task_id
        save_task(task, folder, admission=admission)
        return folder

    def tasks(self) -> dict[str, Task]:
        """Every task kept, by its id, in the order of the ids."""
        return read_tasks(self.path)

    def done_episodes(self, shard: int) -> dict[str, Trajectory]:
        """What is finished of a shard, by episode id; a whole shard gives all its rows.

        Episodes that our machinery failed are owed again until their shard is whole.
        """
        whole = self._shard(shard)
        files = [whole] if whole.exists() else sorted(self._journal(shard).glob("*.arrow"))
        rows = (row for file in files for row in read_shard(file))
        return {row["episode_id"]: from_row(row) for row in rows}

    def has_shard(self, shard: int) -> bool:
        """Whether a shard is whole: nothing of it is owed."""
        return self._shard(shard).exists()

    def add_episode(self, shard: int, trajectory: Trajectory) -> None:
        """Journal a finished episode; one that our machinery failed is kept as an attempt only."""
        if trajectory.status in RETRIED:
            self.add_attempt(trajectory)
        else:
            file = self._journal(shard) / f"{trajectory.episode_id}.arrow"
            write_shard(file, [to_row(trajectory)])

    def add_attempt(self, trajectory: Trajectory) -> None:
        """Keep an attempt that our machinery failed."""
        with self._appending:
            folder = self.path / "attempts"
            before = len(list(folder.glob(f"{trajectory.episode_id}.*.arrow")))
            write_shard(
                folder / f"{trajectory.episode_id}.{before:03d}.arrow", [to_row(trajectory)]
            )

    def write_shard(self, shard: int, trajectories: Sequence[Trajectory]) -> Path:
        """Write a whole shard, in an order that does not depend on who finished first.

        Raises:
            DiskFull: it does not fit; nothing of it is left behind.
        """
        ids = {trajectory.episode_id for trajectory in trajectories}
        if len(ids) < len(trajectories):
            raise ValueError(f"shard {shard} was given an episode twice")
        ordered = sorted(trajectories, key=lambda t: (t.task_id, t.policy, t.attempt, t.episode_id))
        (self.path / MANIFEST).unlink(missing_ok=True)
        write_shard(self._shard(shard), [to_row(trajectory) for trajectory in ordered])
        shutil.rmtree(self._journal(shard), ignore_errors=True)
        return self._shard(shard)

    def finish(self) -> Manifest:
        """Read every shard back and write the manifest.

        Raises:
            CorruptShard: a shard is damaged.
        """
        sound_shards(self.path)
        manifest = summarise(self.path)
        write_bytes(self.path / MANIFEST, manifest.to_json().encode())
        return manifest

    @property
    def finished(self) -> bool:
        """Whether nothing is owed: the manifest stands and every shard it names is there.

        Raises:
            CorruptShard: a shard is not what the manifest says.
        """
        return is_finished(self.path)

    def close(self) -> None:
        """Let other processes write. Safe to call twice."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _shard(self, shard: int) -> Path:
        return self.path / "shards" / f"shard-{shard:05d}.arrow"

    def _journal(self, shard: int) -> Path:
        return self.path / "journal" / f"shard-{shard:05d}"

    def _tidy(self) -> None:
        """Remove what a killed process left half-done."""
        for parent, folders, files in os.walk(self.path):
            for name in [name for name in folders if name.startswith(TEMPORARY)]:
                shutil.rmtree(Path(parent, name))
                folders.remove(name)
            for name in [name for name in files if name.startswith(TEMPORARY)]:
                Path(parent, name).unlink()
        for whole in (self.path / "shards").glob("*.arrow"):
            shutil.rmtree(self.path / "journal" / whole.stem, ignore_errors=True)
        drop_torn_line(self._records)


def read_tasks(path: Path) -> dict[str, Task]:
    """The tasks of a run, by id, without opening it for writing."""
    folders = sorted(folder for folder in (path / "tasks").glob("*") if folder.is_dir())
    return {folder.name: load_task(folder) for folder in folders}


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a run's whole shards, without opening it for writing.

    Raises:
        NotARun: `path` is no run.
        CorruptShard: a shard is damaged.
    """
    read_config(path)
    for shard in sound_shards(path):
        yield from read_shard(shard)


def read_run(path: Path) -> Iterator[Trajectory]:
    """As `read_rows`, as trajectories."""
    return map(from_row, read_rows(path))


def _holds_something_else(out: Path) -> bool:
    names = {entry.name for entry in out.iterdir() if not entry.name.startswith(TEMPORARY)}
    return "run.json" not in names and bool(names - {WriteLock.NAME})


def _demand_same(path: Path, there: Any, asked: Any) -> None:
    old, new = dict(_flat(there)), dict(_flat(asked))
    differing = {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
    if differing:
        raise RunMismatch(path, differing)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value
