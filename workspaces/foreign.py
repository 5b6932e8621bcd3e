"""Images that others made: `docker:REF` runs as it is, with a Python of ours beside it.

Such an image need hold no Python, no shell and no user of ours. The runner's own Python, with the
libraries it needs, lies in a volume of the engine that is filled once from our `python` image and
mounted read-only at `PLACE`; so the image is not changed, and its code never runs as the runner.
What the image says of entry points, volumes, users and health checks is overruled.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import docker
from docker.types import Healthcheck, Mount

from . import images
from .engine import ENGINE_ERRORS
from .errors import ImageError
from .reaper import LABEL

PLACE = "/.rollmill"
LOADER = (f"{PLACE}/lib/loader", "--library-path", f"{PLACE}/lib")
"""Runs a program with the libraries of the volume, whatever the image's own are."""
PYTHON = f"{PLACE}/bin/python3"
FILL_S = 300
OURS = ("HOME", "USER", "LANG", "TERM")
"""Of the environment, what a workspace decides and no image."""

_FILL = f"""
set -eu
cd {PLACE}
[ ! -e whole ] || exit 0
python=$(readlink -f /usr/bin/python3)
version=$(basename "$python")
rm -rf bin lib
mkdir bin lib
cp "$python" bin/python3
cp -a "/usr/lib/$version" lib/
(cd "lib/$version" && rm -rf config-* ensurepip idlelib lib2to3 pydoc_data test tkinter turtledemo)
ldd "$python" lib/*/lib-dynload/*.so | awk '/=> \\// {{print $3}} /ld-linux/ {{print $1}}' |
    sort -u | while read -r library; do cp -L "$library" lib/; done
ln -s "$(basename lib/ld-linux*)" lib/loader
lib/loader --library-path {PLACE}/lib bin/python3 -I -S -c 'import ctypes, json, socket, zlib'
touch whole
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """What has to be known of an image of somebody else's to run it."""

    env: Mapping[str, str]
    """For commands."""
    overruled: Mapping[str, str]
    """Of the environment of the runner: what would change how our Python is loaded."""
    mounts: tuple[Mount, ...]
    """Our Python; and what the image declares as volumes, which would be room without a limit."""

    @property
    def overrules(self) -> dict[str, Any]:
        """What to create a container with, so that nothing of the image runs by itself."""
        return {
            "entrypoint": [""],
            "healthcheck": Healthcheck(test=["NONE"]),
            "environment": dict(self.overruled),
        }


def is_foreign(name: str) -> bool:
    """Whether a logical name means an image of somebody else's."""
    return name.startswith(images.FOREIGN)


def fitted(client: docker.APIClient, digest: str, labels: Mapping[str, str]) -> Foreign:
    """What it takes to run an image that the engine has. Blocks.

    Args:
        labels: of the container that fills the volume, so that its owner is known.

    Raises:
        ImageError: it cannot run here.
    """
    facts = client.inspect_image(digest)  # type: ignore[no-untyped-call]
    if facts["Os"] != "linux":
        raise ImageError(f"expected an image for linux, {digest} is for {facts['Os']}")
    config = facts["Config"] or {}
    variables = dict(entry.partition("=")[::2] for entry in config.get("Env") or [])
    return Foreign(
        env={name: value for name, value in variables.items() if name not in OURS},
        overruled={name: "" for name in variables if name.startswith(("LD_", "GLIBC_"))},
        mounts=(
            Mount(PLACE, _runtime(client, labels), type="volume", read_only=True),
            *(
                Mount(
                    place,
                    volume(client, "volume", f"{digest} {place}"),
                    type="volume",
                    read_only=True,
                )
                for place in config.get("Volumes") or ()
            ),
        ),
    )


def volume_name(kind: str, content: str) -> str:
    """The name of a volume of ours, which says what is in it."""
    return f"rollmill-{kind}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def volume(client: docker.APIClient, kind: str, content: str) -> str:
    """A volume of ours, by its name. The engine fills an empty one from the image."""
    name = volume_name(kind, content)
    client.create_volume(name, labels={LABEL: "1"})
    return name


def _runtime(client: docker.APIClient, labels: Mapping[str, str]) -> str:
    """The volume with our Python, filled when it is not whole."""
    digest = images.ensure(client, "python")
    with images.building("runtime"):
        try:
            name = volume(client, "runtime", digest + _FILL)
            _fill(client, digest, name, labels)
        except ENGINE_ERRORS as error:
            raise ImageError(f"cannot make the runtime for images of others: {error}") from error
    return name


def _fill(client: docker.APIClient, digest: str, name: str, labels: Mapping[str, str]) -> None:
    mount = Mount(PLACE, name, type="volume")
    with prepared(client, digest, ["sh", "-c", _FILL], mount, labels) as made:
        finish(client, made)


@contextlib.contextmanager
def prepared(
    client: docker.APIClient,
    digest: str,
    command: Sequence[str],
    mount: Mount,
    labels: Mapping[str, str],
    capabilities: Sequence[str] = (),
) -> Iterator[str]:
    """A container of ours that prepares a volume, not started; it is removed at the end."""
    made = client.create_container(
        digest,
        command=list(command),
        user="0:0",
        network_disabled=True,
        labels=dict(labels),
        host_config=client.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            cap_add=list(capabilities),
            security_opt=["no-new-privileges"],
            mounts=[mount],
        ),
    )
    try:
        yield str(made["Id"])
    finally:
        client.remove_container(made["Id"], force=True, v=True)


def finish(client: docker.APIClient, container: str) -> None:
    """Start it, and wait until it has done its work.

    Raises:
        ImageError: it did not; with its last words.
    """
    client.start(container)
    if client.wait(container, timeout=FILL_S)["StatusCode"]:
        words = client.logs(container).decode(errors="replace")[-2000:]
        raise ImageError(f"could not prepare a volume for images of others:\n{words}")
