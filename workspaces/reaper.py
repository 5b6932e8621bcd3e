"""Finds containers of ours that nobody owns any more, and removes them: by lease, never by name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import platformdirs

from .dialling import address_of, addresses
from .engine import ENGINE_ERRORS, connect
from .ledger import Ledger
from .tunnel import reached

LABEL = "rollmill"
RUN_LABEL = "rollmill.run"
HOLDER_LABEL = "rollmill.holder"
LEASE_LABEL = "rollmill.lease"
EXPIRES_LABEL = "rollmill.expires"
"""Unix seconds after which a container may be reaped by who does not know its lease."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Owned:
    """One container of ours on an engine."""

    container: str
    name: str
    run: str
    lease: str
    lives: bool
    """Whether its owner is at work; where another machine's ledger has the lease, its label says
    until when that is taken for granted."""


def default_ledger() -> Ledger:
    """The ledger of this user on this machine."""
    return Ledger(Path(platformdirs.user_state_dir("rollmill")) / "leases.sqlite")


def labels(*, run: str, holder: str, lease: str, lifetime_s: float) -> dict[str, str]:
    """What a container carries.

    Args:
        lifetime_s: a workspace may be renewed until it is this old, and lives as long again.
    """
    expires = int(time.time() + 2 * lifetime_s + 600)
    return {
        LABEL: "1",
        RUN_LABEL: run,
        HOLDER_LABEL: holder,
        LEASE_LABEL: lease,
        EXPIRES_LABEL: str(expires),
    }


def owned(client: docker.APIClient, ledger: Ledger) -> list[Owned]:
    """Every container of ours on an engine, whatever its run."""
    found = client.containers(all=True, filters={"label": LABEL})
    return [_owned(container, ledger) for container in found]


def _owned(container: Mapping[str, Any], ledger: Ledger) -> Owned:
    marks = container["Labels"]
    lease = marks.get(LEASE_LABEL, "")
    lives = ledger.lives(lease)
    if lives is None:  # a container without a lease is not for us to judge
        lives = time.time() < float(marks.get(EXPIRES_LABEL, "inf"))
    return Owned(
        container=container["Id"],
        name=container["Names"][0].lstrip("/"),
        run=marks.get(RUN_LABEL, ""),
        lease=lease,
        lives=lives,
    )


def reap(
    client: docker.APIClient, ledger: Ledger, *, engine: str = "", running: bool = False
) -> list[str]:
    """Remove the containers whose owners are dead, and forget these owners; returns names.

    Args:
        engine: the address the client was made from.
        running: also those whose owners are alive.
    """
    removed = []
    for one in owned(client, ledger):
        if running or not one.lives:
            remove(client, one.container)
            ledger.end(one.lease)
            removed.append(one.name)
    for holder in ledger.holders():
        if not holder["lives"] and holder["engine"] == address_of(engine):
            ledger.let_go(holder["holder"])
    return removed


def remove(client: docker.APIClient, container: str) -> None:
    """Remove a container at once; it may be on its way out already. Blocks."""
    with contextlib.suppress(*ENGINE_ERRORS):
        client.remove_container(container, force=True, v=True)


def held(client: docker.APIClient, holder: str) -> list[str]:
    """The ids of the containers of one holder."""
    found = client.containers(all=True, filters={"label": f"{HOLDER_LABEL}={holder}"})
    return [container["Id"] for container in found]


def remove_held(holder: str, engine: str) -> None:
    """Remove the containers of one holder, twice: a last request may still be under way."""
    with reached(engine) as address, contextlib.closing(connect(address)[0]) as client:
        for _ in range(2):
            for container in held(client, holder):
                remove(client, container)
            time.sleep(1)


def leftovers(run_id: str | None = None) -> list[str]:
    """Names of our containers that exist now; of one run, or of all when `run_id` is None.

    Raises:
        EngineUnavailable: no engine answers.
    """
    label = LABEL if run_id is None else f"{RUN_LABEL}={run_id}"
    found: list[Mapping[str, Any]] = []
    for engine in addresses():
        with reached(engine) as address, contextlib.closing(connect(address)[0]) as client:
            found += client.containers(all=True, filters={"label": label})
    return sorted(container["Names"][0].lstrip("/") for container in found)
