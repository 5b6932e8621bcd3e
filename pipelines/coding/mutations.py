"""Small faults that a person could have typed, as edits of exact spans of the source.

Each kind looks at one syntax node and yields edits within one line; comments and formatting stay.
Whether an edit changes behaviour is for the test suite to say, not for this module.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Edit = tuple[int, int, int, str]
"""Line (from 1), first column, column after the last (in characters), new text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """One fault in one line of one function."""

    kind: str
    path: str
    function: str
    """Qualified name within its module, `Class.method`."""
    first_line: int
    last_line: int
    """Of the function, its decorators left out."""
    line: int
    start: int
    end: int
    before: str
    """The whole line as it was, without its end."""
    new: str

    @property
    def after(self) -> str:
        """The whole line with the fault."""
        return self.before[: self.start] + self.new + self.before[self.end :]

    @property
    def key(self) -> str:
        """Unique within a source."""
        return f"{self.path}:{self.line}:{self.start}:{self.kind}:{self.new}"

    def apply(self, text: str) -> str:
        """The source with the fault; every other line is untouched."""
        lines = text.split("\n")
        ending = lines[self.line - 1][len(self.before) :]
        lines[self.line - 1] = self.after + ending
        return "\n".join(lines)


def mutations_of(path: str, text: str) -> Iterator[Mutation]:
    """Every mutation of every function of a module, in source order; no line is made twice.

    Raises:
        SyntaxError: `text` is no Python.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    for function, name in _functions(ast.parse(text), ""):
        scope = _Scope(lines, function)
        seen: set[tuple[int, str]] = set()
        for node in _own_nodes(function):
            for kind, find in KINDS.items():
                for line, start, end, new in find(node, scope):
                    mutation = Mutation(
                        kind=kind,
                        path=path,
                        function=name,
                        first_line=function.lineno,
                        last_line=function.end_lineno or function.lineno,
                        line=line,
                        start=start,
                        end=end,
                        before=lines[line - 1],
                        new=new,
                    )
                    made = (line, mutation.after)
                    if made not in seen and mutation.after != mutation.before:
                        seen.add(made)
                        yield mutation


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[FunctionNode, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FunctionNode | ast.ClassDef):
            name = f"{prefix}{child.name}"
            if isinstance(child, FunctionNode):
                yield child, name
            yield from _functions(child, f"{name}.")
        else:
            yield from _functions(child, prefix)


def _own_nodes(function: FunctionNode) -> Iterator[ast.AST]:
    """The function's nodes without annotations, decorators and nested functions or classes.

    f-strings are left whole too: before Python 3.12 the nodes in them carry no true positions.
    """
    yield function
    todo: list[ast.AST] = list(reversed(function.body))
    while todo:
        node = todo.pop()
        if isinstance(node, FunctionNode | ast.ClassDef | ast.JoinedStr):
            continue
        yield node
        fields = [child for name, child in ast.iter_fields(node) if name != "annotation"]
        flat = [c for child in fields for c in (child if isinstance(child, list) else [child])]
        todo += [child for child in reversed(flat) if isinstance(child, ast.AST)]


class _Scope:
    """What the kinds may ask about the function around a node."""

    def __init__(self, lines: list[str], function: FunctionNode) -> None:
        self.lines = lines
        arguments = function.args
        names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        self.since = {a.arg: 0 for a in names if a.arg not in ("self", "cls")}
        """Local name -> the line from which it is bound."""
        for node in _own_nodes(function):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.since.setdefault(node.id, node.end_lineno or node.lineno)

    def span(self, node: ast.AST) -> tuple[int, int, int] | None:
        """Line and columns (in characters) of a node; None when it spans several lines."""
        assert isinstance(node, ast.expr | ast.stmt)
        if node.end_lineno != node.lineno or node.end_col_offset is None:
            return None
        raw = self.lines[node.lineno - 1].encode()
        start, end = raw[: node.col_offset].decode(), raw[: node.end_col_offset].decode()
        return node.lineno, len(start), len(end)

    def text(self, node: ast.AST) -> str:
        """The source of a node; empty when it spans several lines."""
        at = self.span(node)
        return self.lines[at[0] - 1][at[1] : at[2]] if at else ""

    def replaced(self, node: ast.AST, new: str) -> Iterator[Edit]:
        """The edit that puts `new` in the place of a node."""
        at = self.span(node)
        if at:
            yield (*at, new)

    def operator(self, left: ast.AST, right: ast.AST, old: str, new: str) -> Iterator[Edit]:
        """The edit that swaps the operator between two neighbours."""
        a, b = self.span(left), self.span(right)
        if not a or not b or a[0] != b[0]:
            return
        gap = self.lines[a[0] - 1][a[2] : b[1]]
        found = re.search(rf"(?<![\w<>=!*/+-]){re.escape(old)}(?![\w<>=!*/+-])", gap)
        if found:
            yield a[0], a[2] + found.start(), a[2] + found.end(), new


COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "%"),
    ast.Mod: ("%", "//"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
SIBLINGS = {
    old: new
    for pair in (
        *(("lstrip", "rstrip"), ("startswith", "endswith"), ("min", "max"), ("any", "all")),
        *(("find", "rfind"), ("lower", "upper"), ("split", "rsplit"), ("partition", "rpartition")),
        *(("keys", "values"), ("append", "extend"), ("ljust", "rjust"), ("ceil", "floor")),
    )
    for old, new in (pair, pair[::-1])
}


def _comparison(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Compare):
        for op, (left, right) in zip(
            node.ops, pairwise([node.left, *node.comparators]), strict=True
        ):
            yield from scope.operator(left, right, *COMPARISONS[type(op)])


def _arithmetic(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        if not any(_is_text(side) for side in (node.left, node.right)):
            yield from scope.operator(node.left, node.right, *OPERATORS[type(node.op)])
    elif isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        old, new = OPERATORS[type(node.op)]
        if not _is_text(node.value):
            yield from scope.operator(node.target, node.value, f"{old}=", f"{new}=")


def _is_text(node: ast.AST) -> bool:
    literal = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    return literal or isinstance(node, ast.JoinedStr)


def _off_by_one(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        if scope.text(node) == str(node.value):
            for other in (node.value + 1, node.value - 1):
                if other >= 0:
                    yield from scope.replaced(node, str(other))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        bound = node.args[min(1, len(node.args) - 1)] if node.args else None
        if isinstance(bound, ast.Name | ast.Call) and scope.text(bound):
            yield from scope.replaced(bound, f"{scope.text(bound)} - 1")


def _boolean(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in pairwise(node.values):
            yield from scope.operator(left, right, old, new)


def _negated_condition(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    tests: list[ast.expr] = []
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        tests = [node.test]
    elif isinstance(node, ast.comprehension):
        tests = node.ifs
    for test in tests:
        if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
            yield from scope.replaced(test, f"not {scope.text(test)}")


def _deleted_not(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and (at := scope.span(node)):
        line, start, end = at
        word = re.match(r"not\s*", scope.lines[line - 1][start:end])
        if word:
            yield line, start, start + word.end(), ""


def _wrong_variable(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in scope.since:
        bound = [n for n, line in scope.since.items() if line < node.lineno and n != node.id]
        if bound:
            pick = random.Random(f"{node.lineno}:{node.col_offset}:{node.id}").choice(bound)
            yield from scope.replaced(node, pick)


def _swapped_arguments(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Call) and not any(isinstance(a, ast.Starred) for a in node.args):
        for left, right in pairwise(node.args):
            yield from _swapped(left, right, scope)


def _return_value(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if not isinstance(node, ast.Return) or node.value is None:
        return
    if isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
        left, right = node.value.elts
        yield from _swapped(left, right, scope)
    elif not (isinstance(node.value, ast.Constant) and node.value.value is None):
        yield from scope.replaced(node, "return None")


def _swapped(left: ast.expr, right: ast.expr, scope: _Scope) -> Iterator[Edit]:
    a, b = scope.span(left), scope.span(right)
    if a and b and a[0] == b[0]:
        gap = scope.lines[a[0] - 1][a[2] : b[1]]
        yield a[0], a[1], b[2], f"{scope.text(right)}{gap}{scope.text(left)}"


def _default_value(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if isinstance(node, FunctionNode):
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if isinstance(default, ast.Constant) and type(default.value) is bool:
                yield from scope.replaced(default, str(not default.value))
            elif isinstance(default, ast.Constant) and type(default.value) is int:
                yield from scope.replaced(default, str(default.value + 1))


def _keyword_constant(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield from scope.replaced(node, str(not node.value))


def _lost_guard(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if isinstance(node, ast.If) and len(node.body) == 1 and not node.orelse:
        way_out = node.body[0]
        leaves = isinstance(way_out, ast.Return | ast.Raise | ast.Continue | ast.Break)
        if leaves and way_out.lineno > node.test.lineno:
            yield from scope.replaced(way_out, "pass")


def _sibling_call(node: ast.AST, scope: _Scope) -> Iterator[Edit]:
    if not isinstance(node, ast.Call):
        return
    name = node.func
    if isinstance(name, ast.Name) and name.id in SIBLINGS:
        yield from scope.replaced(name, SIBLINGS[name.id])
    elif isinstance(name, ast.Attribute) and name.attr in SIBLINGS and (at := scope.span(name)):
        line, _, end = at
        yield line, end - len(name.attr), end, SIBLINGS[name.attr]


KINDS: dict[str, Callable[[ast.AST, _Scope], Iterator[Edit]]] = {
    "comparison": _comparison,
    "arithmetic": _arithmetic,
    "off_by_one": _off_by_one,
    "boolean": _boolean,
    "negated_condition": _negated_condition,
    "deleted_not": _deleted_not,
    "wrong_variable": _wrong_variable,
    "swapped_arguments": _swapped_arguments,
    "return_value": _return_value,
    "default_value": _default_value,
    "keyword_constant": _keyword_constant,
    "lost_guard": _lost_guard,
    "sibling_call": _sibling_call,
}
