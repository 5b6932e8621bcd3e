"""Runs that start on a schedule: each gets a folder and a seed of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from prefect.runtime import flow_run

from .config import GenerateConfig, SftConfig

START = "{start}"
ConfigT = TypeVar("ConfigT", GenerateConfig, SftConfig)


def at_start(config: ConfigT) -> ConfigT:
    """`config` with `{start}` in its `out` replaced by the time the flow run was due.

    The time is also added to the seed, or each start would make the same data.
    """
    if START not in str(config.out):
        return config
    due = flow_run.get_scheduled_start_time() or datetime.now(UTC)
    out = Path(str(config.out).replace(START, f"{due:%Y%m%d-%H%M%S}"))
    return config.model_copy(update={"out": out, "seed": config.seed + int(due.timestamp())})
