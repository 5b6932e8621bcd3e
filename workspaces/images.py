"""Logical images on an engine: found, or built when they are not there. Nothing is fetched later.

What is in one stands in `imagespecs.py`, how it is built in `bootstrap.py`. Images that others made
are fetched. The runner is not part of an image.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import docker
import docker.errors

from .bootstrap import build
from .cache import building, cache_dir
from .engine import ENGINE_ERRORS
from .errors import ImageError
from .imagespecs import FOREIGN, SPECS, ImageSpec, spec_of, suite, tag_of
from .imagestore import admit, note_use

log = logging.getLogger(__name__)

JOBS = 2
"""Builds at once: each of them downloads, unpacks and compresses."""

__all__ = [
    "FOREIGN",
    "JOBS",
    "SPECS",
    "ImageSpec",
    "building",
    "cache_dir",
    "copy",
    "ensure",
    "ensure_all",
    "present",
    "spec_of",
    "suite",
    "tag_of",
]


def ensure(client: docker.APIClient, name: str) -> str:
    """The digest of an image, which is built when the engine does not have it. Blocks.

    Raises:
        UnknownImage: nothing defines the name.
        ImageError: it cannot be built; says what was tried.
        DiskFull: there is no room to build it.
    """
    tag = tag_of(name)
    found = present(client, tag)
    if found:
        note_use(tag)
        return found
    if name.startswith(FOREIGN):
        return _pulled(client, tag)
    with building(tag.replace("/", "-").replace(":", "-")):
        found = present(client, tag)
        if not found:
            admit(client, name, spec_of(name))
            build(client, spec_of(name), tag)
            found = present(client, tag)
    if not found:
        raise ImageError(f"the engine lost {tag} right after it was built; try again")
    return found


def ensure_all(
    client: docker.APIClient,
    names: Sequence[str],
    *,
    jobs: int = JOBS,
    done: Callable[[str, float], None] = lambda name, seconds: None,
) -> dict[str, str]:
    """Make images ready, some at once; returns name -> digest. Blocks.

    Args:
        done: told of each image and how long it took.

    Raises: as `ensure`, after the others have ended.
    """
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=max(jobs, 1)) as builders:
        work = {builders.submit(ensure, client, name): name for name in names}
        for one in as_completed(work):
            if not one.exception():
                done(work[one], time.monotonic() - began)
    return {name: one.result() for one, name in work.items()}


def _pulled(client: docker.APIClient, reference: str) -> str:
    log.info("fetching %s", reference)
    try:
        client.pull(reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest")
    except ENGINE_ERRORS as error:
        raise ImageError(
            f"the engine neither has {reference} nor can fetch it: {error}; "
            "build, load or import it there, or correct the name"
        ) from error
    return present(client, reference)


def present(client: docker.APIClient, tag: str) -> str:
    """The digest behind a tag; empty when the engine does not have it."""
    try:
        return str(client.inspect_image(tag)["Id"])  # type: ignore[no-untyped-call]
    except docker.errors.ImageNotFound:
        return ""


def copy(theirs: docker.APIClient, ours: docker.APIClient, name: str, digest: str) -> None:
    """Give an engine the image that another has under the same name, unless it has it. Blocks."""
    tag = tag_of(name)
    if present(ours, tag) != digest:
        log.info("copying %s to another engine", tag)
        ours.load_image(theirs.get_image(tag))  # type: ignore[no-untyped-call]
