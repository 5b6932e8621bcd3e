"""What can go wrong with a run directory or an export. Each message says what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class RunError(ValueError):
    """Base of everything raised here: a directory or a request that cannot be used as it is."""


class NotARun(RunError):
    """A path that holds something else than a run, or nothing."""

    def __init__(self, path: Path) -> None:
        found = "holds no run.json" if path.is_dir() else "is no folder"
        super().__init__(f"expected the folder of a run, but {path} {found}; choose another one")


class RunMismatch(RunError):
    """A run that another configuration made.

    Args:
        differing: dotted key -> (value in the run, value asked for).
    """

    def __init__(self, path: Path, differing: Mapping[str, tuple[Any, Any]]) -> None:
        listed = "; ".join(
            f"{key} is {there!r} there and {asked!r} here"
            for key, (there, asked) in differing.items()
        )
        super().__init__(
            f"{path} was made by another configuration: {listed}; "
            "repeat that configuration to resume it, or choose another folder"
        )
        self.differing = differing


class RunLocked(RunError):
    """Another process is writing the run."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(
            f"process {holder or 'unknown'} is writing {path}; wait for it to end, "
            "or choose another folder"
        )


class CorruptRun(RunError):
    """A file of a run cannot be read back."""


class CorruptShard(CorruptRun):
    """A shard that does not hold what was written."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is damaged ({why}); delete it and give the command that made the run again, "
            "which makes it anew"
        )
        self.path = path


class BrokenTrajectory(RunError):
    """A trajectory whose turns do not reproduce what was sampled."""


class ExportError(RunError):
    """An export that cannot be made or sent."""
