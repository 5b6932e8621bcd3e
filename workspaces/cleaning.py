"""What of ours lies on this machine though nobody uses it any more, and how it is removed.

Containers go by lease, the rest by the process that made it. What a living run uses is kept.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from .bootstrap import SCRATCH_PREFIX
from .bwrap import CGROUP_PREFIX, writable_cgroups
from .dialling import addresses
from .engine import ENGINE_ERRORS, connect
from .errors import EngineUnavailable
from .ledger import Ledger
from .reaper import LABEL, Owned, default_ledger, owned, reap
from .tunnel import reached


@dataclass(kw_only=True, slots=True)
class Holdings:
    """What there is of ours."""

    dead: list[str] = field(default_factory=list)
    """Left behind: names of containers, folders of scratch, cgroups, holders in the ledger."""
    living: list[str] = field(default_factory=list)
    """Containers of runs that are at work, each with its run."""
    images: list[str] = field(default_factory=list)
    """Our images and volumes, by name."""
    ledger: Path


def holdings() -> Holdings:
    """Look at the engines, the ledger and the scratch folders. Changes nothing. Blocks."""
    ledger = default_ledger()
    found = Holdings(ledger=ledger.path, dead=[str(path) for path in _scratch()])
    for _, client in answering():
        for one in owned(client, ledger):
            (found.living if one.lives else found.dead).append(_described(one))
        for image in client.images(filters={"label": LABEL}):
            found.images += image["RepoTags"] or [image["Id"]]
        found.images += [f"volume {name}" for name in _volumes(client)]
    found.dead += [_entry(holder) for holder in _dead_holders(ledger)]
    return found


def remove_all(*, with_images: bool = False, running: bool = False) -> list[str]:
    """Remove what is ours and what nobody uses; returns what was removed.

    Args:
        with_images: also our images.
        running: also the containers of runs that are at work; they notice, and try again.
    """
    ledger = default_ledger()
    removed = [str(path) for path in _scratch() if _removed(path)]
    for engine, client in answering():
        removed += reap(client, ledger, engine=engine, running=running)
        for image in client.images(filters={"label": LABEL}) if with_images else ():
            with contextlib.suppress(*ENGINE_ERRORS):  # a container at work uses it
                client.remove_image(image["Id"], force=True)
                removed += image["RepoTags"] or [image["Id"]]
        for name in _volumes(client) if with_images else ():
            with contextlib.suppress(*ENGINE_ERRORS):  # the same
                client.remove_volume(name)
                removed.append(f"volume {name}")
    for holder in _dead_holders(ledger):
        ledger.let_go(holder["holder"])
        removed.append(_entry(holder))
    return removed


def _volumes(client: docker.APIClient) -> list[str]:
    """Those of `foreign.py` and `places.py`: a Python of ours, and copies of folders of images."""
    found = client.volumes(filters={"label": LABEL})["Volumes"] or ()
    return [str(volume["Name"]) for volume in found]


def answering() -> Generator[tuple[str, docker.APIClient], None, None]:
    """The engines that answer; where none does, nothing of ours can run."""
    for engine in addresses():
        with (
            contextlib.suppress(EngineUnavailable),
            reached(engine) as address,
            contextlib.closing(connect(address)[0]) as client,
        ):
            yield engine, client


def _dead_holders(ledger: Ledger) -> list[dict[str, Any]]:
    """Those of engines that are gone for good among them: no reaper gets there any more."""
    if not ledger.path.exists():
        return []
    return [holder for holder in ledger.holders() if not holder["lives"]]


def _entry(holder: Mapping[str, Any]) -> str:
    return f"ledger entry of run {holder['run']!r}, pid {holder['pid']}"


def _described(one: Owned) -> str:
    return f"container {one.name} of run {one.run!r}"


def _scratch() -> list[Path]:
    """Folders and cgroups whose makers are gone."""
    places = [Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*")]
    places += [root.glob(f"{CGROUP_PREFIX}*") for root in writable_cgroups()]
    return sorted(path for found in places for path in found if not _maker_lives(path.name))


def _maker_lives(name: str) -> bool:
    """Whether the process whose id stands in a name (`...-PID-...`) is there."""
    numbers = [part for part in name.split("-") if part.isdigit()]
    return not numbers or Path("/proc", numbers[0]).exists()


def _removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if path.is_relative_to(tempfile.gettempdir()):
            shutil.rmtree(path)
        else:
            path.rmdir()  # a cgroup: its files are the kernel's
        return True
    return False
