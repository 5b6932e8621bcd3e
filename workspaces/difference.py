"""How a workspace differs from its seed: what was added, changed, removed, and a text patch.

For people and models that look at an episode; what is judged is an `Artifact`. Folders are not
told of, nor are owners and times.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .base import Workspace
from .trees import seed_files
from .types import KIB, Entry

MAX_TEXT_BYTES = 256 * KIB
"""Of one file in a patch; comparing lines takes time that grows faster than their number."""
EXECUTABLE = 0o111


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What became of the seed. Paths are relative to `WORKDIR` and sorted."""

    added: Mapping[str, Entry]
    changed: Mapping[str, Entry]
    """Other content, another kind, or executable where it was not, or no longer."""
    removed: tuple[str, ...]
    patch: str
    """What `git apply` makes of the seed, except for links, special files, and files that are not
    UTF-8 or too long, which are named only."""


async def difference(workspace: Workspace, paths: Sequence[str] = (".",)) -> Difference:
    """Compare a workspace with its seed, at and below each path.

    Raises: as `Workspace.list_tree`.
    """
    found = await workspace.list_tree(paths)
    seed = {
        path: file
        for path, file in seed_files(workspace.spec.seed).items()
        if any(root == "." or path == root or path.startswith(f"{root}/") for root in paths)
    }
    now = {path: entry for path, entry in found.items() if entry.kind != "folder"}
    added = {path: entry for path, entry in now.items() if path not in seed}
    changed = {
        path: entry for path, entry in now.items()
        if path in seed and _marks(entry) != _seed_marks(*seed[path])
    }  # fmt: skip
    removed = tuple(sorted(seed.keys() - now.keys()))
    told = sorted({*added, *changed, *removed})
    texts = {path: await _text(workspace, path, now[path]) for path in told if path in now}
    patch = await asyncio.to_thread(
        lambda: "".join(
            part for path in told for part in _patch(path, seed.get(path), now.get(path), texts)
        )
    )
    return Difference(added=added, changed=changed, removed=removed, patch=patch)


def _marks(entry: Entry) -> tuple[str, str, bool]:
    return entry.kind, entry.content, bool(entry.mode & EXECUTABLE) and entry.kind == "file"


def _seed_marks(content: bytes, mode: int) -> tuple[str, str, bool]:
    return "file", hashlib.sha256(content).hexdigest(), bool(mode & EXECUTABLE)


async def _text(workspace: Workspace, path: str, entry: Entry) -> str | None:
    """A file that a patch can show; None = it cannot."""
    if entry.kind != "file" or entry.size > MAX_TEXT_BYTES:
        return None
    return _decoded(await workspace.get(path, max_bytes=MAX_TEXT_BYTES))


def _decoded(content: bytes) -> str | None:
    if b"\0" in content or len(content) > MAX_TEXT_BYTES:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _patch(
    path: str, seed: tuple[bytes, int] | None, entry: Entry | None, texts: Mapping[str, str | None]
) -> Iterator[str]:
    """One file, as git writes it."""
    old, new = (_name(side + path) for side in ("a/", "b/"))
    yield f"diff --git {old} {new}\n"
    modes = _mode(seed[1]) if seed else "", _mode(entry.mode) if entry else ""
    if not modes[0]:
        yield f"new file mode {modes[1]}\n"
    elif not modes[1]:
        yield f"deleted file mode {modes[0]}\n"
    elif modes[0] != modes[1]:
        yield f"old mode {modes[0]}\nnew mode {modes[1]}\n"
    before = _decoded(seed[0]) if seed else ""
    after = texts[path] if entry else ""
    if before is None or after is None:
        kind = entry.kind if entry else "file"
        yield f"Binary files {old} and {new} differ ({kind}, {entry.size if entry else 0} bytes)\n"
        return
    if before == after:
        return
    yield f"--- {old if seed else '/dev/null'}{_end(path)}\n"
    yield f"+++ {new if entry else '/dev/null'}{_end(path)}\n"
    lines = difflib.unified_diff(_lines(before), _lines(after), n=3)
    for line in list(lines)[2:]:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(text: str) -> list[str]:
    """Lines end at a line feed and at nothing else."""
    return [f"{line}\n" for line in text.split("\n")[:-1]] + list(
        filter(None, [text.split("\n")[-1]])
    )


def _mode(mode: int) -> str:
    return "100755" if mode & EXECUTABLE else "100644"


def _name(path: str) -> str:
    """A name as git quotes it."""
    if path.isprintable() and not set(path) & set('"\\'):
        return path
    raw = path.encode(errors="surrogateescape")
    kept = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}"
        for byte in raw
    )
    return f'"{kept}"'


def _end(path: str) -> str:
    return "\t" if " " in path and path.isprintable() else ""
