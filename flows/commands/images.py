"""`rollmill images`: what our images take, building them ahead, and making room."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .running import Json, heard, show

if TYPE_CHECKING:
    import docker

    from ...workspaces.imagestore import Stored

app = typer.Typer(help="Show, build and remove images.", no_args_is_help=True)
MIB = 1 << 20


@app.command("ls")
def list_images(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Runs or task folders: also bytes per task.")
    ] = None,
    json: Json = False,
) -> None:
    """Our images on each engine: platform, size, what is shared with others, when last used.

    Example: `rollmill images ls runs/demo`
    """
    from ...workspaces.imagestore import stored, total_bytes

    with _engines() as answering:
        engines = {engine.removeprefix("http+"): stored(client) for engine, client in answering}
    tasks = _per_task(runs or [], [one for found in engines.values() for one in found])
    facts = {
        engine: {
            "images": [_facts(one) for one in found],
            "total_bytes": total_bytes(found),
        }
        for engine, found in engines.items()
    }
    show({"engines": facts, "tasks": tasks}, as_json=json, text=_table(engines, tasks))


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(help="[all that we define]")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Built at once.")] = 2,
    json: Json = False,
) -> None:
    """Build images ahead of their use, on the first engine that answers.

    Example: `rollmill images build python office --jobs 2`
    """
    from ...workspaces import images
    from ..progress import current, shown

    wanted = names or sorted(images.SPECS)
    for name in wanted:
        images.tag_of(name)  # an unknown one is met before anything is built
    with _engines() as engines, shown(quiet=json), heard():
        _, client = next(engines)
        current().begin("images", len(wanted))
        digests = images.ensure_all(
            client,
            wanted,
            jobs=jobs,
            done=lambda name, seconds: current().count("images", f"{name} {seconds:.0f} s"),
        )
    text = "\n".join(f"{name} {images.tag_of(name)} {digest}" for name, digest in digests.items())
    show({"images": digests}, as_json=json, text=text)


@app.command()
def gc(
    keep_mib: Annotated[
        int | None, typer.Option(min=0, help="Evict the least recently used down to this.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Remove images of ours that a changed specification superseded; with --keep-mib, more.

    Images that a container uses stay, and so do images of others.

    Example: `rollmill images gc --keep-mib 2000`
    """
    from ...workspaces.imagestore import remove, stored, to_evict

    gone: list[Stored] = []
    keep_bytes = None if keep_mib is None else keep_mib * MIB
    with _engines() as engines:
        for _, client in engines:
            going = to_evict(stored(client), keep_bytes=keep_bytes)
            gone += going if dry_run else remove(client, going)
    freed = sum(one.unique_bytes for one in gone)
    verb = "would free" if dry_run else "freed"
    lines = [f"{one.tag} ({one.state}, {one.unique_bytes // MIB} MiB)" for one in gone]
    text = "\n".join([*lines, f"{verb} about {freed // MIB} MiB"])
    removed = [one.tag for one in gone]
    show({"removed": removed, "freed_bytes": freed, "dry_run": dry_run}, as_json=json, text=text)


@contextlib.contextmanager
def _engines() -> Iterator[Iterator[tuple[str, docker.APIClient]]]:
    """The engines that answer.

    Raises:
        EngineUnavailable: none does; says what to do.
    """
    from ...workspaces.cleaning import answering
    from ...workspaces.engine import connect

    with contextlib.closing(answering()) as engines:
        first = next(engines, None)
        if first is None:
            connect()[0].close()  # says why
            return
        yield itertools.chain([first], engines)


def _facts(one: Stored) -> dict[str, Any]:
    return asdict(one) | {"unique_bytes": one.unique_bytes}


def _per_task(paths: list[Path], found: list[Stored]) -> dict[str, dict[str, float]]:
    """Image name -> how many tasks use it, their own bytes, and the image's bytes for each."""
    from ...pipelines.taskfolder import load_task
    from .tasks import task_folders

    counts, own = Counter[str](), Counter[str]()
    for folder in task_folders(paths):
        task = load_task(folder)
        counts[task.workspace.image] += 1
        own[task.workspace.image] += len(task.workspace.seed)
        own[task.workspace.image] += sum(map(len, task.hidden.values()))
    size = {one.name: one.bytes for one in found if one.state == "current"}
    return {
        name: {
            "tasks": n,
            "unique_bytes_per_task": own[name] / n,
            "shared_bytes_per_task": size.get(name, 0) / n,
        }
        for name, n in counts.items()
    }


def _table(engines: dict[str, list[Stored]], tasks: dict[str, dict[str, float]]) -> str:
    lines = []
    for engine, found in engines.items():
        lines.append(f"{engine}:")
        for one in found:
            used = "never here" if one.used_s is None else f"{_age(time.time() - one.used_s)} ago"
            lines.append(
                f"  {one.tag}  {one.platform}  {one.bytes // MIB} MiB "
                f"({one.unique_bytes // MIB} its own, {one.shared_bytes // MIB} shared)  "
                f"{one.state}, used {used}"
            )
    for name, facts in tasks.items():
        lines.append(
            f"{name}: {facts['tasks']:.0f} tasks, a task {facts['unique_bytes_per_task']:.0f} "
            f"bytes its own and {facts['shared_bytes_per_task'] / MIB:.1f} MiB of the image"
        )
    return "\n".join(lines) or "no image of ours"


def _age(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
