"""What every command that makes tasks opens. Bad input is met before anything is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import platformdirs

from ..pipelines.admission import plan_of
from ..pipelines.dataset.store import Run
from ..pipelines.families import family_names, get_family
from ..pipelines.rollout.policy import Policy
from ..pipelines.task import Task
from ..workspaces import Provider, open_provider
from .config import GenerateConfig
from .sources import choose_sources
from .tasks import Supply, make_tasks, prepare_supplies


@dataclass(frozen=True, kw_only=True)
class Session:
    """A run directory open for writing, and all that fills it."""

    config: GenerateConfig
    run: Run
    provider: Provider
    image_digests: Mapping[str, str]
    supplies: Sequence[Supply]

    async def make_tasks(self, judges: Sequence[Policy] = ()) -> list[Task]:
        """The tasks of the run; those already recorded are taken as they are.

        Args:
            judges: who judges where a rubric does.
        """
        return await make_tasks(
            self.run,
            self.supplies,
            seed=self.config.seed,
            provider=self.provider,
            concurrency=self.config.concurrency,
            judges=judges,
            plan=plan_of(self.config.gate, self.config.gate_runs),
        )


@asynccontextmanager
async def opened_session(config: GenerateConfig) -> AsyncIterator[Session]:
    """Make engine, images and sources ready, then open the run directory.

    Raises:
        UnknownFamily, SourceError: what tasks are to be made from cannot be used.
        EngineUnavailable, ImageError: there is nowhere to run.
        RunError: the directory cannot be used.
    """
    families = [get_family(name) for name in family_names(config.tasks)]
    chosen = choose_sources(families, config.source, config.split)
    provider = open_provider(
        config.workspace, run_id=config.run_id, starts=config.setup_concurrency
    )
    try:
        images = sorted({image for family in families for image in family.images})
        digests = await provider.prepare(images)
        supplies = await prepare_supplies(
            families,
            chosen,
            n=config.n,
            seed=config.seed,
            provider=provider,
            cache=platformdirs.user_cache_path("rollmill"),
            concurrency=config.concurrency,
        )
        identity = config.identity() | {"workspace": provider.name}
        with Run.open(config.out, identity) as run:
            yield Session(
                config=config,
                run=run,
                provider=provider,
                image_digests=digests,
                supplies=supplies,
            )
    finally:
        await provider.close()
