"""The command line: which commands there are, and how every one of them ends.

Importing this loads no Prefect, no torch and no engine, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from .. import __version__
from .commands import data, deploy, generate, images, machine, serve, tasks, train
from .errors import CANCELLED, exit_code, sentence

app = typer.Typer(
    name="rollmill",
    help="Executable workspaces into training data for agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate.generate)
app.add_typer(tasks.app, name="tasks")
app.add_typer(train.app, name="train")
app.command()(data.report)
app.command()(data.export)
app.command()(data.reverify)
app.command(context_settings=deploy.WITH_COMMAND)(deploy.deploy)
app.command()(serve.serve)
app.add_typer(images.app, name="images")
app.command()(machine.doctor)
app.command()(machine.clean)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rollmill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Executable workspaces into training data for agents."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and leave with 0 (done), 1 (the work failed), 2 (bad input) or 130."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = app(words, standalone_mode=False)
    except Exception as error:
        if words[:1] == ["--debug"]:
            raise
        code = _fail(error, as_json="--json" in words)
    if code == CANCELLED:  # Ctrl-C; caught by Typer, which says nothing
        typer.echo("rollmill: stopped; the same command goes on from here", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: Exception, *, as_json: bool) -> int:
    code = exit_code(error)
    if as_json:
        typer.echo(json.dumps({"error": sentence(error), "exit_code": code}))
    typer.echo(f"rollmill: {sentence(error)}", err=True)
    return code
