"""Prefect deployments: a flow, its configuration and a schedule, on a server that stays.

Workers of a `process` pool carry them out: `prefect worker start --pool NAME`, on any machine with
this package. The server and the workers are not started here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Flow, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import WorkPool
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType

from .config import ConfigError, GenerateConfig, SftConfig
from .generate import generate
from .start import START
from .train import train_sft

FLOWS: Mapping[type[GenerateConfig] | type[SftConfig], Flow[Any, Any]] = {
    GenerateConfig: generate,
    SftConfig: train_sft,
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When to start: one of the two is set."""

    cron: str | None = None
    interval_s: float | None = None

    def __post_init__(self) -> None:
        if (self.cron is None) == (self.interval_s is None):
            raise ConfigError("expected exactly one of --cron and --interval; give one of them")


def deploy(
    config: GenerateConfig | SftConfig, schedule: Schedule, *, name: str, work_pool: str
) -> dict[str, Any]:
    """Create or replace the deployment `name` of the flow that `config` belongs to.

    Each start gets a folder and a seed of its own: see `start.py`.

    Raises:
        ConfigError: the server does not take the schedule, or the pool is of another type.
    """
    flow = FLOWS[type(config)]
    settings = _anywhere(config)
    with get_client(sync_client=True) as client:
        try:
            _demand_process(client.read_work_pool(work_pool))
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=work_pool, type="process"))
    try:
        deployment = RunnerDeployment.from_flow(
            flow,
            name,
            cron=schedule.cron,
            interval=schedule.interval_s,
            parameters={"config": settings.model_dump(mode="json")},
            work_pool_name=work_pool,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    except ValueError as error:
        raise ConfigError(f"expected a cron expression, got {schedule.cron!r}: {error}") from error
    return {
        "deployment": f"{flow.name}/{name}",
        "id": str(deployment.apply()),
        "work_pool": work_pool,
        "out": str(settings.out),
    }


def _demand_process(pool: WorkPool) -> None:
    if pool.type != "process":
        raise ConfigError(
            f"expected a work pool of type 'process', but {pool.name!r} is {pool.type!r}; "
            "choose another --work-pool, it is made when missing"
        )


def _anywhere(config: GenerateConfig | SftConfig) -> GenerateConfig | SftConfig:
    """The same, wherever the worker stands and however often it starts."""
    out = config.out if START in str(config.out) else config.out / START
    update: dict[str, Any] = {"out": out.absolute()}
    if isinstance(config, SftConfig):
        update["data"] = tuple(str(Path(pattern).absolute()) for pattern in config.data)
    else:
        update["source"] = tuple(map(_absolute_folder, config.source))
    return config.model_copy(update=update)


def _absolute_folder(source: str) -> str:
    return str(Path(source).absolute()) if Path(source).is_dir() else source
