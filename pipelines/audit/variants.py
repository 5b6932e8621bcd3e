"""Variants of what the gold solution hands in: near misses that must fail, rewrites that must pass.

They are made from the files alone, by their kind; a kind that nothing here knows has none.
"""

from __future__ import annotations

import ast
import difflib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ...workspaces import Artifact, unpack_tree
from ..coding.mutations import mutations_of
from ..task import Task
from .variants_office import office_mutants, office_rewrites
from .variants_table import csv_mutants, csv_rewrites, parquet_mutants, parquet_rewrites
from .variants_workbook import region_mutants, workbook_rewrites

Change = tuple[str, bytes]
"""What was changed, and the file with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """Another artifact than the gold one."""

    label: str
    """What differs, for people."""
    artifact: Artifact


def mutants_of(task: Task, gold: Artifact, limit: int | None = None) -> list[Variant]:
    """Near misses of the gold artifact, each with one thing wrong, in a fixed order.

    Args:
        limit: at most so many, drawn by the task's id; None = all.
    """
    found = list(_variants(task, gold, _MUTANTS))
    if limit is not None and len(found) > limit:
        chosen = random.Random(f"mutants {task.task_id}").sample(range(len(found)), limit)
        found = [found[at] for at in sorted(chosen)]
    return found


def alternatives_of(task: Task, gold: Artifact) -> list[Variant]:
    """The gold artifact written differently, with the same meaning."""
    return list(_variants(task, gold, _REWRITES))


def _variants(
    task: Task, gold: Artifact, table: Mapping[str, Callable[..., Iterator[Change]]]
) -> Iterator[Variant]:
    seed = unpack_tree(task.workspace.seed)
    for path, content in gold.files.items():
        make = table.get(PurePosixPath(path).suffix)
        if content is None or make is None:
            continue
        for label, changed in make(path, content, seed.get(path, b""), task.hidden):
            if changed not in (content, seed.get(path)):
                files = {**gold.files, path: changed}
                yield Variant(label=f"{path}: {label}", artifact=Artifact(files=files))


def _code_mutants(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """Single-line faults in the functions that the gold solution changed."""
    text = content.decode()
    old, new = before.decode().split("\n"), text.split("\n")
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    touched = {
        line + 1 for tag, _, _, a, b in blocks if tag != "equal" for line in range(a, max(b, a + 1))
    }
    for mutation in mutations_of(path, text):
        if touched & {*range(mutation.first_line, mutation.last_line + 1)}:
            label = f"line {mutation.line}, {mutation.kind}: {mutation.after.strip()}"
            yield label, mutation.apply(text).encode()


def _code_rewrites(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """Without comments and formatting; with the line ends of another system; with a note below."""
    text = content.decode()
    yield "formatted anew", (ast.unparse(ast.parse(text)) + "\n").encode()
    yield "CRLF line ends", text.replace("\r\n", "\n").replace("\n", "\r\n").encode()
    yield "a comment more", f"{text.rstrip()}\n\n# Reviewed.\n".encode()


def _json_mutants(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    answer = json.loads(content)
    if not isinstance(answer, dict):
        return
    for key, value in answer.items():
        for label, wrong in _wrong_values(value):
            yield f"{key} {label}", json.dumps(answer | {key: wrong}).encode()
        yield f"{key} left out", json.dumps({k: answer[k] for k in answer if k != key}).encode()
    yield "a key more", json.dumps(answer | {"more": 1}).encode()


def _wrong_values(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield "negated", not value
    elif isinstance(value, int | float):
        yield "off by 1 %", value * 1.01 or 0.01
        yield "with the other sign", -value or 1
        yield "as text", str(value)
    elif isinstance(value, str):
        yield "with a letter more", f"{value}s"
        yield "cut", value[:-1]


def _json_rewrites(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    answer = json.loads(content)
    if isinstance(answer, dict):
        turned = dict(reversed(answer.items()))
        yield "keys in another order", json.dumps(turned).encode()
        yield "indented", (json.dumps(answer, indent=4) + "\n").encode()


_MUTANTS: Mapping[str, Callable[..., Iterator[Change]]] = {
    ".py": _code_mutants,
    ".json": _json_mutants,
    ".csv": csv_mutants,
    ".docx": office_mutants,
    ".parquet": parquet_mutants,
    ".pptx": office_mutants,
    ".xlsx": region_mutants,
}
_REWRITES: Mapping[str, Callable[..., Iterator[Change]]] = {
    ".py": _code_rewrites,
    ".csv": csv_rewrites,
    ".docx": office_rewrites,
    ".json": _json_rewrites,
    ".parquet": parquet_rewrites,
    ".pptx": office_rewrites,
    ".xlsx": workbook_rewrites,
}
