"""Folders of an image that commands may change, for tasks whose code lies elsewhere in the image.

The root stays read-only and every limit holds: over each folder lies a tmpfs of limited size, which
the runner fills at the start (`runner_places.py`). It reads from a volume of the engine, into which
the engine copied what the image has there, once for all workspaces of that image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import docker
from docker.types import Mount

from . import images
from .engine import ENGINE_ERRORS
from .errors import ImageError
from .foreign import finish, prepared, volume, volume_name
from .reaper import LABEL

SOURCES = "/.rollmill-places"


def sources(places: Sequence[str]) -> list[tuple[str, str]]:
    """(Where a copy of the folder is mounted, the folder) of each."""
    return [(f"{SOURCES}/{number}", place) for number, place in enumerate(places)]


def copied(
    client: docker.APIClient, digest: str, places: Sequence[str], labels: Mapping[str, str]
) -> tuple[Mount, ...]:
    """Mounts of the copies of an image's folders, which are made where they are missing. Blocks.

    Args:
        labels: of the container that the engine copies for, so that its owner is known.

    Raises:
        ImageError: the engine cannot copy one.
    """
    with images.building("places"):
        try:
            return tuple(
                Mount(source, _copy(client, digest, place, labels), type="volume", read_only=True)
                for source, place in sources(places)
            )
        except ENGINE_ERRORS as error:
            raise ImageError(f"cannot copy {', '.join(places)} of {digest}: {error}") from error


def _copy(client: docker.APIClient, digest: str, place: str, labels: Mapping[str, str]) -> str:
    """The volume with one folder. A second one, always empty, says that the first is whole."""
    content = f"{digest} {place}"
    name, whole = volume_name("place", content), volume_name("whole", content)
    there = {v["Name"] for v in client.volumes(filters={"label": LABEL})["Volumes"] or ()}
    if whole in there and name in there:
        return name
    if name in there:  # whoever made it was killed
        client.remove_volume(name)
    volume(client, "place", content)
    with prepared(client, digest, ["true"], Mount(place, name, type="volume"), labels):
        pass  # the engine fills an empty volume when a container is made; it is never started
    own = f"chown -hR 1000:1000 {SOURCES} && chmod -R u+rX {SOURCES}"
    mount = Mount(SOURCES, name, type="volume")
    owner = ("CHOWN", "DAC_OVERRIDE", "FOWNER")
    with prepared(
        client, images.ensure(client, "python"), ["sh", "-c", own], mount, labels, owner
    ) as made:
        finish(client, made)
    volume(client, "whole", content)
    return name
