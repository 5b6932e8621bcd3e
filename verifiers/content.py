"""The text of an agent's file as a reader would see it, for verifiers that read and do not compare.

Only the declared file is read, never what the agent said about it. Pictures, charts without text
and layout are not seen.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ..workspaces import KIB, FileRefused, Workspace
from .document import level
from .reading import read_inside, unreadable
from .types import Check
from .workbook_reading import Cell, read_workbook

MAX_BYTES = 256 * KIB
MAX_CHARS = 60_000
"""About 15,000 tokens. More is refused, since a part would not show the whole."""


async def content_of(workspace: Workspace, path: str) -> str | Check:
    """The text of a file, or the check that says why there is none to judge.

    Office files are read inside the workspace; everything else must be text in UTF-8. Characters
    that show nothing (zero width, direction marks, tags) are taken out. What comes back as text
    holds at least one letter or digit.

    Raises:
        WorkspaceError: the workspace failed, or its image cannot read such a file.
    """
    read = _READERS.get(PurePosixPath(path).suffix.lower(), _plain)
    found = await read(workspace, path)
    if isinstance(found, Check):
        return found
    text = "".join(filter(_shows, found)).strip()
    if not any(character.isalnum() for character in text):
        return unreadable(path, "text to judge", "empty", "no letter and no digit stands in it")
    if len(text) > MAX_CHARS:
        return unreadable(path, "text to judge", "too_big", f"over {MAX_CHARS} characters")
    return text


def _shows(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Co", "Cs")


async def _plain(workspace: Workspace, path: str) -> str | Check:
    try:
        return (await workspace.get(path, max_bytes=MAX_BYTES)).decode("utf-8-sig")
    except FileNotFoundError:
        return unreadable(path, "text to judge", "missing", "there is no such file")
    except (FileRefused, UnicodeDecodeError) as error:
        return unreadable(path, "text to judge", "no_text", str(error))


async def _document(workspace: Workspace, path: str) -> str | Check:
    request = {"path": path, "original": None, "render": False}
    found = await read_inside(workspace, "document", request)
    if found["ending"] != "read":
        return unreadable(path, "a document", found["ending"], found["detail"])
    return "\n\n".join(map(_block, found["document"]["blocks"]))


def _block(block: Mapping[str, Any]) -> str:
    if block["rows"]:
        return _rows(block["rows"])
    depth = level(block)
    return f"{'#' * depth} {block['text']}" if depth else str(block["text"])


async def _deck(workspace: Workspace, path: str) -> str | Check:
    request = {"path": path, "original": None, "render": False}
    found = await read_inside(workspace, "deck", request)
    if found["ending"] != "read":
        return unreadable(path, "a deck", found["ending"], found["detail"])
    slides = enumerate(found["deck"]["slides"], 1)
    return "\n\n".join(text for at, s in slides if not s["hidden"] for text in _slide(at, s))


def _slide(number: int, slide: Mapping[str, Any]) -> Iterator[str]:
    """Its texts; empty when nothing but its number could be told."""
    told = []
    for shape in slide["shapes"]:
        told.append(_rows(shape["rows"]) if shape["rows"] else str(shape["text"]))
        if shape["chart"]:
            told.append(_chart(shape["chart"]))
    told.append(f"Notes: {slide['notes']}" if slide["notes"] else "")
    if any(told):
        yield f"# Slide {number}"
        yield from filter(None, told)


def _chart(chart: Mapping[str, Any]) -> str:
    lines = [f"{each['name']}: {', '.join(map(str, each['values']))}" for each in chart["series"]]
    return "\n".join([f"Chart of {', '.join(chart['categories'])}", *lines])


async def _workbook(workspace: Workspace, path: str) -> str | Check:
    reading = await read_workbook(workspace, path)
    if reading.ending != "read":
        return unreadable(path, "a workbook", reading.ending, reading.detail)
    sheets = []
    for name, cells in reading.written.items():
        state = reading.look.parts.get(name, {}).get("state", "visible")
        lines = [f"{at}: {_shown(reading.value(name, at))}" for at in cells]
        if lines and state == "visible":
            sheets.append("\n".join([f"# Sheet {name}", *lines]))
    return "\n\n".join(sheets)


def _shown(cell: Cell | None) -> str:
    return "" if cell is None else str(cell.value)


def _rows(rows: list[list[str]]) -> str:
    return "\n".join(" | ".join(row) for row in rows)


_READERS: Mapping[str, Callable[[Workspace, str], Awaitable[str | Check]]] = {
    ".docx": _document,
    ".pptx": _deck,
    ".xlsx": _workbook,
}
