"""Brings a source's files to the host as bytes. Runs none of the package's code.

pip downloads sdists (its own configuration, caches and proxies count) with an inert build back end
in place of the package's; git clones shallowly with hooks and submodules off.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from ...workspaces import MIB
from ..family import SourceError
from ..files import write_bytes
from . import inert_build
from .sources import Source, check_licence, is_git

MAX_TREE_BYTES = 64 * MIB
MAX_FILE_BYTES = 8 * MIB
SKIPPED = {".git", ".hg", ".tox", ".venv", "__pycache__", "node_modules", ".mypy_cache"}

Tree = dict[str, bytes]
"""Path relative to the source's root -> content."""


def fetch(source: Source, cache: Path) -> tuple[Tree, str]:
    """The files of a source and its licence.

    Raises:
        SourceError: it cannot be had, is not what was pinned, or states another licence.
    """
    if Path(source.requirement).is_dir():
        tree = _read_folder(Path(source.requirement))
    elif is_git(source.requirement):
        tree = _clone(source)
    else:
        tree = _unpack(_sdist(source, cache / "sdists"))
    stated, classifiers = _stated_licence(tree)
    return tree, check_licence(source, stated, classifiers)


def _sdist(source: Source, folder: Path) -> Path:
    folder = folder / source.requirement
    found = list(folder.glob("*.tar.gz"))
    archive = found[0] if found else _download(source, folder)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if source.sha256 and digest != source.sha256:
        raise SourceError(
            f"{source.requirement}: the sdist has SHA-256 {digest}, {source.sha256} is pinned; "
            f"delete {archive} and try again, or correct the pin"
        )
    return archive


def _download(source: Source, folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as scratch:
        mark, target = Path(scratch, "mark"), Path(scratch, "sdist")
        shutil.copy(inert_build.__file__, Path(scratch, "sitecustomize.py"))
        env = {**os.environ, "PYTHONPATH": scratch, inert_build.MARK: str(mark)}
        _call(
            source,
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(target)),
                *("--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--use-pep517"),
                source.requirement,
            ],
            env,
        )
        found = list(target.glob("*.tar.gz"))
        if not mark.exists() or len(found) != 1:
            raise SourceError(
                f"{source.requirement}: pip brought no plain .tar.gz through the inert build back "
                f"end; use a folder or a git URL as the source instead"
            )
        kept = folder / found[0].name
        write_bytes(kept, found[0].read_bytes())  # another run may want the same now
        return kept


def _clone(source: Source) -> Tree:
    with tempfile.TemporaryDirectory() as scratch:
        url = source.requirement.removeprefix("git+")
        options = ["-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=false"]
        command = ["git", *options, "clone", "--quiet", "--depth", "1", "--", url, scratch]
        _call(source, command, {**os.environ, "GIT_TERMINAL_PROMPT": "0"})
        return _read_folder(Path(scratch))


def _call(source: Source, command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = " ".join(done.stderr.strip().splitlines()[-3:])[-400:]
        raise SourceError(
            f"source {source.name} could not be fetched from {source.requirement}: {tail}; "
            f"check the name and that the registry or repository answers"
        )


def _unpack(archive: Path) -> Tree:
    """The regular files of an sdist without its top folder; nothing is written to disk."""
    tree: Tree = {}
    left = MAX_TREE_BYTES
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise SourceError(f"{archive.name} holds {member.name!r}, out of its own folder")
            if not member.isfile() or len(path.parts) < 2 or SKIPPED & set(path.parts):
                continue
            left -= member.size
            if left < 0:
                raise SourceError(f"{archive.name} unpacks to over {MAX_TREE_BYTES // MIB} MiB")
            stream = tar.extractfile(member)
            assert stream is not None, "isfile() was checked"
            tree["/".join(path.parts[1:])] = stream.read()
    return tree


def _read_folder(root: Path) -> Tree:
    """The regular files below a folder; links are left out, never followed."""
    tree: Tree = {}
    left = MAX_TREE_BYTES
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if SKIPPED & set(relative.parts) or path.is_symlink() or not path.is_file():
            continue
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            continue
        left -= size
        if left < 0:
            raise SourceError(f"{root} holds over {MAX_TREE_BYTES // MIB} MiB; name a smaller one")
        tree[relative.as_posix()] = path.read_bytes()
    return tree


def _stated_licence(tree: Tree) -> tuple[str | None, tuple[str, ...]]:
    headers = HeaderParser().parsestr(tree.get("PKG-INFO", b"").decode("utf-8", "replace"))
    classifiers = [str(c) for c in headers.get_all("Classifier", [])]
    licences = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License ::")]
    return headers.get("License-Expression"), tuple(licences)
