"""`rollmill tasks`: make tasks without rolling out on them, look at them, check them again."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .generate import generate_config
from .running import ConfigFile, Gate, GateRuns, Json, Judges, heard, show

if TYPE_CHECKING:
    from ...pipelines.admission import Admission

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
    judge: Judges = None,
    gate: Gate = None,
    gate_runs: GateRuns = None,
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
        judge=judge,
        gate=gate,
        gate_runs=gate_runs,
        seed=seed,
        concurrency=concurrency,
    )
    from ...pipelines.rollout.judging import opened_judges
    from ..checks import check_generate
    from ..progress import shown
    from ..session import opened_session

    async def made() -> list[str]:
        async with opened_judges(settings.judge) as judges, opened_session(settings) as session:
            return [task.task_id for task in await session.make_tasks(judges)]

    check_generate(settings)
    with shown(quiet=json), heard():
        ids = asyncio.run(made())
    folder = settings.out / "tasks"
    result = {"tasks": [str(folder / task_id) for task_id in ids]}
    show(result, as_json=json, text=f"{len(ids)} tasks in {folder}")


@app.command()
def audit(
    folders: Folders,
    runs: Annotated[int, typer.Option(min=1, help="Of the gold solution, and of nothing.")] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only what `generate` tries: a part of the battery.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Also write the tasks that hold, without flaky tests, to OUT/tasks."),
    ] = None,
    judge: Judges = None,
    workspace: Annotated[str, typer.Option(help="auto, docker or bwrap.")] = "auto",
    json: Json = False,
) -> None:
    """Run the whole admission gate and keep the evidence in each folder. Exit 1 if a task fails, or
    would lose a flaky test and is not written anew.

    Example: `rollmill tasks audit runs/demo --out runs/audited`
    """
    from dataclasses import replace

    from ...pipelines.admission import FULL, QUICK, admit
    from ...pipelines.rollout.judging import opened_judges
    from ...pipelines.taskfolder import load_task, save_task
    from ...workspaces import open_provider
    from ..checks import check_judges
    from ..progress import current, shown

    plan = QUICK if quick else replace(FULL, at_once=2 * (os.cpu_count() or 1))
    plan = replace(plan, runs=runs)
    tasks = {folder: load_task(folder) for folder in task_folders(folders)}
    check_judges(tasks.values(), judge or [])

    async def audited() -> list[Admission]:
        provider = open_provider(workspace)
        try:
            await provider.prepare(sorted({task.workspace.image for task in tasks.values()}))
            found = []
            async with opened_judges(judge or []) as judges:
                for folder, task in tasks.items():
                    found.append(await admit(task, provider, plan=plan, judges=judges))
                    evidence = found[-1].evidence()
                    save_task(task, folder, admission=evidence)
                    if out is not None and found[-1].admitted:
                        held = found[-1].task
                        save_task(held, out / "tasks" / held.task_id, admission=evidence)
                    current().count("audit", found[-1].reason)
            return found
        finally:
            await provider.close()

    with shown(quiet=json), heard():
        current().begin("audit", len(tasks))
        admissions = asyncio.run(audited())
    audits = {folder.name: _audit_facts(one) for folder, one in zip(tasks, admissions, strict=True)}
    result = {"tasks": {name: facts["reason"] for name, facts in audits.items()}, "audits": audits}
    lines = (f"{name}  {_audit_line(facts)}" for name, facts in audits.items())
    show(result, as_json=json, text="\n".join(lines))
    if not all(one.admitted and (out or not one.dropped) for one in admissions):
        raise typer.Exit(1)


def _audit_facts(one: Admission) -> dict[str, Any]:
    return {
        "reason": one.reason,
        "detail": one.detail,
        "verifier_strength": one.verifier_strength,
        "mutants": one.mutants,
        "survivors": list(one.survivors),
        "cheats": len(one.cheats),
        "dropped": list(one.dropped),
        "agreement": one.agreement,
        "agreements": one.agreements,
        "wall_s": one.wall_s,
        "bytes": one.task_bytes,
    }


def _audit_line(facts: dict[str, Any]) -> str:
    strength = facts["verifier_strength"]
    told = "no mutants" if strength is None else f"strength {strength:.2f} of {facts['mutants']}"
    line = f"{facts['reason']}  {told}, {facts['cheats']} cheats, {facts['wall_s']:.1f} s"
    more = [f"  why: {facts['detail']}"] if facts["detail"] else []
    more += [f"  {line}" for line in facts["agreements"]]
    more += [f"  flaky, to be dropped: {name}" for name in facts["dropped"]]
    more += [f"  survives: {label}" for label in facts["survivors"]]
    return "\n".join([line, *more])


@app.command("show")
def show_tasks(folders: Folders, json: Json = False) -> None:
    """What tasks ask, where they came from, and how they are judged.

    Example: `rollmill tasks show runs/demo/tasks/0a1b2c3d4e5f6a7b`
    """
    from ...pipelines.taskfolder import load_task

    facts = []
    for folder in task_folders(folders):
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


def task_folders(paths: list[Path]) -> list[Path]:
    """The task folders that paths mean, each of which is one or a run."""
    found = []
    for path in paths:
        inside = path / "tasks"
        found += sorted(inside.iterdir()) if inside.is_dir() else [path]
    return found
