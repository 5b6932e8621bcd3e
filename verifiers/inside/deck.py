"""Reads a .pptx: its slides in order, with the place and content of every shape, and its charts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, canonicalize

from .answering import Refusal, answer, parsing
from .archive import link, local, named, parts_of, related, tree, weigh
from .rendering import render

FILTER = "Impress MS PowerPoint 2007 XML"
MAX_SLIDES = 60
EMU_PER_PT = 12700
SHAPES = ("sp", "pic", "graphicFrame", "cxnSp")
SHARED = ("slideMaster", "theme", "notesMaster")


def main() -> None:
    """Answer the request on standard input."""
    answer(read)


def read(request: dict[str, Any]) -> dict[str, Any]:
    """The deck, the seed's one beside it, and the rendered pages when they are asked for."""
    path = Path(request["path"])
    reading: dict[str, Any] = {"deck": deck(path), "original": None, "pages": []}
    if request["original"]:
        reading["original"] = deck(Path(request["original"]))
    if request["render"]:
        reading["pages"] = render(path, FILTER, request["timeout_s"])
    return reading


def deck(path: Path) -> dict[str, Any]:
    """Size in points, slides, and digests of what slides share."""
    weigh(path, "deck")
    with parsing("deck"):
        archive = parts_of(path)
        main_part = next((t for _, kind, t in related(archive, "") if kind == "officeDocument"), "")
        show = tree(archive[main_part])
        size = next(named(show, "sldSz"))
        targets = {key: target for key, _, target in related(archive, main_part)}
        order = [targets.get(link(each), "") for each in named(show, "sldId")]
        if len(order) > MAX_SLIDES:
            raise Refusal("too_big", f"it has {len(order)} slides, over {MAX_SLIDES}")
        return {
            "width": int(size.get("cx", "0")) / EMU_PER_PT,
            "height": int(size.get("cy", "0")) / EMU_PER_PT,
            "slides": [_slide(archive, part) for part in order],
            "parts": dict(_shared(archive, main_part)),
        }


def _shared(archive: Mapping[str, bytes], part: str) -> Iterator[tuple[str, str]]:
    for _, kind, target in related(archive, part):
        if kind in SHARED and target in archive:
            yield f"{kind} {target}", _digest(archive[target])
            for _, below, layout in related(archive, target):
                if below == "slideLayout" and layout in archive:
                    yield f"layout {layout}", _digest(archive[layout])
    if any("vbaProject" in name for name in archive):
        yield "macros", ""


def _digest(xml: bytes) -> str:
    return hashlib.sha256(canonicalize(xml.decode("utf-8")).encode()).hexdigest()[:16]


def _slide(archive: Mapping[str, bytes], part: str) -> dict[str, Any]:
    root = tree(archive[part])
    links = {key: (kind, target) for key, kind, target in related(archive, part)}
    layout = next((t for kind, t in links.values() if kind == "slideLayout"), "")
    places = _inherited(archive, layout)
    shapes = [_shape(e, archive, links, places) for e in _shapes(root)]
    notes = next((t for kind, t in links.values() if kind == "notesSlide"), "")
    told = _texts(tree(archive[notes])) if notes in archive else ""
    title = next((s["text"] for s in shapes if s["role"] in ("title", "ctrTitle")), "")
    return {
        "layout": layout,
        "title": title,
        "shapes": shapes,
        "notes": told,
        "hidden": root.get("show") in ("0", "false"),
        "digest": _slide_digest(archive, part, links),
    }


def _slide_digest(
    archive: Mapping[str, bytes], part: str, links: Mapping[str, tuple[str, str]]
) -> str:
    """The whole of a slide and of the charts, pictures and notes that it shows."""
    whole = [_digest(archive[part])]
    for kind, target in sorted(links.values()):
        if target in archive and kind in ("chart", "image", "notesSlide"):
            data = archive[target]
            xml = target.endswith(".xml")
            whole.append(_digest(data) if xml else hashlib.sha256(data).hexdigest())
    return hashlib.sha256(" ".join(whole).encode()).hexdigest()[:16]


def _shapes(root: Element) -> Iterator[Element]:
    for group in named(root, "spTree"):
        yield from _in_group(group)


def _in_group(group: Element) -> Iterator[Element]:
    for child in group:
        if local(child) in SHAPES:
            yield child
        elif local(child) == "grpSp":
            yield from _in_group(child)


def _shape(
    element: Element,
    archive: Mapping[str, bytes],
    links: Mapping[str, tuple[str, str]],
    places: Mapping[str, list[float]],
) -> dict[str, Any]:
    holder = next(named(element, "ph"), None)
    role = "" if holder is None else holder.get("type", "body")
    key = "" if holder is None else f"{holder.get('idx', '0')}"
    keys = [link(e) for e in named(element, "chart")]
    target = next((links[each][1] for each in keys if each in links), "")
    rows = [[_texts(cell) for cell in row if local(cell) == "tc"] for row in named(element, "tr")]
    return {
        "name": next((e.get("name", "") for e in named(element, "cNvPr")), ""),
        "kind": local(element),
        "role": role,
        "box": _box(element) or places.get(key) or places.get(role),
        "text": "" if rows else _texts(element),
        "rows": rows,
        "chart": _chart(tree(archive[target])) if target in archive else None,
    }


def _inherited(archive: Mapping[str, bytes], layout: str) -> dict[str, list[float]]:
    """Where placeholders stand that name no place of their own."""
    found: dict[str, list[float]] = {}
    masters = [t for _, kind, t in related(archive, layout) if kind == "slideMaster"]
    for part in (*masters, layout):
        if part not in archive:
            continue
        for element in _shapes(tree(archive[part])):
            holder, box = next(named(element, "ph"), None), _box(element)
            if holder is not None and box is not None:
                found[holder.get("type", "body")] = box
                found[holder.get("idx", "0")] = box
    return found


def _box(element: Element) -> list[float] | None:
    """Left, top, width and height in points; None = the shape names no place."""
    frame = next((e for e in element.iter() if local(e) == "xfrm"), None)
    corner = None if frame is None else next(named(frame, "off"), None)
    size = None if frame is None else next(named(frame, "ext"), None)
    if corner is None or size is None:
        return None
    numbers = (corner.get("x"), corner.get("y"), size.get("cx"), size.get("cy"))
    return [int(number or "0") / EMU_PER_PT for number in numbers]


def _texts(element: Element) -> str:
    lines = ["".join(t.text or "" for t in named(p, "t")) for p in named(element, "p")]
    return "\n".join(lines).strip()


def _chart(space: Element) -> dict[str, Any]:
    """Kinds, categories and series of a chart, as they are stored in it."""
    kinds = [local(e) for a in named(space, "plotArea") for e in a if local(e).endswith("Chart")]
    series: list[dict[str, Any]] = []
    categories: list[str] = []
    for element in named(space, "ser"):
        parts = {local(part): _points(part) for part in element}
        categories = parts.get("cat") or parts.get("xVal") or categories
        series.append(
            {
                "name": " ".join(parts.get("tx", [])),
                "values": [float(v) for v in parts.get("val") or parts.get("yVal") or []],
            }
        )
    return {"kinds": kinds, "categories": categories, "series": series}


def _points(part: Element) -> list[str]:
    return [v.text or "" for point in named(part, "pt") for v in named(point, "v")]
