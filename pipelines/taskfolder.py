"""A task as a Harbor task folder: saved whole, byte for byte the same, and proven when loaded.

    task.toml                     Harbor's sections; the rest of the task in [metadata.rollmill]
    instruction.md
    environment/                  Dockerfile, workspace.tar.gz (the seed)
    solution/                     moves.json, solve.sh
    tests/                        verifier.json, hidden/ (hidden assets), test.sh
    admission.json                the evidence for it; no part of the task

Reads only folders that it wrote; `harbor.py` derives the scripts that Harbor runs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

import tomli_w
from pydantic import BaseModel, ConfigDict, TypeAdapter

from ..verifiers import VerifierSpec
from ..workspaces import MIB, WORKDIR, Limits, WorkspaceSpec
from .files import TEMPORARY, room_for, write_bytes
from .harbor import SEED, dockerfile, solve_script, test_script
from .task import Budget, Domain, Move, Provenance, Task, content_digest, described

HARBOR_SCHEMA = "1.4"
FORMAT = 1


class TaskFolderError(ValueError):
    """A folder that is no task, or not the one that it says it is."""


class _Rollmill(BaseModel):
    """The part of `task.toml` that is ours."""

    model_config = ConfigDict(extra="forbid")

    format: int
    task_id: str
    family: str
    domain: Domain
    image: str
    artifacts: tuple[str, ...]
    env: dict[str, str]
    limits: Limits
    network: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    budget: Budget
    provenance: Provenance
    digests: dict[str, str]


_MOVES = TypeAdapter(tuple[Move, ...])
_VERIFIER = TypeAdapter(VerifierSpec)


def save_task(task: Task, folder: Path, *, admission: Mapping[str, Any] | None = None) -> None:
    """Write a task folder whole, by rename; the same task gives the same bytes.

    A folder that already holds the same task is kept; its admission evidence is replaced.

    Raises:
        TaskFolderError: another task, or something else, lies there.
        ValueError: a hidden asset's path leaves the folder.
        DiskFull: it does not fit; nothing is left behind.
    """
    evidence = {} if admission is None else {"admission.json": _json(admission)}
    if folder.exists():
        there = load_task(folder).task_id
        if there != task.task_id:
            raise TaskFolderError(
                f"{folder} holds task {there}, not {task.task_id}; choose another"
            )
        for name, content in evidence.items():
            write_bytes(folder / name, content)
        return
    with room_for(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        whole = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
        try:
            for name, content in (_files(task) | evidence).items():
                _write(whole / name, content)
            whole.chmod(0o755)
            whole.rename(folder)
        except BaseException:
            shutil.rmtree(whole, ignore_errors=True)
            raise


def load_task(folder: Path) -> Task:
    """Read a task folder back.

    Raises:
        TaskFolderError: it is missing, damaged, or its content is not what its id says.
    """
    try:
        recorded, task = _read(folder)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).partition("\n")[0]
        raise TaskFolderError(
            f"{folder} is no task folder that rollmill wrote ({first}); make the task again"
        ) from error
    if task.task_id != recorded.task_id:
        now = _digests(task)
        changed = [part for part in now if now[part] != recorded.digests.get(part)]
        raise TaskFolderError(
            f"{folder} should hold task {recorded.task_id}, but its {' and '.join(changed)} "
            f"changed, which makes it {task.task_id}; restore it or make the task again"
        )
    return task


def _read(folder: Path) -> tuple[_Rollmill, Task]:
    toml = tomllib.loads((folder / "task.toml").read_text(encoding="utf-8"))
    ours = _Rollmill.model_validate(toml["metadata"]["rollmill"])
    if ours.format != FORMAT:
        raise ValueError(f"its format is {ours.format}, this version reads {FORMAT}")
    seed, hidden = folder / "environment" / SEED, folder / "tests" / "hidden"
    workspace = WorkspaceSpec(
        image=ours.image,
        seed=seed.read_bytes() if seed.exists() else b"",
        env=ours.env,
        limits=ours.limits,
        network=ours.network,
        writable=ours.writable,
    )
    assets = sorted(path for path in hidden.rglob("*") if path.is_file())
    task = Task(
        family=ours.family,
        domain=ours.domain,
        instruction=(folder / "instruction.md").read_bytes().decode(),
        workspace=workspace,
        verifier=_VERIFIER.validate_json((folder / "tests/verifier.json").read_bytes()),
        hidden={path.relative_to(hidden).as_posix(): path.read_bytes() for path in assets},
        artifacts=ours.artifacts,
        solution=_MOVES.validate_json((folder / "solution/moves.json").read_bytes()),
        provenance=ours.provenance,
        budget=ours.budget,
    )
    return ours, task


def _files(task: Task) -> dict[str, bytes]:
    files = {
        "task.toml": tomli_w.dumps(_toml(task), multiline_strings=False).encode(),
        "instruction.md": task.instruction.encode(),
        "environment/Dockerfile": dockerfile(task).encode(),
        "solution/moves.json": _json([asdict(move) for move in task.solution]),
        "solution/solve.sh": solve_script(task.solution).encode(),
        "tests/verifier.json": _json(asdict(task.verifier)),
        "tests/test.sh": test_script(task).encode(),
    }
    if task.workspace.seed:
        files[f"environment/{SEED}"] = task.workspace.seed
    for name, content in task.hidden.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != name:
            raise ValueError(f"a hidden asset needs a plain relative path, got {name!r}")
        files[f"tests/hidden/{name}"] = content
    return files


def _toml(task: Task) -> dict[str, Any]:
    limits, hosts = task.workspace.limits, list(task.workspace.network)
    ours = {
        "format": FORMAT,
        "task_id": task.task_id,
        "family": task.family,
        "domain": task.domain,
        "image": task.workspace.image,
        "artifacts": list(task.artifacts),
        "env": dict(task.workspace.env),
        "limits": asdict(limits),
        **({"network": hosts} if hosts else {}),
        **({"writable": list(task.workspace.writable)} if task.workspace.writable else {}),
        "budget": asdict(task.budget),
        "provenance": asdict(task.provenance),
        "digests": _digests(task),
    }
    return {
        "schema_version": HARBOR_SCHEMA,
        "artifacts": [str(PurePosixPath(WORKDIR, path)) for path in task.artifacts],
        "task": {"name": f"rollmill/{task.task_id}", "keywords": [task.domain, task.family]},
        "metadata": {"category": task.family, "rollmill": ours},
        "agent": {"timeout_sec": float(task.budget.time_limit_s)} | _harbor_network(hosts),
        "verifier": {"timeout_sec": 600.0, "environment_mode": "separate"},
        "environment": {
            "network_mode": "no-network",
            "workdir": WORKDIR,
            "cpus": limits.cpus,
            "memory_mb": limits.memory_bytes // MIB,
            "storage_mb": limits.workspace_bytes // MIB,
            "env": dict(task.workspace.env),
        },
    }


def _harbor_network(hosts: Sequence[str]) -> dict[str, Any]:
    """While the agent acts; the environment's own mode, which the verifier has, stays closed."""
    names = sorted({host.partition(":")[0] for host in hosts})
    return {"network_mode": "allowlist", "allowed_hosts": names} if names else {}


def _digests(task: Task) -> dict[str, str]:
    """One digest per part, so that a changed folder can say which part it was."""
    bare = replace(
        task,
        instruction="",
        workspace=replace(task.workspace, seed=b""),
        verifier=VerifierSpec(name=""),
        hidden={},
        solution=(),
    )
    return {
        "instruction": content_digest(task.instruction),
        "seed": content_digest(task.workspace.seed),
        "verifier": content_digest(asdict(task.verifier)),
        "hidden assets": content_digest(dict(task.hidden)),
        "solution": content_digest([asdict(move) for move in task.solution]),
        "settings": content_digest(described(bare)),
    }


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if path.suffix == ".sh":
        path.chmod(0o755)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=False).encode() + b"\n"
