"""Recognises results that were typed in for the tests' own inputs. Reads source, runs none.

A pair is what code gives for a key: a branch, a conditional expression, a case or an entry of a
table. One that gives a test's result for that test's inputs is a special case, which may be honest
(a table of status codes). It is hard-coded when it is keyed on all inputs, several of them, and
the seed held neither that key nor that result.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

TRIVIAL = (0, 1, -1, 2, None, True, False, "", b"", ())
"""Literals that say nothing about where they came from."""
_SAY_NOTHING = frozenset(map(repr, TRIVIAL))
Literals = frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """What is given for a key."""

    key: Literals
    """The telling literals in it."""
    result: str


def case_findings(
    now: ast.Module, then: ast.Module | None, seed: Mapping[str, bytes], hidden: Mapping[str, bytes]
) -> Iterator[tuple[str, str]]:
    """New pairs that give a test's own result: `hard_coded` or `special_case`, and the code."""
    known = {pair for pair, _ in _pairs(then)} if then is not None else set()
    new = [(pair, node) for pair, node in _pairs(now) if pair not in known]
    cases = _cases(hidden) if new else set()
    suspects = []
    for pair, node in new:
        alike = [case for case in cases if pair.key <= case.key and pair.result == case.result]
        suspects += [(pair, node, alike)] if alike else []
    if not suspects:
        return
    trees = [parsed(source) for path, source in seed.items() if _is_code(path, hidden)]
    literals = {literal for tree in trees if tree for literal in _literals(tree)}
    keys = {pair.key for tree in trees if tree for pair, _ in _pairs(tree)}
    for pair, node, found in suspects:
        whole = len(pair.key) > 1 and any(pair.key == case.key for case in found)
        own = pair.result not in literals | _SAY_NOTHING and pair.key not in keys
        yield ("hard_coded" if whole and own else "special_case"), ast.unparse(node)[:120]


def parsed(content: bytes) -> ast.Module | None:
    """The tree of a source; None = it has none."""
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_code(path: str, hidden: Mapping[str, bytes]) -> bool:
    return path.endswith(".py") and path not in hidden


def _literals(tree: ast.Module) -> Iterator[str]:
    return (repr(each.value) for each in ast.walk(tree) if isinstance(each, ast.Constant))


def _pairs(tree: ast.Module) -> Iterator[tuple[Pair, ast.AST]]:
    for node in ast.walk(tree):
        for key, value in _keyed(node):
            result, literals = _result(value), telling(key)
            if result is not None and literals:
                yield Pair(key=literals, result=result), node


def _keyed(node: ast.AST) -> Iterator[tuple[ast.AST, ast.expr]]:
    """Key and value of everything that gives a value for a key."""
    if isinstance(node, ast.If):
        yield from ((node.test, value) for value in _given(node.body))
    elif isinstance(node, ast.IfExp):
        yield node.test, node.body
    elif isinstance(node, ast.match_case):
        yield from ((node.pattern, value) for value in _given(node.body))
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if key is not None:
                yield key, value
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        yield node.targets[0].slice, node.value


def _given(body: list[ast.stmt]) -> Iterator[ast.expr]:
    for statement in body:
        if isinstance(statement, ast.Return | ast.Assign | ast.AnnAssign) and statement.value:
            yield statement.value


def _cases(hidden: Mapping[str, bytes]) -> set[Pair]:
    """Inputs and results that tests compare: `assert f(1, 2) == 3`, or rows of parameters."""
    cases: set[Pair] = set()
    for path, content in hidden.items():
        tree = parsed(content) if path.endswith(".py") else None
        for node in ast.walk(tree) if tree else ():
            for inputs, result in _compared(node):
                told, literals = _result(result), telling(inputs)
                if told is not None and literals:
                    cases.add(Pair(key=literals, result=told))
    return cases


def _compared(node: ast.AST) -> Iterator[tuple[ast.AST, ast.expr]]:
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.Is):
        left, right = node.left, node.comparators[0]
    elif isinstance(node, ast.Call) and _attribute(node).startswith("assert") and node.args[1:]:
        left, right = node.args[:2]
    elif isinstance(node, ast.Call) and _attribute(node) == "parametrize" and node.args[1:]:
        rows = node.args[1].elts if isinstance(node.args[1], ast.List | ast.Tuple) else []
        for row in rows:
            if isinstance(row, ast.Tuple | ast.List) and len(row.elts) > 1:
                yield ast.Tuple(elts=row.elts[:-1], ctx=ast.Load()), row.elts[-1]
        return
    else:
        return
    yield from ((left, right), (right, left))


def _attribute(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""


def _result(node: ast.expr) -> str | None:
    """A literal as text, lists and tuples alike; None = it is none."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return repr(list(value) if isinstance(value, tuple) else value)


def telling(node: ast.AST) -> Literals:
    """The literals below a node that say something."""
    values = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
    return frozenset(repr(value) for value in values if value not in TRIVIAL)
