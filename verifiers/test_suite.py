"""Judges a code artifact by the package's own tests: some must now pass, the others must still.

Before the run every piece of test infrastructure is laid again from the hidden assets and whatever
was planted beside it is removed. Canary tests, made new for each run, tell whether the run can
be believed, and a run that claims success must fail tests that were made false. It does not look
for special-cased code: a test suite sees behaviour only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..workspaces import Snapshot, Workspace, WorkspaceError, pack_tree
from .pytest_canaries import Canaries
from .pytest_doubt import doubted
from .pytest_run import PYTHON, WALL_PER_CPU, SuiteRun, run_suite
from .types import Check, Verdict, VerifierSpec, judge_edit

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
    version: ClassVar[str] = "4"

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the tree in `workspace`; see `Verifier.verify`."""
        suite = _Suite.of(spec.params)
        canaries = Canaries.fresh([*suite.fail_to_pass, *suite.pass_to_pass], hidden)
        await lay_tests(workspace, suite.tests, {**hidden, **canaries.files})
        await workspace.put(canaries.path, canaries.source)
        before = await workspace.snapshot()
        run = await _run(workspace, suite, [*suite.fail_to_pass, *suite.pass_to_pass], canaries)
        work: tuple[Check, ...] = ()
        kept: tuple[Check, ...] = ()
        if run.ending == "reported":
            work, kept = _checks(suite, run, canaries)
        else:
            work = (await _why_silent(workspace, run, canaries),)
        if all(check.outcome == "pass" for check in (*work, *kept)):
            files = {**hidden, **canaries.files}
            doubts = await _doubts(workspace, suite, before, files, canaries)
            work, kept = (doubts, ()) if doubts else (work, kept)
        still = sum(run.outcomes.get(test) == "passed" for test in suite.pass_to_pass)
        return judge_edit(
            work,
            kept,
            verifier=f"{self.name}@{self.version}",
            share_kept=still / len(suite.pass_to_pass) if suite.pass_to_pass else 1.0,
        )


async def _run(
    workspace: Workspace, suite: _Suite, tests: Sequence[str], canaries: Canaries
) -> SuiteRun:
    files = dict.fromkeys(test.split("::")[0] for test in (*tests, *canaries.planted))
    return await run_suite(
        workspace,
        paths=[*files, canaries.path],
        tests=[*tests, *canaries.expected],
        decisive=suite.fail_to_pass if suite.until_decided else (),
        timeout_s=suite.timeout_s,
        test_timeout_s=min(suite.test_timeout_s, suite.timeout_s),
        test_wall_s=WALL_PER_CPU * suite.test_timeout_s,
    )


async def _doubts(
    workspace: Workspace,
    suite: _Suite,
    before: Snapshot,
    files: Mapping[str, bytes],
    canaries: Canaries,
) -> tuple[Check, ...]:
    """Run tests that were made false, with nothing left of the first run; empty = all is well."""
    changed, false = doubted(suite.fail_to_pass, files)
    if not false:
        return ()
    await workspace.restore(before)
    await workspace.put_tree(pack_tree(changed))
    run = await _run(workspace, replace(suite, until_decided=False), false, canaries)
    outcomes = [run.outcomes.get(test, "missing") for test in false]
    passed = outcomes.count("passed")
    if passed:
        evidence = f"{passed} of {len(false)} tests passed although one was made false in each"
        return (Check(name="run", outcome="fail", evidence=evidence),)
    if outcomes.count("failed") == len(false):
        return ()
    told = f"{run.ending}: {run.detail}" if run.detail else f"{outcomes.count('failed')} failed"
    evidence = f"of {len(false)} tests that were made false all should fail; {told}"
    return (Check(name="run", outcome="unscored", evidence=evidence),)


async def lay_tests(
    workspace: Workspace, tests: Sequence[str], hidden: Mapping[str, bytes]
) -> None:
    """Lay every piece of test infrastructure again, and remove what was planted beside it."""
    ask = {"keep": sorted(hidden), "infrastructure": INFRASTRUCTURE, "tests": list(tests)}
    cleared = await workspace.exec([PYTHON, "-I", "-c", CLEAR], stdin=json.dumps(ask).encode())
    if cleared.exit_code != 0:
        raise WorkspaceError(
            f"the tests could not be laid again, exit code {cleared.exit_code}: "
            f"{cleared.stderr.strip()[-300:]}; check that the image has {PYTHON}"
        )
    await workspace.put_tree(pack_tree(hidden))


async def _why_silent(workspace: Workspace, run: SuiteRun, canaries: Canaries) -> Check:
    """Whose doing it is that a run stated nothing: the canaries alone load no code of the agent."""
    told = f"{run.ending}: {run.detail}"
    if run.ending == "no_pytest":
        return Check(name="run", outcome="unscored", evidence=told)
    alone = await run_suite(
        workspace, paths=[canaries.path], tests=[*canaries.alone], timeout_s=CONTROL_S
    )
    if alone.outcomes != canaries.alone:
        return Check(name="run", outcome="unscored", evidence=f"{told}; nor does a control run")
    return Check(name="run", outcome="fail", evidence=told)


def _checks(
    suite: _Suite, run: SuiteRun, canaries: Canaries
) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    """What was to be done, and what was to be kept."""
    messages = {failure.test: failure.message for failure in run.failures}
    wanted = tuple(_check(test, run, messages) for test in suite.fail_to_pass)
    if suite.until_decided and any(check.outcome == "fail" for check in wanted):
        return tuple(c for c in wanted if run.outcomes[c.name] != "missing") or wanted, ()
    misstated = [t for t, outcome in canaries.alone.items() if run.outcomes[t] != outcome]
    misstated += [test for test in canaries.planted if run.outcomes[test] == "passed"]
    disagreement = _disagreement(run, canaries)
    if misstated:
        disagreement = f"{len(misstated)} of {len(canaries.expected)} canary tests were misstated"
    elif run.patched and not disagreement and all(check.outcome == "pass" for check in wanted):
        disagreement = f"the code changed the test framework: {', '.join(run.patched)}"
    if disagreement:
        return (Check(name="run", outcome="fail", evidence=disagreement),), ()
    return wanted, tuple(_still_pass(suite.pass_to_pass, run, messages))


def _disagreement(run: SuiteRun, canaries: Canaries) -> str:
    """How exit code, count and report of a run that claims success differ; empty = they agree."""
    tests = {test: how for test, how in run.outcomes.items() if test not in canaries.expected}
    if any(outcome != "passed" for outcome in tests.values()):
        return ""
    failing = [*canaries.expected.values()].count("failed")
    stated = (run.pytest_exit, run.collected, run.failed)
    expected = (1, len(run.outcomes), failing)
    odd = [test for test in canaries.planted if run.outcomes[test] != "failed"]
    if stated == expected and not odd:
        return ""
    return (
        f"exit code, tests run and failures disagree with the report: expected {expected}, "
        f"got {stated} and {len(odd)} canary tests that did not fail"
    )


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
