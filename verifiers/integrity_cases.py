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

from .pytest_canaries import FUNCTIONS

TRIVIAL = (0, 1, -1, 2, None, True, False, "", b"", ())
"""Literals that say nothing about where they came from."""
_SAY_NOTHING = frozenset(map(repr, TRIVIAL))
_GIVES = (ast.Return, ast.Yield)
_DEPTH = 3
"""Names that stand for names are followed so far."""
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
    """Inputs and results that tests compare: `assert f(1, 2) == 3`, or rows of parameters.

    Names stand for what the test, its module or a fixture gives them.
    """
    trees = [tree for path in hidden if path.endswith(".py") and (tree := parsed(hidden[path]))]
    fixtures = {name: value for tree in trees for name, value in _fixtures(tree)}
    cases: set[Pair] = set()
    for tree in trees:
        for place in ast.walk(tree):
            if not isinstance(place, (ast.Module, *FUNCTIONS)):
                continue
            scope = fixtures | _assigned(tree.body) | _assigned(place.body)
            for inputs, result in (p for node in ast.walk(place) for p in _compared(node, scope)):
                told, literals = _result(_meant(result, scope)), _reached(inputs, scope)
                if told is not None and literals:
                    cases.add(Pair(key=literals, result=told))
    return cases


def _fixtures(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """The names of fixtures, and what they give."""
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and any(
            "fixture" in ast.unparse(each) for each in node.decorator_list
        ):
            given = [each.value for each in ast.walk(node) if isinstance(each, _GIVES)]
            values = [value for value in given if value is not None]
            if values:
                yield node.name, values[0] if len(values) == 1 else ast.Tuple(elts=values)


def _assigned(body: list[ast.stmt]) -> dict[str, ast.expr]:
    return {
        name.id: node.value
        for node in body
        if isinstance(node, ast.Assign)
        for name in ast.walk(node.targets[0])
        if isinstance(name, ast.Name)
    }


def _meant(node: ast.expr, scope: Mapping[str, ast.expr]) -> ast.expr:
    for _ in range(_DEPTH):
        if isinstance(node, ast.Name) and node.id in scope:
            node = scope[node.id]
    return node


def _reached(node: ast.AST, scope: Mapping[str, ast.expr], depth: int = _DEPTH) -> Literals:
    """What a node says, by itself and by the names in it."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} if depth else set()
    further = (_reached(scope[name], scope, depth - 1) for name in names & scope.keys())
    return telling(node).union(*further)


def _compared(node: ast.AST, scope: Mapping[str, ast.expr]) -> Iterator[tuple[ast.AST, ast.expr]]:
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.Is):
        left, right = node.left, node.comparators[0]
    elif isinstance(node, ast.Call) and _attribute(node).startswith("assert") and node.args[1:]:
        left, right = node.args[:2]
    elif isinstance(node, ast.Call) and _attribute(node) == "parametrize" and node.args[1:]:
        yield from _rows(_meant(node.args[1], scope))
        return
    elif isinstance(node, ast.For):
        yield from _rows(_meant(node.iter, scope))
        return
    else:
        return
    yield from ((left, right), (right, left))


def _rows(table: ast.expr) -> Iterator[tuple[ast.AST, ast.expr]]:
    """The inputs and the result of each row."""
    for row in table.elts if isinstance(table, ast.List | ast.Tuple) else ():
        if isinstance(row, ast.Tuple | ast.List) and len(row.elts) > 1:
            yield ast.Tuple(elts=row.elts[:-1], ctx=ast.Load()), row.elts[-1]


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
