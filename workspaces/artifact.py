"""What leaves a workspace: the declared files that differ from its seed, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .base import Workspace
from .trees import pack_tree, unpack_tree
from .types import MIB

MAX_ARTIFACT_BYTES = 32 * MIB


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """An agent's work: path relative to `WORKDIR` -> new content, None = deleted."""

    files: Mapping[str, bytes | None]


async def collect(workspace: Workspace, paths: Sequence[str]) -> Artifact:
    """The files at or below `paths` that were changed, added or deleted since the seed.

    Raises:
        FileRefused: a link or special file stands where a file was declared, or it is too big.
        WorkspaceGone: the workspace itself failed.
    """
    now = await workspace.get_tree(paths, max_bytes=MAX_ARTIFACT_BYTES)
    seed = {p: c for p, c in unpack_tree(workspace.spec.seed).items() if _below(p, paths)}
    changed: dict[str, bytes | None] = {p: c for p, c in now.items() if seed.get(p) != c}
    deleted: dict[str, bytes | None] = dict.fromkeys(seed.keys() - now.keys())
    return Artifact(files=dict(sorted((changed | deleted).items())))


async def lay(workspace: Workspace, artifact: Artifact) -> None:
    """Put an artifact into a fresh workspace of the same seed."""
    gone = [path for path, content in artifact.files.items() if content is None]
    if gone:
        await workspace.exec(["rm", "-f", "--", *gone])
    kept = {path: content for path, content in artifact.files.items() if content is not None}
    if kept:
        await workspace.put_tree(pack_tree(kept))


def _below(path: str, roots: Sequence[str]) -> bool:
    return any(root == "." or path == root or path.startswith(root + "/") for root in roots)
