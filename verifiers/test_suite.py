"""Judges a code artifact by the package's own tests: some must now pass, the others must still.

Before the run every piece of test infrastructure is laid again from the hidden assets and whatever
was planted beside it is removed. Canary tests, made new for each run, tell whether the run can
be believed. It does not look for special-cased code: a test suite sees behaviour only.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..workspaces import Workspace, WorkspaceError, pack_tree
from .pytest_run import PYTHON, WALL_PER_CPU, SuiteRun, run_suite
from .types import Check, Verdict, VerifierSpec, judge

INFRASTRUCTURE = (
    *("conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml"),
    *("tox.ini", "setup.cfg", "pyproject.toml", "sitecustomize.py", "usercustomize.py"),
    *("__pycache__", "*.pth", "*.pyc", "*.egg-info", "*.dist-info"),
)
"""Names that can change what a test run means, wherever they lie."""
CONTROL_S = 20.0
"""Processor seconds of a control run, which holds the canaries alone."""
OPTIONAL = {"test_timeout_s", "until_decided"}
"""Parameters that a task may leave out."""
MAX_BROKEN = 40
"""Broken pass-to-pass tests that are named."""

CLEAR = """
import fnmatch, json, os, pathlib, shutil, sys
ask = json.loads(sys.stdin.read())
keep = set(ask["keep"])

def remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

for folder, folders, files in os.walk("."):
    for name in [*folders, *files]:
        path = pathlib.Path(folder, name)
        alien = any(fnmatch.fnmatch(name, pattern) for pattern in ask["infrastructure"])
        tested = any(path.is_relative_to(root) for root in ask["tests"]) and not path.is_dir()
        if (alien or tested) and path.as_posix() not in keep and path.exists():
            remove(path)
for name in keep:
    path = pathlib.Path(name)
    for above in path.parents:
        if above.exists() and not above.is_dir():
            above.unlink()
    if path.is_dir():
        shutil.rmtree(path)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Suite:
    """The parameters of the verifier, checked."""

    fail_to_pass: list[str]
    pass_to_pass: list[str]
    tests: list[str]
    """Files and folders that belong to the tests: replaced whole by the hidden assets."""
    timeout_s: float
    """Processor seconds of the run, so that a busy machine does not change a verdict."""
    test_timeout_s: float = 30.0
    """Processor seconds of one test; it fails when it takes more, and the others still run."""
    until_decided: bool = False
    """Stop at the first fail-to-pass test that fails: the same outcome, the checks of the rest
    left out. For whoever asks for the outcome alone, many times."""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> _Suite:
        wanted = {*cls.__slots__} - OPTIONAL
        if {*params} - OPTIONAL != wanted or not params["fail_to_pass"]:
            raise ValueError(
                f"test_suite needs {', '.join(sorted(wanted))} with at least one fail_to_pass, "
                f"got {', '.join(sorted(params))}; make the task again"
            )
        return cls(**params)


class TestSuiteVerifier:
    """Passes when every fail-to-pass and every pass-to-pass test passes. Skipped is not passed."""

    __test__ = False
    name: ClassVar[str] = "test_suite"
    version: ClassVar[str] = "2"

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the tree in `workspace`; see `Verifier.verify`."""
        suite = _Suite.of(spec.params)
        await _restore(workspace, suite.tests, hidden)
        canaries = _Canaries.fresh()
        await workspace.put(canaries.path, canaries.source)
        wanted = [*suite.fail_to_pass, *suite.pass_to_pass]
        files = list(dict.fromkeys(test.split("::")[0] for test in wanted))
        run = await run_suite(
            workspace,
            paths=[*files, canaries.path],
            tests=[*wanted, *canaries.expected],
            decisive=suite.fail_to_pass if suite.until_decided else (),
            timeout_s=suite.timeout_s,
            test_timeout_s=min(suite.test_timeout_s, suite.timeout_s),
            test_wall_s=WALL_PER_CPU * suite.test_timeout_s,
        )
        if run.ending == "reported":
            checks = _checks(suite, run, canaries)
        else:
            checks = (await _why_silent(workspace, run, canaries),)
        return judge(checks, verifier=f"{self.name}@{self.version}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Canaries:
    """Tests whose outcome only the verifier knows: a run that misstates them misstates others."""

    path: str
    source: bytes
    expected: Mapping[str, str]

    @classmethod
    def fresh(cls) -> _Canaries:
        module = f"test_{secrets.token_hex(6)}"
        functions, methods = ([True, False] for _ in range(2))
        for truths in (functions, methods):
            random.SystemRandom().shuffle(truths)
        lines, expected = ["import unittest", ""], {}
        ordered = [truth for pair in zip(functions, methods, strict=True) for truth in pair]
        for index, truth in enumerate(ordered):
            name, left = f"test_{secrets.token_hex(6)}", secrets.token_hex(4)
            right = left if truth else secrets.token_hex(4)
            outcome = "passed" if truth else "failed"
            if index % 2:
                case = f"Test{secrets.token_hex(6)}"
                lines += [f"class {case}(unittest.TestCase):", f"    def {name}(self):"]
                lines += [f"        self.assertEqual({left!r}, {right!r})", ""]
                expected[f"{module}.py::{case}::{name}"] = outcome
            else:
                lines += [f"def {name}():", f"    assert {left!r} == {right!r}", ""]
                expected[f"{module}.py::{name}"] = outcome
        return cls(path=f"{module}.py", source="\n".join(lines).encode(), expected=expected)


async def _restore(workspace: Workspace, tests: Sequence[str], hidden: Mapping[str, bytes]) -> None:
    ask = {"keep": sorted(hidden), "infrastructure": INFRASTRUCTURE, "tests": list(tests)}
    cleared = await workspace.exec([PYTHON, "-I", "-c", CLEAR], stdin=json.dumps(ask).encode())
    if cleared.exit_code != 0:
        raise WorkspaceError(
            f"the tests could not be laid again, exit code {cleared.exit_code}: "
            f"{cleared.stderr.strip()[-300:]}; check that the image has {PYTHON}"
        )
    await workspace.put_tree(pack_tree(hidden))


async def _why_silent(workspace: Workspace, run: SuiteRun, canaries: _Canaries) -> Check:
    """Whose doing it is that a run stated nothing: the canaries alone load no code of the agent."""
    told = f"{run.ending}: {run.detail}"
    if run.ending == "no_pytest":
        return Check(name="run", outcome="unscored", evidence=told)
    alone = await run_suite(
        workspace, paths=[canaries.path], tests=[*canaries.expected], timeout_s=CONTROL_S
    )
    if alone.outcomes != canaries.expected:
        return Check(name="run", outcome="unscored", evidence=f"{told}; nor does a control run")
    return Check(name="run", outcome="fail", evidence=told)


def _checks(suite: _Suite, run: SuiteRun, canaries: _Canaries) -> tuple[Check, ...]:
    messages = {failure.test: failure.message for failure in run.failures}
    wanted = [_check(test, run, messages) for test in suite.fail_to_pass]
    if suite.until_decided and any(check.outcome == "fail" for check in wanted):
        return tuple(c for c in wanted if run.outcomes[c.name] != "missing") or tuple(wanted)
    misstated = [t for t, outcome in canaries.expected.items() if run.outcomes[t] != outcome]
    if misstated:
        evidence = f"{len(misstated)} of {len(canaries.expected)} canary tests were misstated"
        return (Check(name="run", outcome="fail", evidence=evidence),)
    disagreement = _disagreement(run, canaries)
    if disagreement:
        return (Check(name="run", outcome="fail", evidence=disagreement),)
    return (*wanted, *_still_pass(suite.pass_to_pass, run, messages))


def _disagreement(run: SuiteRun, canaries: _Canaries) -> str:
    """How exit code, count and report of a run that claims success differ; empty = they agree."""
    if any(run.outcomes[test] != outcome for test, outcome in _best(run, canaries).items()):
        return ""
    failing = [*canaries.expected.values()].count("failed")
    stated = (run.pytest_exit, run.collected, run.failed)
    expected = (1, len(run.outcomes), failing)
    if stated == expected:
        return ""
    return (
        f"exit code, tests run and failures disagree with the report: expected {expected}, "
        f"got {stated}"
    )


def _best(run: SuiteRun, canaries: _Canaries) -> dict[str, str]:
    return dict.fromkeys(run.outcomes, "passed") | dict(canaries.expected)


def _check(test: str, run: SuiteRun, messages: Mapping[str, str]) -> Check:
    if run.outcomes[test] == "passed":
        return Check(name=test, outcome="pass")
    told = messages.get(test) or next(iter(run.uncollected), "")
    return Check(name=test, outcome="fail", evidence=f"{run.outcomes[test]}: {told}"[:300])


def _still_pass(
    tests: Sequence[str], run: SuiteRun, messages: Mapping[str, str]
) -> Iterator[Check]:
    """One check for all, and one more for each of the first that broke."""
    broken = [test for test in tests if run.outcomes[test] != "passed"]
    evidence = f"{len(tests) - len(broken)} of {len(tests)} pass"
    yield Check(name="pass_to_pass", outcome="fail" if broken else "pass", evidence=evidence)
    for test in broken[:MAX_BROKEN]:
        yield _check(test, run, messages)
