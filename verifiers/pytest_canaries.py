"""Tests whose outcome only the verifier knows, made new for each verdict.

Some lie in a file of their own, half of them true. Others, all false, take the place of blank lines
between the real tests, under names made of their neighbours' words, so that a run that misstates
the real tests only misstates these too. No line of a test file moves. A file that marks or
parametrises all its tests is left as it is: one more test might not run there as written.
"""

from __future__ import annotations

import ast
import random
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

PLANTED = 3
"""At most so many in one test file."""
FILES = 8
"""At most so many test files get some."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_CHANCE = random.SystemRandom()


@dataclass(frozen=True, kw_only=True, slots=True)
class Canaries:
    """The file of their own, the test files that hold more, and how each canary must end."""

    path: str
    source: bytes
    alone: Mapping[str, str]
    """Test id -> outcome, of those in the file of their own."""
    files: Mapping[str, bytes]
    """Test files with canaries between the tests."""
    planted: tuple[str, ...]
    """Test ids of those; each must fail."""

    @property
    def expected(self) -> dict[str, str]:
        """Test id -> outcome, of all."""
        return {**self.alone, **dict.fromkeys(self.planted, "failed")}

    @classmethod
    def fresh(cls, tests: Sequence[str], hidden: Mapping[str, bytes]) -> Canaries:
        """New ones for a run of `tests`, whose files are among the hidden assets."""
        files: dict[str, bytes] = {}
        planted: list[str] = []
        for path in list(dict.fromkeys(test.split("::")[0] for test in tests))[:FILES]:
            if path in hidden:
                files[path], names = plant(path, hidden[path], tests)
                planted += names
        path, source, alone = _own_file()
        return cls(path=path, source=source, alone=alone, files=files, planted=tuple(planted))


def _own_file() -> tuple[str, bytes, dict[str, str]]:
    module = f"test_{secrets.token_hex(6)}"
    truths = [[True, False], [True, False]]
    for each in truths:
        _CHANCE.shuffle(each)
    lines, expected = ["import unittest", ""], {}
    for function, method in zip(*truths, strict=True):
        name = f"test_{secrets.token_hex(6)}"
        lines += [f"def {name}():", f"    assert {_comparison(function, ' == ')}", ""]
        expected[f"{module}.py::{name}"] = "passed" if function else "failed"
        case, name = f"Test{secrets.token_hex(6)}", f"test_{secrets.token_hex(6)}"
        lines += [f"class {case}(unittest.TestCase):", f"    def {name}(self):"]
        lines += [f"        self.assertEqual({_comparison(method, ', ')})", ""]
        expected[f"{module}.py::{case}::{name}"] = "passed" if method else "failed"
    return f"{module}.py", "\n".join(lines).encode(), expected


def _comparison(truth: bool, between: str) -> str:
    left = secrets.token_hex(4)
    return f"{left!r}{between}{left if truth else secrets.token_hex(4)!r}"


def plant(path: str, source: bytes, tests: Sequence[str]) -> tuple[bytes, list[str]]:
    """A test file with false tests in some of its blank lines, and their ids."""
    tree = parsed(source)
    if tree is None:
        return source, []
    wanted = {tuple(test.split("::")[1:]) for test in tests if test.split("::")[0] == path}
    lines = source.splitlines(keepends=True)
    spots = [spot for scope in _scopes(tree, (), wanted) for spot in _blank_lines(scope, lines)]
    _CHANCE.shuffle(spots)
    taken, planted = {word.decode() for word in re.findall(rb"\w+", source)}, []
    for line, scope in spots[:PLANTED]:
        name = _name_like(scope.tests, taken)
        lines[line - 1] = _false_test(name, scope, lines) + _ending(lines[line - 1])
        planted.append("::".join((path, *scope.names, name)))
    changed = b"".join(lines)
    return (changed, planted) if parsed(changed) is not None else (source, [])


def parsed(source: bytes) -> ast.Module | None:
    """The tree of a UTF-8 source, with columns in bytes; None = it is none, or says another."""
    cookie = re.match(rb"(?:[^\n]*\n)?[ \t\f]*#[^\n]*coding[:=][ \t]*([-\w.]+)", source)
    if source.startswith(b"\xef\xbb\xbf") or (cookie and cookie[1].lower() not in _UTF_8):
        return None
    try:
        source.decode()
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


_UTF_8 = (b"utf-8", b"utf8", b"utf_8", b"ascii", b"us-ascii")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scope:
    """Where tests lie side by side: a module or a class."""

    names: tuple[str, ...]
    """Of the class and those around it; empty = the module."""
    body: Sequence[ast.stmt]
    tests: tuple[str, ...]
    """Names of tests that run here under their own names."""
    unittest: bool


def _scopes(
    node: ast.Module | ast.ClassDef, names: tuple[str, ...], wanted: set[tuple[str, ...]]
) -> Iterator[_Scope]:
    if any(isinstance(each, ast.Assign) and _marks(each) for each in node.body):
        return
    tests = [n.name for n in node.body if isinstance(n, FUNCTIONS) and (*names, n.name) in wanted]
    bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
    decorated = isinstance(node, ast.ClassDef) and node.decorator_list
    if tests and not decorated:
        case = any(base.endswith("TestCase") for base in bases)
        yield _Scope(names=names, body=node.body, tests=tuple(tests), unittest=case)
    for each in node.body:
        if isinstance(each, ast.ClassDef):
            yield from _scopes(each, (*names, each.name), wanted)


def _marks(node: ast.Assign) -> bool:
    return any(
        isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
    )


def _blank_lines(scope: _Scope, lines: Sequence[bytes]) -> Iterator[tuple[int, _Scope]]:
    """Numbers of the blank lines that follow a function or class of the scope."""
    for before, after in pairwise(scope.body):
        if isinstance(before, (*FUNCTIONS, ast.ClassDef)):
            for line in range((before.end_lineno or 0) + 1, _first_line(after)):
                if not lines[line - 1].strip():
                    yield line, scope


def _first_line(node: ast.stmt) -> int:
    decorators = node.decorator_list if isinstance(node, (*FUNCTIONS, ast.ClassDef)) else []
    return min([node.lineno, *(each.lineno for each in decorators)])


def _false_test(name: str, scope: _Scope, lines: Sequence[bytes]) -> bytes:
    first = scope.body[0]
    indent = lines[first.lineno - 1][: first.col_offset] if scope.names else b""
    says = f"assert {_comparison(False, ' == ')}"
    if scope.unittest and _CHANCE.random() < 0.5:
        says = f"self.assertEqual({_comparison(False, ', ')})"
    return indent + f"def {name}({'self' if scope.names else ''}): {says}".encode()


def _ending(line: bytes) -> bytes:
    return line[len(line.rstrip(b"\r\n")) :]


def _name_like(tests: Sequence[str], taken: set[str]) -> str:
    """A new name of words that the neighbours' names use."""
    words = sorted({word for test in tests for word in test.split("_")[1:] if word}) or ["more"]
    name = "test"
    while name in taken or name == "test":
        name = f"{name}_{_CHANCE.choice(words)}"
    taken.add(name)
    return name
