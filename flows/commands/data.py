"""`rollmill report` and `rollmill export`: what a run holds, and giving it to others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .running import Json, Judges, next_steps, show

if TYPE_CHECKING:
    from ...pipelines.dataset.export import ExportSummary

Runs = Annotated[list[Path], typer.Argument(help="Run directories.")]


def report(
    runs: Runs,
    plot: Annotated[Path | None, typer.Option(help="Also write the funnel as a PNG.")] = None,
    json: Json = False,
) -> None:
    """The funnel of runs: proposals, tasks, episodes, with time, bytes and tokens.

    Example: `rollmill report runs/demo --plot funnel.png`
    """
    from rich.console import Console

    from ...pipelines.dataset.report import make_report
    from ...pipelines.dataset.report_view import plot as draw
    from ...pipelines.dataset.report_view import tables

    found = make_report(runs)
    if plot is not None:
        draw(found, plot)
    if json:
        typer.echo(found.to_json())
    else:
        Console().print(tables(found))
        for run in runs:
            typer.echo(next_steps(run, "tasks show"))


def export(
    runs: Runs,
    to: Annotated[str, typer.Option(help="A new folder, or hf://owner/name.")],
    keep: Annotated[str, typer.Option(help="all, scored or passed episodes.")] = "scored",
    test_source: Annotated[
        list[str] | None,
        typer.Option(help="A source for the test split; may be repeated. [by hash of the source]"),
    ] = None,
    public: Annotated[bool, typer.Option(help="Of a Hub repository that is new.")] = False,
    json: Json = False,
) -> None:
    """Parquet files with a dataset card, split by source, to a folder or the Hugging Face Hub.

    Examples:

    `rollmill export runs/demo --to demo-dataset`

    `rollmill export runs/a runs/b --keep passed --to hf://me/agent-demos`
    """
    from dataclasses import asdict
    from typing import get_args

    from ...pipelines.dataset.export import Keep
    from ...pipelines.dataset.export import export as write
    from ..config import ConfigError

    kinds: tuple[Keep, ...] = get_args(Keep)
    kept = next((kind for kind in kinds if kind == keep), None)
    if kept is None:
        raise ConfigError(f"--keep must be one of {', '.join(kinds)}, got {keep!r}")
    summary = write(runs, to, keep=kept, held_out=test_source, private=not public)
    show(asdict(summary), as_json=json, text=_exported(summary))


def _exported(summary: ExportSummary) -> str:
    splits = ", ".join(f"{split} {rows}" for split, rows in summary.splits.items())
    left_out = f"{summary.dropped} left out, {summary.repeated} repeated"
    return f"{summary.to}: {splits} rows ({left_out})"


def reverify(
    run: Annotated[Path, typer.Argument(help="A run directory; it is not changed.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write a run with the new verdicts.")
    ] = None,
    judge: Judges = None,
    workspace: Annotated[str, typer.Option(help="auto, docker or bwrap.")] = "auto",
    json: Json = False,
) -> None:
    """Score the stored artifacts of a run again, without any policy, and print what changed.

    Example: `rollmill reverify runs/demo --out runs/demo-2`
    """
    import asyncio
    import os

    from ...pipelines import reverify as again
    from ...pipelines.dataset.store import read_tasks
    from ...pipelines.rollout.judging import opened_judges
    from ...workspaces import open_provider
    from ..checks import check_judges
    from ..progress import current, shown
    from .running import heard

    tasks, at_once = read_tasks(run), 2 * (os.cpu_count() or 1)
    check_judges(tasks.values(), judge or [])

    async def judged() -> list[again.Change]:
        provider = open_provider(workspace)
        try:
            await provider.prepare(sorted({task.workspace.image for task in tasks.values()}))
            found = []
            async with opened_judges(judge or []) as judges:
                changes = again.reverify(
                    run, provider, at_once=at_once, judges=judges, say=current().say
                )
                async for change in changes:
                    found.append(change)
                    current().count("reverify", change.now.outcome)
            return found
        finally:
            await provider.close()

    with shown(quiet=json), heard():
        current().begin("reverify", 0)
        changes = asyncio.run(judged())
    if out is not None:
        again.save_reverified(changes, run, out)
    differing = [str(change) for change in changes if change.differs]
    counts = again.summary(changes)
    told = ", ".join(f"{turn}: {n}" for turn, n in counts.items())
    text = "\n".join([*differing, f"{len(differing)} of {len(changes)} verdicts changed ({told})"])
    result = {"episodes": len(changes), "outcomes": counts, "changed": differing}
    show(result, as_json=json, text=text)
