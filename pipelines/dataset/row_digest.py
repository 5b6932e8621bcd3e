"""One hash of what a row says. Leaves out what a rerun of the same work would not repeat."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib

from .schema import Row

_CLOCK_ONLY = "docProps/core.xml"
"""The member of an Office package that says when it was saved."""
_MAX_MEMBER_BYTES = 64 * 1024 * 1024


def row_digest(row: Row) -> str:
    """Hash of a row without seconds and the texts of our own failures.

    An Office file in the artifact counts by its members: when it was saved is left out.
    """
    turns = [
        {name: value for name, value in turn.items() if not name.endswith("_s")}
        for turn in row["turns"]
    ]
    artifact = [{**file, "content": _content_digest(file["content"])} for file in row["artifact"]]
    kept = {name: value for name, value in row.items() if name not in ("timings", "error")}
    text = json.dumps(
        {**kept, "turns": turns, "artifact": artifact}, sort_keys=True, default=bytes.hex
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _content_digest(content: bytes | None) -> str | None:
    if content is None:
        return None
    members = _package_members(content)
    plain = content if members is None else json.dumps(members).encode()
    return hashlib.sha256(plain).hexdigest()


def _package_members(content: bytes) -> list[tuple[str, str]] | None:
    """Name and hash of each member; None = not a zip archive, or one that cannot be read."""
    if not content.startswith(b"PK"):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as package:
            infos = sorted(package.infolist(), key=lambda info: info.filename)
            if sum(info.file_size for info in infos) > _MAX_MEMBER_BYTES:
                return None
            return [
                (info.filename, hashlib.sha256(package.read(info)).hexdigest())
                for info in infos
                if info.filename != _CLOCK_ONLY
            ]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError):
        return None
