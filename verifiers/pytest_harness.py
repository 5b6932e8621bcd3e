"""Runs pytest inside a workspace and states what happened in one line. Never imported on the host.

`pytest_run.py` passes this file's text to `python -c`; the request arrives on standard input
and the report leaves through a private copy of standard output, marked with the request's nonce.
Code under test shares this process: what it could forge is caught by the canaries and false tests
that `test_suite.py` mixes in; what it left patched is named here.
"""

from __future__ import annotations

import builtins
import importlib
import json
import math
import os
import resource
import signal
import sys
import time
import unittest  # noqa: F401 - before the tree under test can shadow it
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

MESSAGE_CHARS = 600
MAX_RINGS = 3
"""A test that swallows its time limit so often ends the run."""
OUTCOME_LETTERS = {"passed": "p", "failed": "f", "skipped": "s"}
SEALED: tuple[str, ...] = (
    *("_pytest.reports", "_pytest.runner", "_pytest.python", "_pytest.nodes", "_pytest.main"),
    *("_pytest.unittest", "_pytest.outcomes", "_pytest.skipping", "unittest.case"),
)
"""Modules whose functions and classes decide how a test ends."""
ASSERTIONS = ("AssertionError", "Exception", "BaseException", "isinstance", "eval", "exec")


class Recorder:
    """A pytest plug-in: selects the wanted tests and notes how each one ended."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.wanted: list[str] | None = request["tests"]
        self.first = set(request["first"])
        self.decisive = set(request["decisive"])
        self.max_failed: int | None = request["max_failed"]
        self.max_messages: int = request["max_messages"]
        self.test_timeout_s: float = request["test_timeout_s"]
        self.counts = {"collected": -1, "failed": -1}
        self.roots = tuple(str(Path.cwd() / root) for root in request["trace"])
        self.letters: dict[str, str] = {}
        self.durations: dict[str, float] = {}
        self.failures: list[dict[str, Any]] = []
        self.uncollected: list[str] = []
        self.tests_of_line: dict[str, dict[int, set[int]]] = {}
        self.numbers: dict[str, int] = {}
        self._current = 0
        self._inside: dict[CodeType, bool] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep why a file could not be collected."""
        if report.failed:
            self.uncollected.append(f"{report.nodeid}: {str(report.longrepr)[-MESSAGE_CHARS:]}")

    def pytest_collection_modifyitems(self, config: Any, items: list[pytest.Item]) -> None:
        """Keep the wanted tests, in the suite's order but for those asked to come first."""
        if self.wanted is None:
            return
        wanted = set(self.wanted)
        config.hook.pytest_deselected(items=[i for i in items if i.nodeid not in wanted])
        kept = [item for item in items if item.nodeid in wanted]
        early = self.first | self.decisive
        items[:] = sorted(kept, key=lambda item: item.nodeid not in early)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Time one test, trace the lines it runs, and stop when there is no use in going on."""
        start_clocks(1, self.test_timeout_s)
        self._current = self.numbers.setdefault(item.nodeid, len(self.numbers))
        started = time.process_time()
        if self.roots:
            sys.settrace(self._on_call)
        yield
        sys.settrace(None)
        start_clocks(0, 0.0)
        self.durations[item.nodeid] = round(time.process_time() - started, 4)
        failed = list(self.letters.values()).count("f")
        in_vain = bool(self.first) and not failed and self.first <= self.letters.keys()
        decided = item.nodeid in self.decisive and self.letters.get(item.nodeid) != "p"
        too_many = self.max_failed is not None and failed > self.max_failed
        if in_vain or decided or too_many:
            item.session.shouldstop = "no use in going on"

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Any:
        """Keep the worst outcome of setup, call and teardown."""
        outcome = yield
        report = outcome.get_result()
        letter = OUTCOME_LETTERS[report.outcome]
        if hasattr(report, "wasxfail"):
            letter = "s"
        before = self.letters.get(item.nodeid, "p")
        if before == "p":
            self.letters[item.nodeid] = letter
        if letter == "f" and before != "f" and len(self.failures) < self.max_messages:
            self.failures.append(_failure(item, call, report))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Keep pytest's own count, to be compared with the report and the exit code."""
        self.counts = {"collected": session.testscollected, "failed": session.testsfailed}

    def _on_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if code not in self._inside:
            self._inside[code] = code.co_filename.startswith(self.roots)
        return self._on_line if self._inside[code] else None

    def _on_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            lines = self.tests_of_line.setdefault(frame.f_code.co_filename, {})
            lines.setdefault(frame.f_lineno, set()).add(self._current)
        return self._on_line


class Clocks:
    """What happens when one test uses its time up: the run ends, or only the test does."""

    def __init__(self) -> None:
        self.wall_s = 0.0  # 0 = the run ends
        self.rung = 0

    def ring(self, signum: int, frame: FrameType | None) -> None:
        """Fail the test that runs; one that goes on all the same ends the run."""
        self.rung += 1
        if self.rung >= MAX_RINGS:
            signal.signal(signum, signal.SIG_DFL)
        pytest.fail("it ran past its time limit", pytrace=False)


def sealed() -> dict[str, Any]:
    """Every function, method and class that decides how a test ends, by name."""
    found: dict[str, Any] = {name: vars(builtins)[name] for name in ASSERTIONS}
    for module in SEALED:
        for name, value in vars(importlib.import_module(module)).items():
            if isinstance(value, (type, FunctionType)) and value.__module__ == module:
                found[f"{module}.{name}"] = value
                found |= {f"{module}.{name}.{key}": each for key, each in vars(value).items()}
    return {name: value for name, value in found.items() if callable(value) or _wraps(value)}


def _wraps(value: Any) -> bool:
    return isinstance(value, (staticmethod, classmethod, property))


def changed_since(before: dict[str, Any]) -> list[str]:
    """The names of what is now another object, or new in a class."""
    now = sealed()
    names = sorted(before.keys() | now.keys())
    return [n for n in names if before.get(n, names) is not now.get(n, names)]


def start_clocks(tests: int, cpu_s: float) -> None:
    """Give so many tests their time; none stops the clocks."""
    CLOCKS.rung = 0
    signal.setitimer(signal.ITIMER_PROF, tests * cpu_s, 1.0 if CLOCKS.wall_s else 0.0)
    if CLOCKS.wall_s:
        signal.setitimer(signal.ITIMER_REAL, tests * CLOCKS.wall_s, 1.0)


CLOCKS = Clocks()


def _failure(item: pytest.Item, call: Any, report: pytest.TestReport) -> dict[str, Any]:
    """What a reader needs of a failed test: the statement in the test and what it said."""
    statement, message = "", ""
    if call.excinfo is not None:
        message = call.excinfo.exconly()
        for entry in call.excinfo.traceback:
            if str(entry.path) == str(item.path):
                statement = str(entry.statement).strip()
    return {
        "test": item.nodeid,
        "message": message[:MESSAGE_CHARS],
        "statement": statement[:MESSAGE_CHARS],
        "phase": report.when,
    }


def _line_table(recorder: Recorder, ids: list[str]) -> dict[str, dict[str, str]]:
    """Path -> line -> the tests that ran it, as a hexadecimal bit mask over `ids`."""
    at = {test: index for index, test in enumerate(ids)}
    place = {number: at[test] for test, number in recorder.numbers.items()}
    base = f"{Path.cwd()}/"
    return {
        path.removeprefix(base): {
            str(line): f"{sum(1 << place[number] for number in numbers):x}"
            for line, numbers in lines.items()
        }
        for path, lines in recorder.tests_of_line.items()
    }


def main() -> None:
    """Read the request, run pytest, write the report, end without running exit handlers."""
    request = json.loads(sys.stdin.readline())
    limit = math.ceil(request["timeout_s"])
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    report_fd = os.dup(1)
    os.set_inheritable(report_fd, False)
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 0)
    os.dup2(2, 1)
    sys.path.insert(0, str(Path.cwd()))
    write, leave, pid = os.write, os._exit, os.getpid()
    recorder = Recorder(request)
    CLOCKS.wall_s = request["test_wall_s"]
    if CLOCKS.wall_s:
        signal.signal(signal.SIGPROF, CLOCKS.ring)
        signal.signal(signal.SIGALRM, CLOCKS.ring)
    start_clocks(2, request["test_timeout_s"])
    options = ["-q", "--tb=no", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    options += [f"--deselect={test}" for test in request["deselect"]]
    before = sealed()
    code = int(pytest.main([*options, *request["paths"]], plugins=[recorder]))
    start_clocks(0, 0.0)
    if os.getpid() != pid:
        leave(1)
    ids = request["tests"] if request["tests"] is not None else list(recorder.letters)
    report: dict[str, Any] = {
        "pytest_exit": code,
        "counts": recorder.counts,
        "letters": "".join(recorder.letters.get(test, "m") for test in ids),
        "failures": recorder.failures,
        "uncollected": recorder.uncollected[:5],
        "patched": changed_since(before)[:5],
    }
    if request["tests"] is None:
        report["tests"] = ids
    if request["durations"]:
        report["durations"] = [recorder.durations.get(test, 0.0) for test in ids]
    if request["trace"]:
        report["lines"] = _line_table(recorder, ids)
    stated = json.dumps(report, ensure_ascii=False)
    line = f"\n{request['nonce']} {stated}\n".encode(errors="backslashreplace")
    while line:
        line = line[write(report_fd, line) :]
    leave(0)


if __name__ == "__main__":
    main()
