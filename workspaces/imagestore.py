"""What our images take on an engine, and which of them may go. Touches no images of others."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import docker
import docker.errors

from .cache import cache_dir
from .engine import ENGINE_ERRORS
from .errors import DiskFull
from .imagespecs import SPECS, ImageSpec, tag_of

LABEL = "rollmill"
ROOM = 3
"""A build needs this many times the room of its image: the root, its layers, the engine's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """One image of ours on an engine."""

    name: str
    """The logical name, as its tag says."""
    tag: str
    digest: str
    platform: str
    """As engines write it: `linux/amd64`."""
    state: Literal["current", "superseded"]
    """Superseded: this version of Rollmill would build another in its place."""
    bytes: int
    shared_bytes: int
    """Of these, in layers that another image has too."""
    containers: int
    """That use it now."""
    used_s: float | None
    """When a workspace last asked for it, in seconds since 1970; None = not from this account."""

    @property
    def unique_bytes(self) -> int:
        """What its removal would free."""
        return self.bytes - self.shared_bytes


def stored(client: docker.APIClient, *, label: str = LABEL) -> list[Stored]:
    """Our images, the one used last first. Blocks."""
    found = []
    for image in client.df()["Images"] or ():
        for tag in image["RepoTags"] or [image["Id"]]:
            if label in (image["Labels"] or {}) and tag != "<none>:<none>":
                found.append(_stored(client, image, tag))
    return sorted(found, key=lambda one: (-(one.used_s or 0), one.tag))


def _stored(client: docker.APIClient, image: dict[str, object], tag: str) -> Stored:
    facts = client.inspect_image(tag)  # type: ignore[no-untyped-call]
    name = tag.partition(":")[0].rpartition("/")[2]
    note = _note(tag)
    return Stored(
        name=name,
        tag=tag,
        digest=facts["Id"],
        platform=f"{facts['Os']}/{facts['Architecture']}",
        state="current" if name in SPECS and tag == tag_of(name) else "superseded",
        bytes=int(str(image["Size"])),
        shared_bytes=max(int(str(image["SharedSize"])), 0),
        containers=max(int(str(image["Containers"])), 0),
        used_s=note.stat().st_mtime if note.exists() else None,
    )


def note_use(tag: str) -> None:
    """Remember that an image was asked for just now; who cannot write that down goes on."""
    with contextlib.suppress(OSError):
        note = _note(tag)
        note.parent.mkdir(exist_ok=True)
        note.touch()


def _note(tag: str) -> Path:
    return cache_dir() / "uses" / tag.replace("/", "-").replace(":", "-")


def total_bytes(found: Sequence[Stored]) -> int:
    """What images take together; layers that are shared count once."""
    return sum(one.unique_bytes for one in found) + max(
        (one.shared_bytes for one in found), default=0
    )


def to_evict(found: Sequence[Stored], *, keep_bytes: int | None = None) -> list[Stored]:
    """Which images to remove: the superseded, then the least recently used down to a size.

    Args:
        keep_bytes: what may stay in all; None = all that is current.
    """
    free = [one for one in found if not one.containers]
    going = [one for one in free if one.state == "superseded"]
    staying = [one for one in found if one not in going]
    oldest_first = sorted(
        (one for one in free if one not in going), key=lambda one: one.used_s or 0
    )
    for one in oldest_first if keep_bytes is not None else ():
        if total_bytes(staying) <= (keep_bytes or 0):
            break
        going.append(one)
        staying.remove(one)
    return going


def remove(client: docker.APIClient, going: Sequence[Stored]) -> list[Stored]:
    """Remove images; returns those that are gone. One that is in use by now stays. Blocks."""
    gone = []
    for one in going:
        with contextlib.suppress(*ENGINE_ERRORS):
            client.remove_image(one.tag)
            _note(one.tag).unlink(missing_ok=True)
            gone.append(one)
    return gone


def admit(client: docker.APIClient, name: str, spec: ImageSpec) -> None:
    """Refuse to build what has no room, before anything is fetched. Blocks.

    Raises:
        DiskFull: says where, how much it takes and how to make room.
    """
    needed = ROOM * spec.disk_bytes
    for place in {tempfile.gettempdir(), str(client.info()["DockerRootDir"])}:
        if not Path(place).exists():  # a remote engine's
            continue
        free = shutil.disk_usage(place).free
        if free < needed:
            raise DiskFull(
                f"building {name} needs about {needed >> 20} MiB at {place}, where "
                f"{free >> 20} MiB are free; `rollmill images gc` removes images that are not used"
            )
