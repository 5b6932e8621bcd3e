"""Providers by name, and the choice between them. Opens no workspace."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .base import Provider
from .bwrap import BwrapProvider
from .dialling import addresses
from .docker import DockerProvider
from .engine import ensure_engine
from .fleet import Fleet
from .pool import PooledProvider

log = logging.getLogger(__name__)

PROVIDERS: dict[str, Callable[[str, int | None], Provider]] = {
    "docker": lambda run_id, starts: PooledProvider(_engines(run_id), starts=starts),
    "bwrap": lambda run_id, starts: PooledProvider(
        BwrapProvider(run_id=run_id), starts=starts, reuses=1
    ),
}
"""Name -> what opens workspaces, given the id of the run and how many may be started at once."""


def open_provider(name: str = "auto", *, run_id: str = "", starts: int | None = None) -> Provider:
    """A provider by name; `auto` is Docker where an engine answers, else bubblewrap.

    Args:
        run_id: whose workspaces they are.
        starts: how many may be started at once, where starting costs; None = one a CPU.

    Raises:
        ValueError: nobody has that name.
    """
    if name == "auto":
        name, why = choose()
        log.info("workspaces: %s (%s)", name, why)
    if name not in PROVIDERS:
        choices = ", ".join(["auto", *PROVIDERS])
        raise ValueError(f"unknown workspace provider {name!r}; choose one of: {choices}")
    return PROVIDERS[name](run_id, starts)


def _engines(run_id: str) -> DockerProvider | Fleet:
    engines = addresses()
    if len(engines) == 1:
        return DockerProvider(run_id=run_id, engine=engines[0])
    return Fleet(engines, run_id=run_id)


def choose() -> tuple[str, str]:
    """What `auto` means on this machine now, and why."""
    engine = ensure_engine()
    return ("docker" if engine.ok else "bwrap"), engine.detail
