"""Providers by name, and the choice between them. Opens no workspace."""

from __future__ import annotations

import logging

from .base import Provider
from .bwrap import BwrapProvider
from .docker import DockerProvider
from .engine import ensure_engine

log = logging.getLogger(__name__)

PROVIDERS: dict[str, type[DockerProvider] | type[BwrapProvider]] = {
    "docker": DockerProvider,
    "bwrap": BwrapProvider,
}


def open_provider(name: str = "auto", *, run_id: str = "") -> Provider:
    """A provider by name; `auto` is Docker where an engine answers, else bubblewrap.

    Raises:
        ValueError: nobody has that name.
    """
    if name == "auto":
        name, why = choose()
        log.info("workspaces: %s (%s)", name, why)
    if name not in PROVIDERS:
        choices = ", ".join(["auto", *PROVIDERS])
        raise ValueError(f"unknown workspace provider {name!r}; choose one of: {choices}")
    return PROVIDERS[name](run_id=run_id)


def choose() -> tuple[str, str]:
    """What `auto` means on this machine now, and why."""
    engine = ensure_engine()
    return ("docker" if engine.ok else "bwrap"), engine.detail
