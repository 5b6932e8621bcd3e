"""Where locks, wheels and notes of use lie between runs. Decides nothing about their content."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """This user's; made when it is not there."""
    path = Path(platformdirs.user_cache_dir("rollmill"))
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def building(name: str) -> Iterator[None]:
    """One builder at a time on this host; the others wait."""
    with (cache_dir() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
