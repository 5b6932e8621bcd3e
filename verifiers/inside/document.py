"""Reads a .docx: its blocks in order, with tracked changes both ways, and what is not a block.

Text is read with all tracked changes accepted, and again with all of them rejected. Text that no
reader sees stands apart, to be compared and not to be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from .answering import Refusal, answer, parsing
from .archive import attribute, local, named, parts_of, related, tree, weigh
from .document_parts import Parts
from .document_sight import Styles, floats, unseen
from .rendering import render

FILTER = "MS Word 2007 XML"
MAX_BLOCKS = 5000
RUN_LOOKS = ("b", "i", "u", "strike", "sz", "color", "highlight", "vertAlign")
ADDED, REMOVED = ("ins", "moveTo"), ("del", "moveFrom")


def main() -> None:
    """Answer the request on standard input."""
    answer(read)


def read(request: dict[str, Any]) -> dict[str, Any]:
    """The document, the seed's one beside it, and the rendered pages when they are asked for."""
    path = Path(request["path"])
    reading: dict[str, Any] = {"document": document(path), "original": None, "pages": []}
    if request["original"]:
        reading["original"] = document(Path(request["original"]))
    before = reading["original"]
    doubt = reading["document"]["doubt"]
    if doubt > (before["doubt"] if before else 0) or request["render"]:
        reading["pages"] = render(path, FILTER, request["timeout_s"])
    return reading


def document(path: Path) -> dict[str, Any]:
    """Blocks and other parts of one file."""
    weigh(path, "document")
    with parsing("document"):
        archive = parts_of(path)
        main_part = next((t for _, kind, t in related(archive, "") if kind == "officeDocument"), "")
        root, parts = tree(archive[main_part]), Parts(archive, main_part)
        sheet = next((t for _, kind, t in parts.links if kind == "styles"), "")
        styles = Styles(tree(archive[sheet]) if sheet in archive else None, root)
        body = next(named(root, "body"))
        found = list(_blocks(body))
        if len(found) > MAX_BLOCKS:
            raise Refusal("too_big", f"it has {len(found)} blocks, over {MAX_BLOCKS}")
        facets = dict(parts.facets(body))
        facets["page colour"] = styles.page
        doubt = floats(root)
        blocks = []
        for element in found:
            digest = parts.digest(element)
            block, doubts = _block(element, styles)
            blocks.append({**block, "digest": digest})
            doubt += doubts
        return {"blocks": blocks, "parts": facets, "doubt": doubt}


def _blocks(element: Element) -> Iterator[Element]:
    for child in element:
        if local(child) in ("p", "tbl"):
            yield child
        elif local(child) in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag"):
            yield from _blocks(child)


def _block(element: Element, styles: Styles) -> tuple[dict[str, Any], int]:
    """What a block says, and of how many of its runs only the rendered page can tell."""
    hidden, doubts = _take_out_unseen(element, styles)
    concealed, kept = "".join(t for t, _ in hidden), "".join(t for t, added in hidden if not added)
    changes = sum(local(e) in (*ADDED, *REMOVED) for e in element.iter())
    pictures = sum(local(e) in ("blip", "chart") for e in element.iter())
    if local(element) == "tbl":
        rows = [
            [
                "\n".join(_text(p, REMOVED) for p in named(cell, "p"))
                for cell in row
                if local(cell) == "tc"
            ]
            for row in named(element, "tr")
        ]
        was = ["\n".join(_text(p, ADDED) for p in named(c, "p")) for c in named(element, "tc")]
        return {"kind": "table", "style": "", "text": "", "was": "\t".join(was) + kept,
                "concealed": concealed, "rows": rows, "look": "", "changes": changes,
                "pictures": pictures, "fresh": False}, doubts  # fmt: skip
    style = next((attribute(e, "val") for e in named(element, "pStyle")), "")
    return {
        "kind": "paragraph",
        "style": styles.names.get(style, style),
        "text": _text(element, REMOVED),
        "was": _text(element, ADDED) + kept,
        "concealed": concealed,
        "rows": [],
        "look": _look(element),
        "changes": changes,
        "pictures": pictures,
        "fresh": _mark_added(element),
    }, doubts


def _mark_added(paragraph: Element) -> bool:
    """Whether the paragraph itself is a tracked insertion: it is gone when that is rejected."""
    marks = [e for p in paragraph if local(p) == "pPr" for e in p if local(e) == "rPr"]
    return any(local(e) == "ins" for mark in marks for e in mark)


def _text(element: Element, left_out: tuple[str, ...]) -> str:
    """The text of runs, but for those within elements of these names."""
    found = []
    for child in element:
        name = local(child)
        if name in left_out or name in ("pPr", "rPr"):
            continue
        if name in ("t", "delText"):
            found.append(child.text or "")
        elif name in ("tab", "br", "cr"):
            found.append("\t" if name == "tab" else "\n")
        else:
            found.append(_text(child, left_out))
    return "".join(found)


def _look(paragraph: Element) -> str:
    """How the text looks, run by run; neighbours that look the same are one."""
    told: list[str] = []
    for run in named(paragraph, "r"):
        marks = next((p for p in run if local(p) == "rPr"), None)
        looks = [] if marks is None else [e for e in marks if local(e) in RUN_LOOKS]
        look = " ".join(sorted(f"{local(e)}={attribute(e, 'val')}" for e in looks))
        if not told or told[-1] != look:
            told.append(look)
    layout = next((p for p in paragraph if local(p) == "pPr"), None)
    aligned = "" if layout is None else next((attribute(e, "val") for e in named(layout, "jc")), "")
    return " | ".join([aligned, *told]).strip(" |")


def _take_out_unseen(block: Element, styles: Styles) -> tuple[list[tuple[str, bool]], int]:
    """Remove the runs that no reader sees.

    Returns: their texts, and whether each is a tracked insertion; how many other runs are in doubt.
    """
    above = {child: parent for parent in block.iter() for child in parent}
    gone: list[tuple[str, bool]] = []
    doubts = 0
    for paragraph in list(named(block, "p")):
        around = list(_around(paragraph, above))
        for parent in list(paragraph.iter()):
            for run in [each for each in parent if local(each) == "r"]:
                hidden, doubt = unseen(run, paragraph, around, styles)
                doubts += doubt
                if hidden:
                    parent.remove(run)
                    gone.append((_text(run, ()), local(parent) in ADDED))
    return gone, doubts


def _around(element: Element, above: dict[Element, Element]) -> Iterator[Element]:
    """What an element stands in, the nearest first."""
    while element in above:
        element = above[element]
        yield element
