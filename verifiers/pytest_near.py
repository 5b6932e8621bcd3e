"""Asks code what it gives near the inputs of its tests, to compare it with the gold solution.

A test that compares what a call gives with a literal or a name (a parameter, a fixture) is run with
one input changed by a little and a literal of ours, so that it fails and its message tells the
result. Code that typed in the tests' results gives others there than code that does the work. Tests
of another form are not asked; what cannot be compared (addresses, exceptions of the gold solution)
is left out.
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
from .pytest_doubt import Edit, calls, compared, edited, function_of, is_literal
from .pytest_run import run_suite
from .types import VerifierSpec

MOST = 12
"""Tests that are asked."""
ROUNDS = 2
"""Each with another input changed."""
FEWEST = 2
"""Results that must be comparable before anything is said."""
NEAR = (
    "lambda v: v + 2 if type(v) in (int, float) else v[:-1] + 'e' + v[-1:] if type(v) is str and v "
    "else v[:-1] + type(v)((v[-1] + 2,)) if type(v) in (list, tuple) and v "
    "and type(v[-1]) in (int, float) else [][0]"
)
"""What stands for a name: a value near its own; without one the test says nothing."""
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
        chosen: dict[str, list[Edit]] = {}  # one change for all cases of a test
        for test in tests:
            place = test.partition("[")[0]
            if tree is None or place.split("::")[0] != path:
                continue
            if place not in chosen:
                function = function_of(tree.body, place.split("::")[1:])
                ways = [*_ways(function)] if function else []
                chosen[place] = _CHANCE.choice(ways) if ways else []
            if chosen[place]:
                asked.append(test)
        if any(chosen.values()):
            changed[path] = edited(lines, [edit for edits in chosen.values() for edit in edits])
    return changed, asked


def _ways(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[list[Edit]]:
    """Edits of a test that compares what a call gives: an input, and what it is compared with."""
    given: dict[str, ast.expr] = {}  # names of what calls gave
    for node in _statements(function.body):
        operator, sides = compared(node)
        meant = [given.get(each.id, each) if isinstance(each, ast.Name) else each for each in sides]
        known = [calls(each) for each in meant]
        if isinstance(operator, ast.Eq) and sum(known) == 1:
            call, other = (meant[0], sides[1]) if known[0] else (meant[1], sides[0])
            if (to := _edit(other, secrets.token_hex(4))) and _is_plain(other):
                yield from ([edit, to] for edit in _inputs(call))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            given[node.targets[0].id] = node.value


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """What a test runs, in order, with what stands in its loops and contexts."""
    for node in body:
        yield node
        if isinstance(node, ast.For | ast.With):
            yield from _statements(node.body)


def _is_plain(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or is_literal(node)


def _inputs(given: ast.expr) -> Iterator[Edit]:
    """Edits that change an argument of a call by a little."""
    for call in ast.walk(given):
        for argument in call.args if isinstance(call, ast.Call) else ():
            if isinstance(argument, ast.Name):
                near: Any = f"({NEAR})({argument.id})"
                yield from filter(None, [_replaced(argument, near)])
                continue
            for each in ast.walk(argument) if is_literal(argument) else ():
                near = _near(each.value) if isinstance(each, ast.Constant) else None
                if near is not None and isinstance(each, ast.Constant):
                    yield from filter(None, [_edit(each, near)])


def _edit(node: ast.expr, value: Any) -> Edit | None:
    return _replaced(node, repr(value))


def _replaced(node: ast.expr, text: str) -> Edit | None:
    if node.lineno != node.end_lineno:
        return None
    return node.lineno, node.col_offset, node.end_col_offset or 0, text.encode()


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
