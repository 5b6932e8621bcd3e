"""What earns a pass from the suite verifier, and what does not."""

from collections.abc import AsyncIterator, Mapping

import pytest

from rollmill.verifiers import Verdict, VerifierSpec
from rollmill.verifiers.pytest_run import run_suite
from rollmill.verifiers.test_suite import TestSuiteVerifier
from rollmill.workspaces import (
    WORKDIR,
    Artifact,
    DockerProvider,
    ExecResult,
    Workspace,
    WorkspaceSpec,
    lay,
    opened,
    pack_tree,
)

from .suite_cheats import (
    BROKEN,
    CALLER,
    CHEATS,
    CONFTEST,
    FIXED,
    ONCE,
    READS,
    SELECTIVE,
    TESTS,
    UNDONE,
    WANTED,
)

docker = pytest.mark.docker

HIDDEN = {
    "tests/test_calc.py": TESTS.encode(),
    "tests/conftest.py": CONFTEST.encode(),
    "pytest.ini": b"[pytest]\naddopts = -p no:cacheprovider\n",
}
SPEC = WorkspaceSpec(
    image="python", seed=pack_tree({"calc/__init__.py": BROKEN.encode(), **HIDDEN})
)
JUDGE = VerifierSpec(
    name="test_suite",
    params={
        "fail_to_pass": WANTED,
        "pass_to_pass": ["tests/test_calc.py::test_one"],
        "tests": ["tests"],
        "timeout_s": 20,
    },
)


@pytest.fixture
async def provider() -> AsyncIterator[DockerProvider]:
    provider = DockerProvider()
    yield provider
    await provider.close()


async def judged(
    provider: DockerProvider, changes: Mapping[str, str], judge: VerifierSpec = JUDGE
) -> Verdict:
    async with opened(provider, SPEC) as workspace:
        files: dict[str, bytes | None] = {path: text.encode() for path, text in changes.items()}
        await lay(workspace, Artifact(files=files))
        return await TestSuiteVerifier().verify(workspace, judge, HIDDEN)


@docker
async def test_a_repair_passes_with_a_check_for_each_test(provider: DockerProvider) -> None:
    verdict = await judged(provider, {"calc/__init__.py": FIXED})
    assert (verdict.outcome, verdict.score) == ("pass", 1.0)
    assert [check.name for check in verdict.checks] == [*WANTED, "pass_to_pass"]
    assert verdict.verifier == f"test_suite@{TestSuiteVerifier.version}"


@docker
async def test_a_repair_passes_whatever_lies_around_it(provider: DockerProvider) -> None:
    mess = {"conftest.py": "raise SystemExit", "tests/test_new.py": "assert 0", "setup.cfg": "[x"}
    verdict = await judged(provider, {"calc/__init__.py": FIXED, **mess})
    assert verdict.outcome == "pass"


@docker
@pytest.mark.parametrize("cheat", CHEATS)
async def test_a_cheat_fails(provider: DockerProvider, cheat: str) -> None:
    judge = JUDGE
    if cheat == "never ends":
        judge = VerifierSpec(name=JUDGE.name, params={**JUDGE.params, "timeout_s": 3})
    verdict = await judged(provider, CHEATS[cheat], judge)
    assert verdict.outcome == "fail", verdict
    assert any(check.evidence for check in verdict.checks if check.outcome == "fail")


@docker
async def test_a_file_in_the_place_of_the_tests_fails_and_is_no_error_of_ours(
    provider: DockerProvider,
) -> None:
    async with opened(provider, SPEC) as workspace:
        await workspace.exec(
            ["bash", "-c", "rm -r tests pytest.ini; touch tests; mkdir pytest.ini"]
        )
        verdict = await TestSuiteVerifier().verify(workspace, JUDGE, HIDDEN)
    assert verdict.outcome == "fail"
    assert verdict.checks[-1].outcome == "pass"  # the restored tests ran: only the bug is left


@docker
async def test_the_evidence_says_what_was_seen(provider: DockerProvider) -> None:
    checks = (await judged(provider, {})).checks
    assert checks[0].evidence.startswith("failed: ")
    assert "assert -1 == 3" in checks[0].evidence
    assert checks[-1].evidence == "1 of 1 pass"


@docker
@pytest.mark.parametrize(
    "slow", ["while True: pass", "__import__('time').sleep(600)"], ids=["busy", "asleep"]
)
async def test_a_test_over_its_time_fails_alone(provider: DockerProvider, slow: str) -> None:
    judge = VerifierSpec(name=JUDGE.name, params={**JUDGE.params, "test_timeout_s": 4})
    code = BROKEN.replace("    return a - b", f"    {slow}")
    checks = (await judged(provider, {"calc/__init__.py": code}, judge)).checks
    assert [check.outcome for check in checks] == ["fail", "fail", "pass"]
    assert "time limit" in checks[0].evidence


@docker
async def test_each_broken_test_is_named(provider: DockerProvider) -> None:
    code = FIXED.replace("return 1", "return 2")
    checks = (await judged(provider, {"calc/__init__.py": code})).checks
    names = [check.name for check in checks if check.outcome == "fail"]
    assert names == ["pass_to_pass", "tests/test_calc.py::test_one"]


@docker
async def test_a_report_that_pytest_itself_contradicts_fails(provider: DockerProvider) -> None:
    forged = (
        "import gc\n"
        "class Letters(dict):\n"
        "    def get(self, test, other=None):\n"
        f"        return 'p' if test in {WANTED} else super().get(test, other)\n"
        "for each in gc.get_objects():\n"
        "    if type(each).__name__ == 'Recorder': each.letters = Letters()\n"
    )
    verdict = await judged(provider, {"calc/__init__.py": forged + BROKEN})
    assert verdict.outcome == "fail"
    assert "disagree" in verdict.checks[0].evidence


@docker
@pytest.mark.parametrize(
    ("code", "told"),
    [
        (SELECTIVE.format(tests=WANTED), "changed the test framework"),
        (UNDONE + SELECTIVE.format(tests="UNDO"), "made false"),
        (ONCE + UNDONE + SELECTIVE.format(tests="(UNDO if first else ())"), "made fal"),
        (READS, "made false"),
        (CALLER, "made false"),
        (
            "class Any(int):\n    def __eq__(self, other): return other is not self\n\n\n"
            "def add(a, b): return Any()",
            "made false",
        ),
    ],
    ids=["patch", "patch, undone", "patch, in the first run", "tests read", "caller read", "equal"],
)
async def test_a_cheat_that_spares_the_canaries_fails(
    provider: DockerProvider, code: str, told: str
) -> None:
    verdict = await judged(provider, {"calc/__init__.py": f"{BROKEN}\n{code}"})
    assert (verdict.outcome, verdict.score) == ("fail", 0.0)
    assert told in verdict.checks[0].evidence


class NoReport:
    """A workspace in which no run of pytest ever states anything, though pytest is there."""

    def __init__(self, inner: Workspace) -> None:
        self._inner = inner
        self.spec = inner.spec
        self.put, self.put_tree, self.snapshot = inner.put, inner.put_tree, inner.snapshot

    async def exec(self, argv: list[str], **options: object) -> ExecResult:
        if "Runs pytest inside" in argv[-1]:
            return ExecResult(exit_code=137, stdout="", stderr="", duration_s=0.0)
        return await self._inner.exec(argv, **options)  # type: ignore[arg-type]


@docker
async def test_a_suite_that_does_not_run_whatever_the_code_is_unscored(
    provider: DockerProvider,
) -> None:
    async with opened(provider, SPEC) as workspace:
        verdict = await TestSuiteVerifier().verify(NoReport(workspace), JUDGE, HIDDEN)  # type: ignore[arg-type]
    assert verdict.outcome == "unscored"
    assert "control run" in verdict.checks[0].evidence


class NoPytest:
    """A real workspace whose interpreter cannot import pytest."""

    def __init__(self, inner: Workspace) -> None:
        self._inner = inner
        self.spec = inner.spec
        self.put, self.put_tree, self.snapshot = inner.put, inner.put_tree, inner.snapshot

    async def exec(self, argv: list[str], **options: object) -> ExecResult:
        hidden = "import sys; sys.modules['pytest'] = None\n"
        argv = [hidden + part if "import pytest" in part else part for part in argv]
        argv = [part.replace(hidden + '"""', hidden + '_ = """') for part in argv]
        argv = [part.replace("from __future__ import annotations", "") for part in argv]
        return await self._inner.exec(argv, **options)  # type: ignore[arg-type]


@docker
async def test_an_image_without_pytest_is_unscored(provider: DockerProvider) -> None:
    async with opened(provider, SPEC) as workspace:
        verdict = await TestSuiteVerifier().verify(NoPytest(workspace), JUDGE, HIDDEN)  # type: ignore[arg-type]
    assert verdict.outcome == "unscored"


async def test_parameters_of_another_shape_are_refused() -> None:
    spec = VerifierSpec(name="test_suite", params={"fail_to_pass": []})
    with pytest.raises(ValueError, match="make the task again"):
        await TestSuiteVerifier().verify(None, spec, HIDDEN)  # type: ignore[arg-type]


@docker
async def test_a_run_times_each_test_and_names_the_lines_it_ran(provider: DockerProvider) -> None:
    async with opened(provider, SPEC) as workspace:
        run = await run_suite(
            workspace, paths=["tests"], timeout_s=30, trace=["calc"], durations=True
        )
        few = await run_suite(
            workspace,
            paths=["tests"],
            tests=list(run.outcomes),
            first=["tests/test_calc.py::test_one"],
            timeout_s=30,
        )
    names = list(run.outcomes)
    assert run.named("passed") == ["tests/test_calc.py::test_one"]
    assert run.lines["calc/__init__.py"] == {
        2: sum(1 << names.index(test) for test in WANTED),
        6: 1 << names.index("tests/test_calc.py::test_one"),
    }
    assert set(run.durations_s) == set(names)
    assert few.named("missing")  # it ended when the first ones passed
    assert not few.named("failed")
    assert WORKDIR not in str(dict(run.lines))


@docker
@pytest.mark.parametrize("name", ["nothing", "_exit 0 in the call", "half repaired", "repaired"])
async def test_stopping_when_it_is_decided_changes_no_outcome(
    provider: DockerProvider, name: str
) -> None:
    half = FIXED.replace("return a + b", "return 3 if a == 1 else 0")
    files = {"half repaired": {"calc/__init__.py": half}, "repaired": {"calc/__init__.py": FIXED}}
    changed = {**files, **CHEATS}[name]
    hasty = VerifierSpec(name="test_suite", params={**JUDGE.params, "until_decided": True})

    whole, early = [await judged(provider, changed, spec) for spec in (JUDGE, hasty)]

    assert whole.outcome == early.outcome
    assert {check.name for check in early.checks} <= {check.name for check in whole.checks}
    if name == "nothing":
        assert [check.name for check in early.checks] == WANTED[:1]


@docker
async def test_tests_made_from_a_set_keep_their_names(provider: DockerProvider) -> None:
    made = (
        "import os, sys, pytest\n\nNAMES = {f'{n:x}' * 3 for n in range(16)}\n\n\n"
        "@pytest.mark.parametrize('name', [object() for _ in NAMES], ids=list(NAMES))\n"
        "def test_name(name):\n    assert sys.flags.no_user_site\n    assert sys.flags.safe_path\n"
        "    assert not os.environ.get('PYTHONSTARTUP')\n"
    )
    spec = WorkspaceSpec(
        image="python",
        seed=pack_tree({"tests/test_made.py": made.encode()}),
        env={"PYTHONSTARTUP": "/nowhere", "PYTHONPATH": "/tmp"},
    )
    runs = []
    for _ in range(2):
        async with opened(provider, spec) as workspace:
            runs.append(await run_suite(workspace, paths=["tests"], timeout_s=20))
    assert len(runs[0].named("passed")) == 16
    assert list(runs[0].outcomes) == list(runs[1].outcomes)
