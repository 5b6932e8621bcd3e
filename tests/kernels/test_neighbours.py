"""Others that keep the cores busy are seen; this process itself is not."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rollmill.kernels import neighbours
from rollmill.kernels.neighbours import Neighbours

SPIN = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"


class Clock:
    """What the machine says of itself, made up: seconds, ours and everybody's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.now = self.own = self.all = 100.0
        stat = tmp_path / "stat"
        monkeypatch.setattr(neighbours, "_STAT", stat)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "process_time", lambda: self.own)
        self._stat = stat
        self.passes(0, 0, 0)

    def passes(self, seconds: float, own: float, others: float) -> None:
        self.now, self.own, self.all = (
            self.now + seconds,
            self.own + own,
            self.all + own + others,
        )
        self._stat.write_text(f"cpu  {round(100 * self.all)} 0 0 999 0 0 0 0 0 0\ncpu0 1 2 3\n")


def test_only_what_others_do_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch, tmp_path)
    look = Neighbours()
    look._ticks_per_s = 100
    assert not look.crowd()
    clock.passes(1, own=2, others=0.2)
    assert not look.crowd()
    clock.passes(1, own=1, others=0.9)
    assert look.crowd()
    clock.passes(0.1, own=0.2, others=0)
    assert look.crowd()  # too early to look again
    clock.passes(60, own=0, others=60)
    assert look.crowd()  # says nothing about now, and the last answer stands
    clock.passes(1, own=2, others=0)
    assert not look.crowd()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux")
def test_a_real_neighbour_is_seen() -> None:
    look = Neighbours()
    look.crowd()
    with subprocess.Popen([sys.executable, "-c", SPIN]) as spinning:
        try:
            deadline = time.monotonic() + 15
            while not look.crowd() and time.monotonic() < deadline:
                time.sleep(0.3)
            assert look.crowd()
        finally:
            spinning.kill()
