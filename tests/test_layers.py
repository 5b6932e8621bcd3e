"""Imports point down the picture in CONTRIBUTING.md, and only flows know Prefect."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "kernels": set(),
    "model": {"kernels"},
    "workspaces": set(),
    "verifiers": {"workspaces"},
    "pipelines": {"workspaces", "verifiers", "model"},
    "flows": {"kernels", "model", "workspaces", "verifiers", "pipelines"},
}
FILES = sorted(path for folder in ALLOWED for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path, source: str) -> Iterator[str]:
    """Absolute dotted names that a module imports, relative imports resolved."""
    package = ["rollmill", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def violations(path: Path, source: str) -> list[str]:
    folder = path.relative_to(ROOT).parts[0]
    found = []
    for name in imported(path, source):
        top, _, rest = name.partition(".")
        if top in ALLOWED:
            found.append(f"{name}: bare import, another project's name on PyPI")
        elif top == "prefect" and folder != "flows":
            found.append(f"{name}: only flows import Prefect")
        elif top == "rollmill":
            target = rest.split(".")[0]
            if target in ALLOWED and target != folder and target not in ALLOWED[folder]:
                found.append(f"{name}: {folder} may import {sorted(ALLOWED[folder]) or 'none'}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    assert violations(path, path.read_text()) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("model/train/loop.py", "from ...pipelines import task"),
        ("model/config.py", "from ..verifiers.types import Verdict"),
        ("workspaces/docker.py", "import rollmill.flows.cli"),
        ("verifiers/base.py", "from .. import pipelines"),
        ("flows/cli.py", "import kernels"),
        ("pipelines/task.py", "from prefect import flow"),
    ],
)
def test_the_rule_sees_each_kind_of_forbidden_import(file: str, source: str) -> None:
    assert violations(ROOT / file, source)


def test_only_the_given_folders_hold_code() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders - {"tests"} == set(ALLOWED)
