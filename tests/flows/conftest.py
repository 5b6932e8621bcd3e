"""The installed command, a Prefect server for the session, and a package to test on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rollmill.flows.orchestrator import orchestrated

ROLLMILL = str(Path(sys.executable).with_name("rollmill"))

TALLY = '''"""Small sums over lists."""


def running_total(values):
    """Each sum so far."""
    total = 0
    sums = []
    for value in values:
        total = total + value
        sums.append(total)
    return sums


def clamp(value, low, high):
    """The nearest number in [low, high]."""
    if value < low:
        return low
    if value > high:
        return high
    return value


def chunks(values, size):
    """Lists of `size` values; the last may be shorter."""
    if size <= 0:
        raise ValueError("size must be positive")
    return [values[start : start + size] for start in range(0, len(values), size)]


def is_sorted(values, reverse=False):
    """Whether no value is smaller than the one before it."""
    pairs = list(zip(values, values[1:]))
    if reverse:
        return all(first >= second for first, second in pairs)
    return all(first <= second for first, second in pairs)
'''

TESTS = """import pytest

from tally import chunks, clamp, is_sorted, running_total


def test_running_total():
    assert running_total([1, 2, 3]) == [1, 3, 6]
    assert running_total([]) == []


def test_clamp():
    assert clamp(5, 0, 10) == 5
    assert clamp(-1, 0, 10) == 0
    assert clamp(11, 0, 10) == 10


def test_chunks():
    assert chunks([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    with pytest.raises(ValueError, match="positive"):
        chunks([1], 0)


def test_is_sorted():
    assert is_sorted([1, 2, 2])
    assert not is_sorted([2, 1])
    assert is_sorted([3, 2, 2], reverse=True)
    assert not is_sorted([1, 2], reverse=True)
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "100", **(extra or {})}


@pytest.fixture(scope="session")
def run() -> Callable[..., Ran]:
    """Runs the installed command."""

    def command(*words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
        done = subprocess.run(
            [ROLLMILL, *words],
            cwd=cwd,
            env=environment(env),
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return command


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """One server for the commands of the session; they find it by PREFECT_API_URL."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_API_URL", "PREFECT_LOGGING_TO_API_ENABLED"):
            patch.setenv(name, "")  # remembered, so that what `orchestrated` sets is undone
            patch.delenv(name)
        with orchestrated():
            yield os.environ["PREFECT_API_URL"]


@pytest.fixture(scope="session")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source folder: a package and its tests."""
    folder = tmp_path_factory.mktemp("sources") / "tally"
    (folder / "tests").mkdir(parents=True)
    (folder / "tally.py").write_text(TALLY)
    (folder / "tests" / "test_tally.py").write_text(TESTS)
    return folder
