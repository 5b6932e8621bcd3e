"""Runs a package's own tests in a workspace and returns one outcome per test, by name.

The host's half of `pytest_harness.py`. It says what the run stated; what that is worth to a task
is for `test_suite.py` to judge.
"""

from __future__ import annotations

import json
import secrets
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..workspaces import ExecResult, Workspace

PYTHON = "python3"
WALL_S = 60.0
WALL_PER_CPU = 4.0
"""By the wall clock a run may take longer: on a busy machine it waits for its turn."""
TOOK_TOO_LONG = {128 + signal.SIGXCPU: "the run", 128 + signal.SIGPROF: "one test"}
"""How the harness ends when its processor time, or that of one test, is used up."""
HARNESS = Path(__file__).with_name("pytest_harness.py").read_text(encoding="utf-8")

SEEDED = """
import os, sys
mode = ["-s", "-P"] if sys.version_info >= (3, 11) else ["-I"]
env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
env |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
os.execve(sys.executable, [sys.executable, *mode, "-B", "-c", sys.argv[1]], env)
"""
"""Starts the harness as `python -I` would, but with one order of sets: names of tests that were
made from a set would else be others in each run. Before Python 3.11 they are."""

TestOutcome = Literal["passed", "failed", "skipped", "missing"]
OUTCOMES: Mapping[str, TestOutcome] = {
    "p": "passed",
    "f": "failed",
    "s": "skipped",
    "m": "missing",
}
Ending = Literal["reported", "timed_out", "no_report", "no_pytest"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One failed test as its reader sees it."""

    test: str
    message: str
    """The exception, as `AssertionError: assert 1 == 2`."""
    statement: str
    """The innermost statement of the test file itself; empty = it failed elsewhere."""
    phase: str
    """`setup`, `call` or `teardown`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteRun:
    """What one run of a suite stated."""

    ending: Ending
    """`no_report`: the process ended without one. `no_pytest`: the image cannot run pytest."""
    detail: str
    """The tail of what was printed, for an ending other than `reported`; else empty."""
    outcomes: Mapping[str, TestOutcome] = field(default_factory=dict)
    pytest_exit: int = -1
    """What pytest returned; -1 = it never did."""
    collected: int = -1
    """How many tests pytest says it was to run; -1 = it did not say."""
    failed: int = -1
    """How many times it says something failed."""
    failures: tuple[Failure, ...] = ()
    uncollected: tuple[str, ...] = ()
    """Test files that could not be imported, with the reason."""
    patched: tuple[str, ...] = ()
    """What of pytest, unittest and the assertions was another object at the end of the run."""
    durations_s: Mapping[str, float] = field(default_factory=dict)
    """Processor time of each test, so that a busy machine changes little."""
    lines: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Path -> line -> bit mask of the tests that ran it, bit i = i-th of `outcomes`."""

    def named(self, outcome: TestOutcome) -> list[str]:
        """The tests that ended so, in the order of the run."""
        return [test for test, ended in self.outcomes.items() if ended == outcome]


async def run_suite(
    workspace: Workspace,
    *,
    paths: Sequence[str],
    tests: Sequence[str] | None = None,
    timeout_s: float,
    deselect: Sequence[str] = (),
    first: Sequence[str] = (),
    decisive: Sequence[str] = (),
    max_failed: int | None = None,
    test_timeout_s: float = 0.0,
    test_wall_s: float = 0.0,
    trace: Sequence[str] = (),
    durations: bool = False,
    max_messages: int = 8,
) -> SuiteRun:
    """Run pytest on `paths` as the command user.

    Args:
        paths: test files or folders, relative to the working directory.
        tests: run these node ids only and report on exactly these; None = all that are found.
        timeout_s: processor seconds of the run; by the wall clock it gets `WALL_S` and more.
        deselect: beginnings of node ids that are not run.
        first: tests to run before the others; when none of them fails the run ends there.
        decisive: tests to run before the others; the run ends when one of them does not pass.
        max_failed: the run ends when more fail than that; None = no limit.
        test_timeout_s: processor seconds of each test, twice that for collection; 0 = no limit.
        test_wall_s: seconds of each test by the wall clock; when it is given, a test over either
            time fails and the run goes on. 0 = no limit, and a test over its time ends the run.
        trace: files or folders whose executed lines are recorded per test (some ten times slower).
        max_messages: of how many failed tests the message is kept.

    Raises:
        WorkspaceGone: the workspace itself failed.
    """
    wall_s = WALL_S + WALL_PER_CPU * timeout_s
    nonce = secrets.token_hex(16)
    request = {
        "nonce": nonce,
        "paths": list(paths),
        "timeout_s": timeout_s,
        "tests": None if tests is None else list(tests),
        "deselect": list(deselect),
        "first": list(first),
        "decisive": list(decisive),
        "max_failed": max_failed,
        "test_timeout_s": test_timeout_s,
        "test_wall_s": test_wall_s,
        "trace": list(trace),
        "durations": durations,
        "max_messages": max_messages,
    }
    done = await workspace.exec(
        [PYTHON, "-I", "-c", SEEDED, HARNESS],
        stdin=json.dumps(request).encode() + b"\n",
        timeout_s=wall_s,
    )
    return _stated(done, nonce, tests) or await _unreported(workspace, done)


async def _unreported(workspace: Workspace, done: ExecResult) -> SuiteRun:
    """Why a run stated nothing."""
    if done.timed_out:
        return SuiteRun(ending="timed_out", detail=f"still running after {done.duration_s:.0f} s")
    if done.exit_code in TOOK_TOO_LONG:
        detail = f"{TOOK_TOO_LONG[done.exit_code]} used up its processor time"
        return SuiteRun(ending="timed_out", detail=detail)
    probe = await workspace.exec([PYTHON, "-I", "-c", "import pytest"])
    ending: Ending = "no_report" if probe.exit_code == 0 else "no_pytest"
    tail = (done.stderr if ending == "no_report" else probe.stderr).strip()[-600:]
    return SuiteRun(ending=ending, detail=f"exit code {done.exit_code}: {tail}")


def _stated(done: ExecResult, nonce: str, tests: Sequence[str] | None) -> SuiteRun | None:
    """What the one line with the nonce says; None when there is none, or more, or it is torn."""
    stated = [line for line in done.stdout.split("\n") if line.startswith(nonce + " ")]
    if len(stated) != 1 or done.exit_code != 0 or done.timed_out or done.truncated:
        return None
    try:
        return _parsed(json.loads(stated[0][len(nonce) + 1 :]), tests)
    except (ValueError, KeyError, TypeError):
        return None


def _parsed(report: dict[str, Any], tests: Sequence[str] | None) -> SuiteRun:
    names = list(tests) if tests is not None else report["tests"]
    durations = report.get("durations", [])
    return SuiteRun(
        ending="reported",
        detail="",
        outcomes={
            name: OUTCOMES[letter] for name, letter in zip(names, report["letters"], strict=True)
        },
        pytest_exit=report["pytest_exit"],
        collected=report["counts"]["collected"],
        failed=report["counts"]["failed"],
        failures=tuple(Failure(**failure) for failure in report["failures"]),
        uncollected=tuple(report["uncollected"]),
        patched=tuple(report["patched"]),
        durations_s=dict(zip(names, durations, strict=False)),
        lines={
            path: {int(line): int(mask, 16) for line, mask in lines.items()}
            for path, lines in report.get("lines", {}).items()
        },
    )
