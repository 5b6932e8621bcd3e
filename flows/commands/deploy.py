"""`rollmill deploy`: a command on a schedule."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import generate, train
from .running import Json, show

if TYPE_CHECKING:
    from ..config import GenerateConfig, SftConfig

WITH_COMMAND = {"allow_extra_args": True, "ignore_unknown_options": True}


def deploy(
    ctx: typer.Context,
    cron: Annotated[str | None, typer.Option(help='When, as in "0 2 * * *" (UTC).')] = None,
    interval: Annotated[float | None, typer.Option(help="Seconds between starts.")] = None,
    name: Annotated[str, typer.Option(help="Of the deployment.")] = "scheduled",
    work_pool: Annotated[str, typer.Option(help="Of type process; made when missing.")] = (
        "rollmill"
    ),
    json: Json = False,
) -> None:
    """Put a command on a schedule of the Prefect server at PREFECT_API_URL.

    What stands behind `--` is what each start runs, in a folder of its own below its --out.

    Examples:

    `rollmill deploy --cron "0 2 * * *" -- generate --tasks coding --n 200 --out runs/nightly`

    `rollmill deploy --cron "0 6 * * *" -- train sft 'runs/nightly/*' --out runs/nightly-sft`
    """
    from ..config import ConfigError
    from ..orchestrator import orchestrated

    config = _parsed(ctx.args)
    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            "a schedule needs a Prefect server that stays; start one (`prefect server start`) "
            "and set PREFECT_API_URL to its address, such as http://127.0.0.1:4200/api"
        )
    with orchestrated():
        from ..deploy import Schedule
        from ..deploy import deploy as create

        schedule = Schedule(cron=cron, interval_s=interval)
        made = create(config, schedule, name=name, work_pool=work_pool)
    text = (
        f"{made['deployment']} writes to {made['out']}; its runs start once a worker is up:\n"
        f"  prefect worker start --pool {work_pool}"
    )
    show(made, as_json=json, text=text)


def _parsed(words: Sequence[str]) -> GenerateConfig | SftConfig:
    """The configuration of the command that `words` are."""
    from ..checks import check_generate
    from ..config import ConfigError

    if words[:1] == ["generate"]:
        config = generate.generate_config(**_flags(generate.generate, words[1:]))
        check_generate(config)
        return config
    if words[:2] == ["train", "sft"]:
        return train.sft_config(**_flags(train.sft, words[2:]))
    raise ConfigError(
        f"expected `-- generate …` or `-- train sft …` at the end, got {' '.join(words)!r}"
    )


def _flags(command: Any, words: Sequence[str]) -> dict[str, Any]:
    app = typer.Typer(add_completion=False)
    app.command()(command)
    with typer.main.get_command(app).make_context(command.__name__, list(words)) as context:
        return {name: value for name, value in context.params.items() if name != "json"}
