"""The benchmarks share one command line, and their page shows every figure that they print."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "benchmarks"
BENCHMARKS = sorted(path.stem for path in HERE.glob("[!_]*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_takes_the_same_flags(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(flag in done.stdout for flag in ("--json", "--quick", "--out"))


def test_the_page_shows_every_figure_and_names_what_did_not_run() -> None:
    page = runpy.run_path(str(HERE / "__main__.py"))["page"]
    figures = {
        "speed": {"ours": 4.0, "peer": 2.0, "ratio_peer": 2.0, "ratio": 2.0, "share": 0.5},
        "leaks": 0,
        "left": ["a | b"],
        "machine": {"cpus": 2, "load": 1.5, "cases": {"one": {"ours": 3, "by": {"wall": 7}}}},
    }

    records = {
        "workspaces": {"command": "run it", "conditions": "a day, a machine", "figures": figures},
        "model": {"command": "run that", "conditions": "another day", "figures": None},
    }

    text = page(records)

    assert "| `speed` | 4 | peer 2 | 2 | share 0.5 |" in text
    assert "| `leaks` | 0 |" in text
    assert r"| `left` | ['a \| b'] |" in text
    assert "| `machine` |  |  |  | cpus 2, load 1.5 |" in text
    assert "| `machine.cases.one` | 3 |  |  | by (wall 7) |" in text
    assert "`run it`: a day, a machine" in text
    assert text.index("## model") < text.index("No figures")
