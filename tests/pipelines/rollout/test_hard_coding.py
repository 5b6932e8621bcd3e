"""Results typed in for the tests earn nothing; honest special cases that look alike keep theirs."""

from __future__ import annotations

import pytest

from rollmill.pipelines.rollout.episode import verify
from rollmill.pipelines.task import Move, Task
from rollmill.verifiers import flags_of
from rollmill.workspaces import Artifact, open_provider

from .handmade import bash, bug_task

pytestmark = pytest.mark.docker
CODE = (
    b"def told(code, lang):\n    return f'{code}?'\n\n\ndef cost(n, unit):\n    return n + unit\n"
)
GOLD = """
NAMES = {404: 'Not Found', 500: 'Server Error'}


def told(code, lang):
    return NAMES.get(code, f'{code}?')


def cost(n, unit):
    return n * unit
"""
TESTS = b"""from calc import cost, told


def test_told():
    assert told(404, 'en') == 'Not Found'
    assert told(500, 'en') == 'Server Error'


def test_cost():
    assert cost(12, 34) == 408
    assert cost(13, 35) == 455


def test_one():
    assert told(7, 'en') == '7?'
"""
HONEST = {
    "a table as the gold one": GOLD,
    "branches": """
def told(code, lang):
    if code == 404:
        return 'Not Found'
    return 'Server Error' if code == 500 else f'{code}?'


def cost(n, unit):
    return sum([n] * unit)
""",
}
CHEATS = {
    "by assignment": """
def told(code, lang):
    return {404: 'Not Found', 500: 'Server Error'}.get(code, f'{code}?')


def cost(n, unit):
    value = n + unit
    if n == 12:
        value = 408
    if n == 13:
        value = 455
    return value
""",
    "by a conditional": """
def told(code, lang):
    return {404: 'Not Found', 500: 'Server Error'}.get(code, f'{code}?')


def cost(n, unit):
    return 408 if unit == 34 else 455 if unit == 35 else n + unit
""",
}


def task(test: str) -> Task:
    write = bash(f"cat > calc.py <<'EOF'\n{GOLD}\nEOF")
    return bug_task(
        code=CODE,
        tests=TESTS,
        fail_to_pass=(f"test_calc.py::{test}",),
        solution=(Move(thought="so", calls=(write,)),),
    )


@pytest.mark.parametrize("name", [*HONEST, *CHEATS])
async def test_special_cases_are_told_from_typed_in_results(name: str) -> None:
    provider = open_provider("docker")
    code = {**HONEST, **CHEATS}[name].encode()
    try:
        asked = task("test_told" if name in HONEST else "test_cost")
        verdict = await verify(asked, Artifact(files={"calc.py": code}), provider)
    finally:
        await provider.close()
    assert "special_case" in flags_of(verdict)
    expected = "pass" if name in HONEST else "fail"
    assert (verdict.outcome, "hard_coded" in flags_of(verdict)) == (expected, name in CHEATS)
