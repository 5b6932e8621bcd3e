"""What commands share: option types, results on standard output, running a flow."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Judges = Annotated[
    list[str] | None,
    typer.Option("--judge", help="openai:URL#MODEL, for rubrics; several are a panel. [none]"),
]
Gate = Annotated[
    str | None,
    typer.Option("--gate", help="quick or full: how much is tried on each task. [quick]"),
]
GateRuns = Annotated[
    int | None,
    typer.Option("--gate-runs", help="Of the gold solution, and of nothing. [3]"),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with the same settings; flags win.")
]


def split_list(text: str | None) -> list[str] | None:
    """`a, b` -> `["a", "b"]`; None stays None: the flag was not given."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def given(context: typer.Context) -> dict[str, Any]:
    """The flags of a command by name, without `json`; None = not given."""
    return {name: value for name, value in context.params.items() if name != "json"}


def show(result: dict[str, Any], *, as_json: bool, text: str) -> None:
    """The result of a command, for a machine or a person."""
    typer.echo(json.dumps(result) if as_json else text)


def next_steps(run: Path, look: str) -> str:
    """Where the dataset of a run lies and three commands to go on with.

    Args:
        look: the first of them, a command of ours that takes the run.
    """
    return (
        f"dataset: {run}/shards (Arrow); next:\n"
        f"  rollmill {look} {run}\n"
        f"  rollmill export {run} --to {run}-export\n"
        f"  rollmill train sft {run} --out {run}-sft"
    )


def run_flow(
    load: Callable[[], Callable[..., Any]],
    config: Any,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Run a Prefect flow to its end with progress on standard error.

    Args:
        load: imports the flow; called once Prefect knows its server and home.
    """
    from ..orchestrator import orchestrated
    from ..progress import shown

    with orchestrated(load) as flow, shown(quiet=quiet), heard():
        from prefect.exceptions import TerminationSignal

        try:
            result = flow(config)
            return asyncio.run(result) if inspect.iscoroutine(result) else result
        except TerminationSignal as stop:  # SIGTERM ends us as Ctrl-C does
            raise KeyboardInterrupt from stop


@contextmanager
def heard() -> Iterator[None]:
    """Inside the block, what our modules log is shown with the progress."""
    logger = logging.getLogger("rollmill")
    level, propagate, handler = logger.level, logger.propagate, _Spoken()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Spoken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from ..progress import current

        current().say(record.getMessage())
