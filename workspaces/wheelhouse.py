"""The wheels of an image, fetched once and kept, so that building it again asks no index.

One folder for each list of pins and Python version; Docker and bubblewrap install from the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from .cache import building, cache_dir
from .errors import ImageError


def fetched(requirements: Sequence[str], version: str) -> Path:
    """The folder with all wheels of these pins for a Python version, such as `3.11`. Blocks.

    Raises:
        ImageError: one cannot be fetched.
        OSError: the cache cannot be written.
    """
    content = json.dumps([sorted(requirements), version, platform.machine()])
    place = cache_dir() / "wheels" / hashlib.sha256(content.encode()).hexdigest()[:16]
    with building(f"wheels-{place.name}"):
        if not place.exists():
            draft = place.with_suffix(f".{uuid.uuid4().hex}")
            draft.mkdir(parents=True)
            try:
                _pip("download", "--dest", str(draft), version=version, what=requirements)
                draft.rename(place)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    os.utime(place)  # for who looks for what is not used
    return place


def install(requirements: Sequence[str], version: str, target: Path) -> None:
    """Lay packages into a folder, from outside of the Python that will use them. Blocks.

    Raises:
        ImageError: as `fetched`.
    """
    if not requirements:
        return
    options = ["--no-compile", "--root-user-action=ignore", "--target", str(target)]
    with contextlib.suppress(OSError):  # a rootless build, which cannot write there, fetches anew
        options += ["--no-index", "--find-links", str(fetched(requirements, version))]
    _pip("install", *options, version=version, what=requirements)


def main() -> None:
    """For the build of an image: `VERSION TARGET PIN...`."""
    version, target, *pins = sys.argv[1:]
    try:
        install(pins, version, Path(target))
    except ImageError as error:
        sys.exit(str(error))


def _pip(command: str, *options: str, version: str, what: Sequence[str]) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", command, "--quiet", "--no-deps",
            "--only-binary=:all:", "--python-version", version, *options, *what,
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ImageError(f"pip {command} failed:\n{done.stderr[-3000:]}")
