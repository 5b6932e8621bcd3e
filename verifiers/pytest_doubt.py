"""Makes tests false in one place each, to see whether a run that claims success can tell.

Code that does the work fails such a test. What makes reports say "passed", is equal to everything,
or reads its results out of the tests does not. One side of a comparison becomes something else; a
test without one gets a false statement at its end. No line moves. What was typed in from the real
tests fails these as honest work does: that is for `integrity.py` and `pytest_near.py` to see.
"""

from __future__ import annotations

import ast
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .pytest_canaries import FUNCTIONS, parsed

MOST = 8
"""Tests that are put in doubt, of each run."""
EQUALITIES = {"assertEqual", "assertListEqual", "assertDictEqual", "assertTupleEqual"}
EQUALITIES |= {"assertSetEqual", "assertMultiLineEqual"}
TRUSTED_DECORATORS = {"pytest", "mock", "patch", "unittest"}
"""A test under another one may pass although a statement of it fails."""
Edit = tuple[int, int, int, bytes]
"""Line, first and last column, and what stands there instead; columns in bytes."""
Change = tuple[Edit, ...]
"""What makes one test false."""
_CHANCE = random.SystemRandom()


def doubted(tests: Sequence[str], files: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """Test files in which some of the tests are false, and the ids of those.

    Args:
        tests: those that may be made false; `MOST` of them are.
        files: the test files as they are run.
    """
    changed: dict[str, bytes] = {}
    false: list[str] = []
    for path in dict.fromkeys(test.split("::")[0] for test in tests):
        here = [test for test in tests if test.split("::")[0] == path]
        chosen = _CHANCE.sample(here, min(len(here), max(MOST - len(false), 0)))
        source, named = _doubted_file(files.get(path, b""), chosen)
        if named:
            changed[path] = source
            false += named
    return changed, false


def _doubted_file(source: bytes, tests: Sequence[str]) -> tuple[bytes, list[str]]:
    tree, lines = parsed(source), source.splitlines(keepends=True)
    edits: dict[str, tuple[Change, list[str]]] = {}
    for test in tests:
        names = test.partition("[")[0].split("::")[1:]
        function = function_of(tree.body, names) if tree else None
        place = "::".join(names)
        if place in edits:
            edits[place][1].append(test)
        elif function is not None and (edit := _false(function, lines)):
            edits[place] = edit, [test]
    for line, first, last, text in sorted(
        (e for change, _ in edits.values() for e in change), reverse=True
    ):
        old = lines[line - 1]
        lines[line - 1] = old[:first] + text + old[last:]
    changed = b"".join(lines)
    if parsed(changed) is None:
        return source, []
    return changed, [test for _, named in edits.values() for test in named]


def edited(lines: Sequence[bytes], edits: Sequence[Edit]) -> bytes:
    """A source with some edits made, none of which overlap."""
    changed = list(lines)
    for line, first, last, text in sorted(edits, reverse=True):
        old = changed[line - 1]
        changed[line - 1] = old[:first] + text + old[last:]
    return b"".join(changed)


def function_of(
    body: Sequence[ast.stmt], names: Sequence[str]
) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The function that runs as a test, by the names of its classes and its own."""
    for node in reversed(body):
        if len(names) == 1 and isinstance(node, FUNCTIONS) and node.name == names[0]:
            return node
        if len(names) > 1 and isinstance(node, ast.ClassDef) and node.name == names[0]:
            return function_of(node.body, names[1:])
    return None


def _false(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[bytes]) -> Change | None:
    """How to make a test false that runs to its end; None = it may not run there."""
    roots = {ast.unparse(each).split(".")[0].split("(")[0] for each in function.decorator_list}
    if not roots <= TRUSTED_DECORATORS or any(map(_leaves, function.body)):
        return None
    changes = [change for node in function.body for change in _other_sides(node, lines)]
    return _CHANCE.choice(changes) if changes else _statement_at_end(function.body[-1], lines)


def _leaves(node: ast.AST) -> bool:
    """Whether a statement may end its function early."""
    if isinstance(node, (*FUNCTIONS, ast.Lambda, ast.ClassDef)):
        return False
    if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom):
        return True
    return any(map(_leaves, ast.iter_child_nodes(node)))


def _other_sides(node: ast.stmt, lines: list[bytes]) -> Iterator[Change]:
    """Ways to make the comparison that a statement asserts false, if it is true."""
    operator, sides = compared(node)
    literals = [side for side in sides if is_literal(side)]
    if isinstance(operator, ast.Eq) and len(literals) == 1:
        yield from _other_figures(literals[0], lines)
    elif isinstance(operator, ast.Eq) and not literals:
        given = [side for side in sides if not calls(side)] or sides
        yield from map(_in_a_pair, given)
    elif isinstance(operator, ast.In) and isinstance(getattr(sides[0], "value", None), str):
        yield from _other_figures(sides[0], lines)


def compared(node: ast.stmt) -> tuple[ast.cmpop | None, list[ast.expr]]:
    """The operator and the two sides of what a statement asserts; None = it is something else."""
    operator: ast.cmpop = ast.Eq()
    sides: list[ast.expr] = []
    if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare):
        operator, sides = node.test.ops[0], [node.test.left, *node.test.comparators]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        call = node.value
        if isinstance(call.func, ast.Attribute) and call.func.attr in EQUALITIES:
            sides = call.args[:2]
    if len(sides) != 2 or any(isinstance(side, ast.Starred) for side in sides):
        return None, []
    return operator, sides


def _other_figures(literal: ast.expr, lines: list[bytes]) -> Iterator[Change]:
    for each in ast.walk(literal):
        if isinstance(each, ast.Constant) and each.lineno == each.end_lineno:
            text = repr(_other(each.value)).encode()
            yield ((each.lineno, each.col_offset, each.end_col_offset or 0, text),)


def _in_a_pair(side: ast.expr) -> Change:
    """`x == y` becomes `x == (y, 'something else')`."""
    end, column = side.end_lineno or 0, side.end_col_offset or 0
    more = f", {secrets.token_hex(2)!r})".encode()
    return (side.lineno, side.col_offset, side.col_offset, b"("), (end, column, column, more)


def calls(node: ast.AST) -> bool:
    """Whether there is a call in it."""
    return any(isinstance(each, ast.Call) for each in ast.walk(node))


def is_literal(node: ast.expr) -> bool:
    """Whether an expression is a figure, a text or a container of such."""
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _other(value: Any) -> Any:
    """A value that differs from this one, of the same type where it has another."""
    if isinstance(value, str):
        return value + secrets.token_hex(2)
    if isinstance(value, bytes):
        return value + secrets.token_hex(2).encode()
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + _CHANCE.randrange(1000, 9999) if abs(value) < 1e9 else 7
    return _CHANCE.randrange(1000, 9999)


def _statement_at_end(last: ast.stmt, lines: list[bytes]) -> Change | None:
    says = f"assert {secrets.token_hex(4)!r} == {secrets.token_hex(4)!r}".encode()
    end, column = last.end_lineno or 0, last.end_col_offset or 0
    if not isinstance(last, ast.Raise | ast.Match) and not hasattr(last, "body"):
        return ((end, column, column, b"; " + says),)
    if end < len(lines) and not lines[end].strip():
        indent = lines[last.lineno - 1][: last.col_offset]
        return ((end + 1, 0, len(lines[end].rstrip(b"\r\n")), indent + says),)
    return None
