"""`rollmill generate`: tasks, episodes, a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .running import (
    ConfigFile,
    Gate,
    GateRuns,
    Json,
    Judges,
    given,
    next_steps,
    run_flow,
    show,
    split_list,
)

if TYPE_CHECKING:
    from ..config import GenerateConfig


def generate(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option(help="Run directory; give it again to resume.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Domains or families, comma-separated. [coding,cowork]")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="Tasks in all. [8]")] = None,
    group: Annotated[
        int | None, typer.Option(help="Episodes of each task by each policy. [1]")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="bundled, gold, null or openai:URL#MODEL; may be repeated. [gold]"),
    ] = None,
    judge: Judges = None,
    gate: Gate = None,
    gate_runs: GateRuns = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="A shipped source, name==version on PyPI, a folder or a git URL; "
            "may be repeated. [those that ship]"
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Shipped sources: train, held_out or all. [train]")
    ] = None,
    workspace: Annotated[str | None, typer.Option(help="auto, docker or bwrap. [auto]")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 = greedy. [1.0]")] = None,
    top_p: Annotated[float | None, typer.Option(help="[0.95]")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 = no limit. [40]")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed makes other tasks. [0]")] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Agents at work at once. [2 a CPU]")
    ] = None,
    setup_concurrency: Annotated[int | None, typer.Option(help="At once. [1 a CPU]")] = None,
    grading_concurrency: Annotated[int | None, typer.Option(help="At once. [2 a CPU]")] = None,
    shard_size: Annotated[int | None, typer.Option(help="Episodes in one shard. [64]")] = None,
    retries: Annotated[int | None, typer.Option(help="After a failure of ours. [2]")] = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Make tasks, roll policies out on them, and write a dataset.

    Examples:

    `rollmill generate --tasks coding --n 20 --policy gold --out runs/demo`

    `rollmill generate --n 100 --group 4 --policy openai:http://localhost:8000/v1#m2 --out runs/m2`

    `rollmill generate --config nightly.toml --seed 7 --out runs/nightly`
    """
    settings = generate_config(**given(context))
    from ..checks import check_generate

    check_generate(settings)
    result = run_flow(_flow, settings, quiet=json)
    show(result, as_json=json, text=_summary(result))


def generate_config(config: Path | None, tasks: str | None, **flags: Any) -> GenerateConfig:
    """The configuration that flags and file give.

    Raises:
        ConfigError: a value cannot be used.
    """
    from ..config import GenerateConfig, load_config

    return load_config(GenerateConfig, flags | {"tasks": split_list(tasks)}, config)


def _flow() -> Any:
    from ..generate import generate as flow

    return flow


def _summary(result: dict[str, Any]) -> str:
    outcomes = ", ".join(f"{name} {count}" for name, count in result["outcomes"].items())
    counts = f"{result['tasks']} tasks, {result['episodes']} episodes: {outcomes}"
    return f"{counts}\n{next_steps(Path(result['run']), 'report')}"
