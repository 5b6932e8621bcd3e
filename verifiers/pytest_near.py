"""Asks code what it gives near the inputs of its tests, to compare it with the gold solution.

A test that compares a call with a literal is run with one input changed by a little and another
literal, so that it fails and its message tells the result. Code that typed in the tests' results
gives others there than code that does the work. Tests of another form are not asked; what cannot
be compared (addresses, exceptions of the gold solution) is left out.
"""

from __future__ import annotations

import ast
import math
import random
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..workspaces import Workspace, pack_tree
from .pytest_canaries import parsed
from .pytest_doubt import Edit, compared, edited, function_of, is_literal
from .pytest_run import run_suite
from .types import VerifierSpec

MOST = 12
"""Tests that are asked."""
ROUNDS = 2
"""Each with another input changed."""
FEWEST = 2
"""Results that must be comparable before anything is said."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_CHANCE = random.SystemRandom()
Question = tuple[dict[str, bytes], list[str]]
"""Changed test files, and the tests in them that are asked."""


def questions(spec: VerifierSpec, hidden: Mapping[str, bytes]) -> list[Question]:
    """What to ask of a task's code and of its gold solution; empty = its tests cannot be asked."""
    asked = [_question(spec.params["fail_to_pass"][:MOST], hidden) for _ in range(ROUNDS)]
    return [question for question in asked if question[1]]


def _question(tests: Sequence[str], hidden: Mapping[str, bytes]) -> Question:
    changed: dict[str, bytes] = {}
    asked: list[str] = []
    for path in dict.fromkeys(test.split("::")[0] for test in tests):
        source = hidden.get(path, b"")
        tree, lines = parsed(source), source.splitlines(keepends=True)
        edits: list[Edit] = []
        for test in tests:
            if tree is None or test.split("::")[0] != path or "[" in test:
                continue
            function = function_of(tree.body, test.split("::")[1:])
            ways = [w for node in (function.body if function else ()) for w in _ways(node)]
            if ways:
                edits += _CHANCE.choice(ways)
                asked.append(test)
        if edits:
            changed[path] = edited(lines, edits)
    return changed, asked


def _ways(node: ast.stmt) -> Iterator[list[Edit]]:
    """Edits of a statement that compares a call with a literal: an input, and that literal."""
    operator, sides = compared(node)
    literals = [side for side in sides if is_literal(side)]
    if not isinstance(operator, ast.Eq) or len(literals) != 1:
        return
    (given,) = (side for side in sides if side is not literals[0])
    other = _edit(literals[0], secrets.token_hex(4))
    for call in ast.walk(given):
        for argument in call.args if isinstance(call, ast.Call) else ():
            for each in ast.walk(argument) if is_literal(argument) else ():
                near = _near(each.value) if isinstance(each, ast.Constant) else None
                if near is not None and isinstance(each, ast.Constant):
                    yield [edit for edit in (_edit(each, near), other) if edit]


def _edit(node: ast.expr, value: Any) -> Edit | None:
    if node.lineno != node.end_lineno:
        return None
    return node.lineno, node.col_offset, node.end_col_offset or 0, repr(value).encode()


def _near(value: Any) -> Any:
    """An input like this one; None = there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        return value[:-1] + _CHANCE.choice("aeiou") + value[-1] if value else None
    return value + _CHANCE.choice((1, 2, 3))


async def answers(
    workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes], question: Question
) -> list[str]:
    """What the code in `workspace` gives, one message a test; empty = it gave none."""
    changed, tests = question
    await workspace.put_tree(pack_tree({**hidden, **changed}))
    run = await run_suite(
        workspace,
        paths=[*changed],
        tests=tests,
        timeout_s=spec.params["timeout_s"],
        max_messages=len(tests),
    )
    told = {failure.test: failure.message.partition("\n")[0] for failure in run.failures}
    return [told.get(test, "") for test in tests]


def differing(of_gold: Sequence[str], of_code: Sequence[str]) -> tuple[int, int]:
    """How many comparable results differ, and how many are comparable."""
    pairs = [
        (gold, code)
        for gold, code in zip(of_gold, of_code, strict=True)
        if gold.startswith("AssertionError") and " at 0x" not in gold
    ]
    return sum(not _alike(gold, code) for gold, code in pairs), len(pairs)


def _alike(one: str, other: str) -> bool:
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return False
    figures = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-6, abs_tol=1e-9) for a, b in figures)
