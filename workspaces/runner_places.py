"""Fills the folders of the image that commands may change, before the first command runs.

Part of the runner; compiled where there are such folders.
"""

from __future__ import annotations

import shutil
import sys

from .runner_files import WRITABLE, as_agent
from .runner_reset import OWN


def fill(places: list[tuple[str, str]]) -> None:
    """Copy each (source, place), and count it among what the command user owns."""
    for source, place in places:
        try:
            with as_agent():
                shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        except (OSError, shutil.Error) as error:
            sys.exit(f"cannot copy the image's {place} to where it may be changed: {error}")
        WRITABLE.append(place)
        OWN.append(place)
