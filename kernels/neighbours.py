"""Whether other processes keep the cores busy, so that threads which wait for each other suffer."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_EVERY_S = 0.25
_STALE_S = 5.0
_TOLERATED = 0.5
"""Cores that others may use before a machine counts as crowded."""


class Neighbours:
    """Looks a few times a second at what others did since the last look. Linux; elsewhere none."""

    def __init__(self) -> None:
        self._ticks_per_s = os.sysconf("SC_CLK_TCK") if _STAT.exists() else 0
        self._looked = float("-inf")
        self._others = 0.0
        self._crowded = False

    def crowd(self) -> bool:
        """Whether they use so much that this process cannot have all cores."""
        now = time.monotonic()
        if self._ticks_per_s and now - self._looked >= _EVERY_S:
            others = self._busy_s() - time.process_time()
            passed = now - self._looked
            if passed < _STALE_S:
                self._crowded = others - self._others > _TOLERATED * passed
            self._looked, self._others = now, others
        return self._crowded

    def _busy_s(self) -> float:
        """Seconds that all cores together worked or were taken away since the machine started."""
        user, nice, system, _, _, irq, softirq, steal = map(
            int, _STAT.read_text(encoding="ascii").split(maxsplit=9)[1:9]
        )
        return (user + nice + system + irq + softirq + steal) / self._ticks_per_s
