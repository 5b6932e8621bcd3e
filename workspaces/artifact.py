"""What leaves a workspace: the declared files that differ from its seed, and nothing else."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .base import Workspace
from .types import MIB

MAX_ARTIFACT_BYTES = 32 * MIB


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """An agent's work: path relative to `WORKDIR` -> new content, None = deleted."""

    files: Mapping[str, bytes | None]


def pack_tree(files: Mapping[str, bytes]) -> bytes:
    """A gzipped tar of regular files; the same files give the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(files):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(files[path]), 0o644
            tar.addfile(info, io.BytesIO(files[path]))
    return gzip.compress(plain.getvalue(), mtime=0)


def unpack_tree(packed: bytes) -> dict[str, bytes]:
    """The regular files of a (gzipped) tar, by path."""
    if not packed:
        return {}
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:*") as tar:
        members = [member for member in tar if member.isfile()]
        return {member.name: _content(tar, member) for member in members}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None, "isfile() was checked"
    return stream.read()


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
