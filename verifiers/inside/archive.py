"""Office files as the archives they are: weighed first, then read part by part."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from .answering import Refusal

MAX_MEMBERS = 1000
MAX_UNPACKED_BYTES = 48 << 20


def weigh(path: Path, kind: str) -> None:
    """Refuse what is no zip archive or would unpack to too much.

    Raises:
        Refusal: `missing`, `no_KIND` or `too_big`.
    """
    if not path.exists():
        raise Refusal("missing", "there is no such file")
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise Refusal(f"no_{kind}", "it is not a zip archive, as every such file is")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Refusal(f"no_{kind}", f"{type(error).__name__}: {error}") from None
    size = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS or size > MAX_UNPACKED_BYTES:
        raise Refusal("too_big", f"{len(members)} parts unpack to {size} bytes")


def parts_of(path: Path) -> dict[str, bytes]:
    """Every part of a weighed archive by its name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def tree(data: bytes) -> Element:
    """A part's XML."""
    return ElementTree.fromstring(data)


def local(element: Element) -> str:
    """The name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def attribute(element: Element, name: str) -> str:
    """An attribute whatever its namespace; empty = it is not there."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return ""


def link(element: Element) -> str:
    """The id of the relationship that an element names; empty = it names none."""
    for key, value in element.attrib.items():
        space, _, name = key.rpartition("}")
        if space.endswith("relationships") and name == "id":
            return value
    return ""


def named(element: Element, name: str) -> Iterator[Element]:
    """The element itself and all below it that have a name, whatever their namespace."""
    return (each for each in element.iter() if local(each) == name)


def related(parts: Mapping[str, bytes], part: str) -> Iterator[tuple[str, str, str]]:
    """What a part points to: id, kind (the last word of its type), and the target part's name.

    A target outside of the archive begins with `external:`.
    """
    folder, name = posixpath.split(part)
    rels = parts.get(posixpath.join(folder, "_rels", f"{name}.rels"))
    if rels is None:
        return
    for element in named(tree(rels), "Relationship"):
        target = element.get("Target", "")
        if element.get("TargetMode") == "External":
            where = f"external:{target}"
        elif target.startswith("/"):
            where = target.lstrip("/")
        else:
            where = posixpath.normpath(posixpath.join(folder, target))
        yield element.get("Id", ""), element.get("Type", "").rpartition("/")[2], where
