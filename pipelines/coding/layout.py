"""Chooses which files of a source lie in a workspace: the code, its tests and what they read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..family import SourceError
from .fetch import Tree
from .sources import Source

NOT_CODE = {"tests", "test", "testing", "docs", "doc", "examples", "benchmarks", "scripts", "tools"}
NOT_MODULES = {"setup.py", "conftest.py", "noxfile.py", "fabfile.py", "tasks.py", "tests.py"}
TEST_FILE = re.compile(r"(test_[^/]*|[^/]*_test|tests?)\.py")
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice|authors)[^/]*", re.IGNORECASE)
IN_THE_WAY = {"pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml", "setup.py"}
"""Configuration that may ask for plug-ins which the image lacks; ours takes its place."""
BUILT = (".so", ".pyd", ".pyc", ".c", ".whl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A source as it lies in a workspace."""

    files: Tree
    """The workspace's seed, path -> content."""
    packages: tuple[str, ...]
    """Folders and files of the code under test."""
    tests: tuple[str, ...]
    """Folders and files of the tests; they may lie inside a package."""

    def is_test(self, path: str) -> bool:
        """True for tests and their helpers, data and configuration."""
        return below(path, self.tests) or not below(path, self.packages)

    def modules(self) -> list[str]:
        """The Python files of the code under test."""
        return [p for p in sorted(self.files) if p.endswith(".py") and not self.is_test(p)]


def choose_layout(source: Source, tree: Tree) -> Layout:
    """Lay a source out.

    Raises:
        SourceError: no code or no tests are to be found.
    """
    packages = source.packages or _packages(tree)
    tests = source.tests or _tests(tree, packages)
    absent = [p for p in (*packages, *tests) if not any(below(file, (p,)) for file in tree)]
    if absent or not packages:
        raise SourceError(
            f"source {source.name} has no {', '.join(absent) or 'package'} in its files; give the "
            f"folders as `packages` and `tests` in a list of sources"
        )
    if not tests:
        raise SourceError(
            f"source {source.name} ships no tests (looked for tests/, test/ and test_*.py); "
            f"use its git URL instead, or another source"
        )
    files = {path: data for path, data in tree.items() if _wanted(path, source, packages, tests)}
    source_path = source.python_path or (("src",) if packages[0].startswith("src/") else ())
    files["pytest.ini"] = _pytest_ini(tests, source_path)
    return Layout(files=files, packages=packages, tests=tests)


def below(path: str, roots: Iterable[str]) -> bool:
    """True when a path is one of the roots or lies in one."""
    return any(path == root or path.startswith(f"{root}/") for root in roots)


def _wanted(path: str, source: Source, packages: tuple[str, ...], tests: tuple[str, ...]) -> bool:
    if path in IN_THE_WAY or path.endswith(BUILT) or ".egg-info" in path or path in source.ignore:
        return False
    kept = below(path, (*packages, *tests, *source.include))
    return kept or path == "conftest.py" or bool(LICENCE_FILE.fullmatch(path))


def _packages(tree: Tree) -> tuple[str, ...]:
    in_src = sorted({p.split("/")[1] for p in tree if re.fullmatch(r"src/[^/]+/__init__\.py", p)})
    if in_src:
        return tuple(f"src/{name}" for name in in_src)
    folders = sorted(p.split("/")[0] for p in tree if re.fullmatch(r"[^/]+/__init__\.py", p))
    found = [name for name in folders if name not in NOT_CODE]
    modules = [p for p in sorted(tree) if re.fullmatch(r"\w+\.py", p) and p not in NOT_MODULES]
    return tuple(found or [p for p in modules if not TEST_FILE.fullmatch(p)])


def _tests(tree: Tree, packages: tuple[str, ...]) -> tuple[str, ...]:
    places = [f"{base}{name}" for base in ("", *(f"{p}/" for p in packages)) for name in _NAMES]
    folders = [place for place in places if any(below(path, (place,)) for path in tree)]
    return tuple(folders or [path for path in sorted(tree) if TEST_FILE.fullmatch(path)])


_NAMES = ("tests", "test")


def _pytest_ini(tests: tuple[str, ...], python_path: tuple[str, ...]) -> bytes:
    lines = ["[pytest]", "addopts = -p no:cacheprovider", f"testpaths = {' '.join(tests)}"]
    if python_path:
        lines.append(f"pythonpath = {' '.join(python_path)}")
    return ("\n".join(lines) + "\n").encode()
