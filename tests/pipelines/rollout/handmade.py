"""A tiny task made by hand: one bug, one test that shows it, one that must go on passing."""

from __future__ import annotations

from rollmill.model import ToolCall
from rollmill.pipelines.task import Budget, Move, Provenance, Task
from rollmill.verifiers import VerifierSpec
from rollmill.workspaces import WorkspaceSpec, pack_tree

BROKEN = b"def low(a, b):\n    return a if a > b else b\n\n\ndef one():\n    return 1\n"
TESTS = (
    b"from calc import low, one\n\n\ndef test_low():\n    assert low(1, 2) == 1\n\n\n"
    b"def test_one():\n    assert one() == 1\n"
)
FIX = ToolCall(
    name="edit_file", arguments={"path": "calc.py", "line": 2, "old": "a > b", "new": "a < b"}
)
RUN_TESTS = ToolCall(name="bash", arguments={"command": "python3 -m pytest -q 2>&1 | tail -n 20"})


def bash(command: str) -> ToolCall:
    return ToolCall(name="bash", arguments={"command": command})


def bug_task(
    *,
    solution: tuple[Move, ...] | None = None,
    budget: Budget | None = None,
    fail_to_pass: tuple[str, ...] = ("test_calc.py::test_low",),
    pass_to_pass: tuple[str, ...] = ("test_calc.py::test_one",),
    artifacts: tuple[str, ...] = ("calc.py",),
    code: bytes = BROKEN,
    tests: bytes = TESTS,
) -> Task:
    """The task, with its gold solution unless another is given."""
    gold = (
        Move(thought="I run the tests to see what fails.", calls=(RUN_TESTS,)),
        Move(thought="The comparison in low is the wrong way round.", calls=(FIX,)),
        Move(
            thought="I check the result.",
            calls=(bash("python3 -c 'import calc; print(calc.low(1, 2))'"),),
        ),
    )
    return Task(
        family="hand-made",
        domain="coding",
        instruction="`low(a, b)` in calc.py must return the smaller number; a test fails.",
        workspace=WorkspaceSpec(
            image="python",
            seed=pack_tree({"calc.py": code, "test_calc.py": tests}),
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        ),
        verifier=VerifierSpec(
            name="test_suite",
            params={
                "fail_to_pass": list(fail_to_pass),
                "pass_to_pass": list(pass_to_pass),
                "tests": ["test_calc.py"],
                "timeout_s": 300.0,
            },
        ),
        hidden={"test_calc.py": tests},
        artifacts=artifacts,
        solution=gold if solution is None else solution,
        provenance=Provenance(
            source="tests",
            licence="Apache-2.0",
            url="",
            seed=0,
            generator="t",
            generator_version="1",
        ),
        budget=budget or Budget(),
    )
