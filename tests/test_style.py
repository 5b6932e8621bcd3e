"""Cheap habits: short files and functions, and a docstring that opens every module."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("kernels", "model", "workspaces", "verifiers", "pipelines", "flows")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MAX_LINES = 400
MAX_KERNEL_LINES = 600
MAX_FUNCTION_LINES = 60

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


@each_file
def test_file_is_short_enough_to_read(path: Path) -> None:
    limit = MAX_KERNEL_LINES if path.is_relative_to(ROOT / "kernels") else MAX_LINES
    assert len(path.read_text().splitlines()) <= limit


@each_file
def test_module_opens_with_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@each_file
def test_functions_fit_on_a_screen(path: Path) -> None:
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert long == []


def test_no_folder_of_odds_and_ends() -> None:
    names = {path.stem for folder in FOLDERS for path in (ROOT / folder).rglob("*")}
    assert names.isdisjoint({"utils", "util", "core", "common", "helpers", "misc"})
