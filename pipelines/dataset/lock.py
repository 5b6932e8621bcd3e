"""One writer at a time. The kernel drops the lock with its process, so none is ever stale."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from .errors import RunLocked


class WriteLock:
    """The right to write a folder, held until `release`, the end of a `with` block, or the end
    of the process.

    Raises:
        RunLocked: another process, or another lock of this one, holds it.
    """

    NAME = ".lock"

    def __init__(self, folder: Path) -> None:
        self._file = (folder / self.NAME).open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise RunLocked(folder, holder) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the right up. Safe to call twice."""
        self._file.close()
