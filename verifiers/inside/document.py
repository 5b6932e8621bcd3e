"""Reads a .docx: its blocks in order, with tracked changes both ways, and what is not a block.

Text is read with all tracked changes accepted, and again with all of them rejected. Hidden text
stands apart, to be compared and not to be read; text in the colour of its ground is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from .answering import Refusal, answer, parsing
from .archive import attribute, local, named, parts_of, related, tree, weigh
from .rendering import render

FILTER = "MS Word 2007 XML"
MAX_BLOCKS = 5000
MAX_STYLE_DEPTH = 30
RUN_LOOKS = ("b", "i", "u", "strike", "sz", "color", "highlight", "vertAlign")
ADDED, REMOVED = ("ins", "moveTo"), ("del", "moveFrom")
TOLD = {"header": "header", "footer": "footer", "comments": "comments", "footnotes": "footnotes"}


def main() -> None:
    """Answer the request on standard input."""
    answer(read)


def read(request: dict[str, Any]) -> dict[str, Any]:
    """The document, the seed's one beside it, and the rendered pages when they are asked for."""
    path = Path(request["path"])
    reading: dict[str, Any] = {"document": document(path), "original": None, "pages": []}
    if request["original"]:
        reading["original"] = document(Path(request["original"]))
    if request["render"]:
        reading["pages"] = render(path, FILTER, request["timeout_s"])
    return reading


def document(path: Path) -> dict[str, Any]:
    """Blocks and other parts of one file."""
    weigh(path, "document")
    with parsing("document"):
        archive = parts_of(path)
        main_part = next((t for _, kind, t in related(archive, "") if kind == "officeDocument"), "")
        sheet = next((t for _, kind, t in related(archive, main_part) if kind == "styles"), "")
        styles = list(named(tree(archive[sheet]), "style")) if sheet in archive else []
        body = next(named(tree(archive[main_part]), "body"))
        names, hiding = _names(styles), _hiding(styles)
        blocks = [_block(element, names, hiding) for element in _blocks(body)]
        if len(blocks) > MAX_BLOCKS:
            raise Refusal("too_big", f"it has {len(blocks)} blocks, over {MAX_BLOCKS}")
        return {"blocks": blocks, "parts": dict(_parts(archive, main_part, body))}


def _blocks(element: Element) -> Iterator[Element]:
    for child in element:
        if local(child) in ("p", "tbl"):
            yield child
        elif local(child) in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag"):
            yield from _blocks(child)


def _block(element: Element, names: dict[str, str], hiding: frozenset[str]) -> dict[str, Any]:
    hidden = list(_take_out_hidden(element, hiding))
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
                "concealed": concealed, "rows": rows, "look": "",
                "changes": changes, "pictures": pictures, "fresh": False}  # fmt: skip
    style = next((attribute(e, "val") for e in named(element, "pStyle")), "")
    return {
        "kind": "paragraph",
        "style": names.get(style, style),
        "text": _text(element, REMOVED),
        "was": _text(element, ADDED) + kept,
        "concealed": concealed,
        "rows": [],
        "look": _look(element),
        "changes": changes,
        "pictures": pictures,
        "fresh": _mark_added(element),
    }


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


def _names(styles: list[Element]) -> dict[str, str]:
    return {
        attribute(style, "styleId"): next((attribute(n, "val") for n in named(style, "name")), "")
        for style in styles
    }


def _hiding(styles: list[Element]) -> frozenset[str]:
    """The styles whose text is hidden, by themselves or by the style they are based on."""
    said = {attribute(style, "styleId"): _vanishes(style) for style in styles}
    based = {
        attribute(style, "styleId"): next(
            (attribute(e, "val") for e in named(style, "basedOn")), ""
        )
        for style in styles
    }

    def hides(style: str, depth: int = MAX_STYLE_DEPTH) -> bool:
        if style not in said or not depth:
            return False
        own = said[style]
        return hides(based[style], depth - 1) if own is None else own

    return frozenset(filter(hides, said))


def _vanishes(element: Element) -> bool | None:
    """Whether it says that its text is hidden; None = it says nothing."""
    mark = next(named(element, "vanish"), None)
    return None if mark is None else attribute(mark, "val") not in ("0", "false", "off")


def _take_out_hidden(block: Element, hiding: frozenset[str]) -> Iterator[tuple[str, bool]]:
    """Remove the runs that no reader sees; their texts, and whether each is a tracked insertion."""
    for paragraph in list(named(block, "p")):
        below = hiding.intersection(attribute(e, "val") for e in named(paragraph, "pStyle"))
        for parent in list(paragraph.iter()):
            for run in [each for each in parent if local(each) == "r"]:
                marks = next((e for e in run if local(e) == "rPr"), run)
                own = None if marks is run else _vanishes(marks)
                styled = below or hiding.intersection(
                    attribute(e, "val") for e in named(marks, "rStyle")
                )
                if own or (own is None and styled):
                    parent.remove(run)
                    yield _text(run, ()), local(parent) in ADDED


def _parts(archive: dict[str, bytes], part: str, body: Element) -> Iterator[tuple[str, str]]:
    """Headers, footers, comments and notes by their text; pictures; styles; page sizes; macros."""
    for kind, target in sorted(each[1:] for each in related(archive, part)):
        if target not in archive:
            continue
        if kind in TOLD:
            texts = [_text(p, REMOVED) for p in named(tree(archive[target]), "p")]
            yield f"{TOLD[kind]} {target.rpartition('/')[2]}", "\n".join(texts).strip()
        elif kind == "image":
            digest = hashlib.sha256(archive[target]).hexdigest()[:16]
            yield f"picture {digest}", ""
        elif kind == "styles":
            for style in named(tree(archive[target]), "style"):
                looks = [e for e in style.iter() if local(e) in (*RUN_LOOKS, "rFonts", "basedOn")]
                told = [f"{local(e)}={attribute(e, 'val') or attribute(e, 'ascii')}" for e in looks]
                yield f"style {attribute(style, 'styleId')}", " ".join(told)
    for number, section in enumerate(named(body, "sectPr"), 1):
        sizes = [e for e in section if local(e) in ("pgSz", "pgMar")]
        told = [f"{name.rpartition('}')[2]}={e.attrib[name]}" for e in sizes for name in e.attrib]
        told.sort()
        yield f"section {number}", " ".join(told)
    if any("vbaProject" in name for name in archive):
        yield "macros", ""
