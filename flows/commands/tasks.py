"""`rollmill tasks`: make tasks without rolling out on them, look at them, check them again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from .generate import generate_config
from .running import ConfigFile, Json, heard, show

app = typer.Typer(help="Make, audit and show tasks.", no_args_is_help=True)
Folders = Annotated[
    list[Path], typer.Argument(help="Task folders, or runs for all tasks they hold.")
]


@app.command()
def make(
    out: Annotated[Path | None, typer.Option(help="Run directory.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Domains or families. [coding,cowork]")] = None,
    n: Annotated[int | None, typer.Option("--n", help="Tasks in all. [8]")] = None,
    source: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    split: Annotated[str | None, typer.Option(help="train, held_out or all. [train]")] = None,
    workspace: Annotated[str | None, typer.Option(help="auto, docker or bwrap. [auto]")] = None,
    seed: Annotated[int | None, typer.Option(help="[0]")] = None,
    concurrency: Annotated[int | None, typer.Option(help="[2 a CPU]")] = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Make admitted tasks, as Harbor task folders below OUT/tasks.

    Example: `rollmill tasks make --tasks bugs --n 20 --out runs/tasks`
    """
    settings = generate_config(
        config=config,
        out=out,
        tasks=tasks,
        n=n,
        source=source,
        split=split,
        workspace=workspace,
        seed=seed,
        concurrency=concurrency,
    )
    from ..checks import check_generate
    from ..progress import shown
    from ..session import opened_session

    async def made() -> list[str]:
        async with opened_session(settings) as session:
            return [task.task_id for task in await session.make_tasks()]

    check_generate(settings)
    with shown(quiet=json), heard():
        ids = asyncio.run(made())
    folder = settings.out / "tasks"
    result = {"tasks": [str(folder / task_id) for task_id in ids]}
    show(result, as_json=json, text=f"{len(ids)} tasks in {folder}")


@app.command()
def audit(
    folders: Folders,
    workspace: Annotated[str, typer.Option(help="auto, docker or bwrap.")] = "auto",
    json: Json = False,
) -> None:
    """Run the admission gate again: gold passes twice, doing nothing fails. Exit 1 if one does not.

    Example: `rollmill tasks audit runs/demo`
    """
    from ...pipelines.admission import Admission, admit
    from ...pipelines.taskfolder import load_task
    from ...workspaces import open_provider
    from ..progress import current, shown

    tasks = [load_task(folder) for folder in _task_folders(folders)]

    async def audited() -> list[Admission]:
        provider = open_provider(workspace)
        try:
            await provider.prepare(sorted({task.workspace.image for task in tasks}))
            found = []
            for task in tasks:
                found.append(await admit(task, provider))
                current().count("audit", found[-1].reason)
            return found
        finally:
            await provider.close()

    with shown(quiet=json), heard():
        current().begin("audit", len(tasks))
        admissions = asyncio.run(audited())
    result = {"tasks": {one.task_id: one.reason for one in admissions}}
    lines = (f"{one.task_id}  {one.reason}  {one.wall_s:.1f} s" for one in admissions)
    show(result, as_json=json, text="\n".join(lines))
    if not all(one.admitted for one in admissions):
        raise typer.Exit(1)


@app.command("show")
def show_tasks(folders: Folders, json: Json = False) -> None:
    """What tasks ask, where they came from, and how they are judged.

    Example: `rollmill tasks show runs/demo/tasks/0a1b2c3d4e5f6a7b`
    """
    from ...pipelines.taskfolder import load_task

    facts = []
    for folder in _task_folders(folders):
        task = load_task(folder)
        facts.append(
            {
                "task_id": task.task_id,
                "family": task.family,
                "source": task.provenance.source,
                "licence": task.provenance.licence,
                "image": task.workspace.image,
                "verifier": task.verifier.name,
                "detail": dict(task.provenance.detail),
                "instruction": task.instruction,
            }
        )
    show({"tasks": facts}, as_json=json, text="\n\n".join(map(_described, facts)))


def _described(fact: dict[str, Any]) -> str:
    head = [f"{name}: {value}" for name, value in fact.items() if name != "instruction"]
    return "\n".join([*head, "", fact["instruction"]])


def _task_folders(paths: list[Path]) -> list[Path]:
    found = []
    for path in paths:
        inside = path / "tasks"
        found += sorted(inside.iterdir()) if inside.is_dir() else [path]
    return found
