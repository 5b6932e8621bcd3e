"""Trees of files as tars: made, and taken apart without trust. Writes nothing to a disk."""

from __future__ import annotations

import gzip
import io
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Mapping

from .errors import FileRefused
from .types import MIB

GZIP = b"\x1f\x8b"
MAX_TREE_BYTES = 1024 * MIB
"""What a tar may unpack to where nobody says less."""


def pack_tree(files: Mapping[str, bytes]) -> bytes:
    """A gzipped tar of regular files; the same files give the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(files):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(files[path]), 0o644
            tar.addfile(info, io.BytesIO(files[path]))
    return gzip.compress(plain.getvalue(), mtime=0)


def unpack_tree(packed: bytes, *, max_bytes: int = MAX_TREE_BYTES) -> dict[str, bytes]:
    """The regular files of a (gzipped) tar, by path.

    Raises:
        FileRefused: it is no tar, or one of more than `max_bytes`.
    """
    if not packed:
        return {}
    return {
        member.name: content
        for member, content in _members(packed, max_bytes)
        if member.isfile()
    }  # fmt: skip


def seed_files(packed: bytes) -> dict[str, tuple[bytes, int]]:
    """Content and mode of each file that a seed lays."""
    if not packed:
        return {}
    files, _, contents = members_of(packed, ".", max_bytes=MAX_TREE_BYTES)
    found, offset = {}, 0
    for path, mode, size in files:
        found[posixpath.normpath(path)] = contents[offset : offset + size], mode
        offset += size
    return found


def members_of(
    tar: bytes, path: str, *, max_bytes: int
) -> tuple[list[tuple[str, int, int]], list[str], bytes]:
    """The files (path, mode, size), folders and joined contents of a tar laid below `path`.

    Raises:
        FileRefused: it is no tar or has more than `max_bytes`, or a member is a link, a device or
            leaves the tree.
    """
    files, folders, contents = [], [], []
    for member, content in _members(tar, max_bytes):
        if not (member.isfile() or member.isdir()):
            raise FileRefused(f"{member.name!r} is neither a regular file nor a folder")
        if member.name.startswith("/") or ".." in member.name.split("/"):
            raise FileRefused(f"{member.name!r} leaves the tree it is laid in")
        place = posixpath.join(path, member.name)
        if member.isdir():
            folders.append(place)
            continue
        contents.append(content)
        files.append((place, member.mode & 0o777 | 0o600, len(content)))
    return files, folders, b"".join(contents)


def _members(packed: bytes, max_bytes: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Every member with its content, empty for what has none."""
    try:
        plain = _unzipped(packed, max_bytes)
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                yield member, stream.read() if stream else b""
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FileRefused(f"expected a tar, plain or gzipped: {error}") from error


def _unzipped(packed: bytes, max_bytes: int) -> bytes:
    """The plain tar; no more of it is made than allowed, whatever it claims to be."""
    if not packed.startswith(GZIP):
        return packed
    unzip = zlib.decompressobj(wbits=31)
    plain = unzip.decompress(packed, max_bytes + 1)
    if len(plain) > max_bytes:
        raise FileRefused(f"the tar unpacks to more than {max_bytes} bytes")
    if not unzip.eof:
        raise FileRefused("expected a whole gzipped tar, got one that is cut off")
    return plain
