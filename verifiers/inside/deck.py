"""Reads a .pptx: its slides in order, with the place and content of every shape, and its charts.

What no reader sees is told apart: text in the colour of its ground or tiny, shapes that are hidden,
lie off the slide or are taken away by an animation. Where a shape lies under another, or the style
of a table says what is behind its text, the rendered page decides (`under`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, canonicalize

from .answering import Refusal, answer, parsing
from .archive import link, local, named, parts_of, related, tree, weigh
from .deck_sight import Palette, covering, in_doubt, leaving_shapes, shared, unseen_texts
from .rendering import lost_words, render

FILTER = "Impress MS PowerPoint 2007 XML"
MAX_SLIDES = 60
EMU_PER_PT = 12700
SHAPES = ("sp", "pic", "graphicFrame", "cxnSp")
TRACES = {
    r' id="\{[0-9A-Fa-f-]{36}\}"': "",  # of a field
    r'(:cNvPr [^>]*?)\bid="\d+"': r"\1",
    r"(?<=>)(?<!<a:t>)\s+(?=<)": "",
}
"""What programs write differently each time, in canonical XML."""
TOUCHED = 0.02
"""Share of a shape under another from which on the rendered page says what is covered."""
LEAST_CHART_PT = 20.0
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
    slides = [slide for slide in reading["deck"]["slides"] if not slide["hidden"]]
    doubt = any(shape["under"] for slide in slides for shape in slide["shapes"])
    if slides and (request["render"] or doubt):  # LibreOffice makes no pages of hidden slides alone
        reading["pages"] = render(path, FILTER, request["timeout_s"])
        for slide, page in zip(slides, reading["pages"], strict=False):
            for shape in slide["shapes"]:
                if shape["under"]:
                    _uncover(shape, lost_words(page))
    return reading


def _uncover(shape: dict[str, Any], lost: set[str]) -> None:
    """Take from a shape what the rendered page does not show: lines of text, or a whole table."""
    lines = shape["text"].split("\n")
    shape["text"] = "\n".join(line for line in lines if lost.isdisjoint(line.split()))
    shape["unseen"] += "\n".join(line for line in lines if not lost.isdisjoint(line.split()))
    if any(not lost.isdisjoint(cell.split()) for row in shape["rows"] for cell in row):
        shape["rows"] = []


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
        page = [0.0, 0.0, *(int(size.get(each, "0")) / EMU_PER_PT for each in ("cx", "cy"))]
        return {
            "width": page[2],
            "height": page[3],
            "slides": [_slide(archive, part, page) for part in order],
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
    """A part in a few letters, but for ids that programs draw anew and space between elements."""
    plain = canonicalize(xml.decode("utf-8"))
    for pattern, instead in TRACES.items():
        plain = re.sub(pattern, instead, plain)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def _slide(archive: Mapping[str, bytes], part: str, page: list[float]) -> dict[str, Any]:
    root = tree(archive[part])
    links = {key: (kind, target) for key, kind, target in related(archive, part)}
    layout = next((t for kind, t in links.values() if kind == "slideLayout"), "")
    chain = [root, *_chain(archive, layout)]
    theme = _theme(archive, layout)
    palette, places = Palette(theme, chain), _inherited(archive, layout)
    leaving = set(leaving_shapes(root))
    shapes: list[dict[str, Any]] = []
    over: list[list[float]] = []
    for element, box in reversed(list(_shapes(root))):
        looks = _looks(element, chain[1:])
        unseen = list(_take_out(element, palette, looks))
        shape = _shape(element, archive, links, places, box)
        shape["unseen"] = "\n".join(unseen)
        if element in leaving or _is_lost(shape, element, page):
            shape["unseen"] += shape["text"]
            shape |= {"text": "", "rows": [], "chart": None}
        at = shape["box"]
        under = at is not None and any(shared(at, each) > TOUCHED for each in over)
        shape["under"] = under or in_doubt(element, palette)
        if at is not None and covering(element, palette):
            over.append(at)
        shapes.append(shape)
    shapes.reverse()
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


def _chain(archive: Mapping[str, bytes], layout: str) -> list[Element]:
    """The layout and its master."""
    masters = [t for _, kind, t in related(archive, layout) if kind == "slideMaster"]
    return [tree(archive[part]) for part in (layout, *masters) if part in archive]


def _theme(archive: Mapping[str, bytes], layout: str) -> Element | None:
    masters = [t for _, kind, t in related(archive, layout) if kind == "slideMaster"]
    themes = [t for m in masters for _, kind, t in related(archive, m) if kind == "theme"]
    return next((tree(archive[part]) for part in themes if part in archive), None)


def _looks(element: Element, chain: list[Element]) -> list[Element]:
    """Where a placeholder takes its looks from: those of layout and master, then their styles."""
    holder = next(named(element, "ph"), None)
    if holder is None:
        return []
    role, key = holder.get("type", "body"), holder.get("idx", "0")
    alike = [
        other
        for root in chain
        for other, _ in _shapes(root)
        for each in named(other, "ph")
        if key == each.get("idx", "0") or role == each.get("type", "body")
    ]
    style = "titleStyle" if role in ("title", "ctrTitle") else "bodyStyle"
    return [*alike, *(e for root in chain for e in named(root, style))]


def _take_out(element: Element, palette: Palette, looks: list[Element]) -> Iterator[str]:
    """Take the text out of runs that no reader sees; what stood there."""
    for run in list(unseen_texts(element, palette, looks)):
        for text in named(run, "t"):
            yield text.text or ""
            text.text = ""


def _is_lost(shape: Mapping[str, Any], element: Element, page: list[float]) -> bool:
    """Whether a shape is hidden, off the slide, or a chart of no size."""
    if any(e.get("hidden") in ("1", "true") for e in named(element, "cNvPr")):
        return True
    box = shape["box"]
    if box is None or not box[2] * box[3]:
        return bool(shape["chart"]) and box is not None
    return shared(box, page) < 0.5 or (bool(shape["chart"]) and min(box[2:]) < LEAST_CHART_PT)


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


def _shapes(root: Element) -> Iterator[tuple[Element, list[float] | None]]:
    """Each shape and its place on the slide, out of all groups; None = it names none."""
    for group in named(root, "spTree"):
        yield from _in_group(group, (1.0, 1.0, 0.0, 0.0))


def _in_group(
    group: Element, moved: tuple[float, float, float, float]
) -> Iterator[tuple[Element, list[float] | None]]:
    across, down, right, below = moved
    for child in group:
        if local(child) in SHAPES:
            box = _box(child)
            if box is not None:
                left, top, width, height = box
                box = [left * across + right, top * down + below, width * across, height * down]
            yield child, box
        elif local(child) == "grpSp":
            own = next((e for e in child if local(e) == "nvGrpSpPr"), child)
            if any(e.get("hidden") in ("1", "true") for e in named(own, "cNvPr")):
                continue
            yield from _in_group(child, _moved(child, moved))


def _moved(
    group: Element, moved: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """How places within a group become places on the slide: times across and down, then moved."""
    frame = next((e for e in group if local(e) == "grpSpPr"), group)
    outer = _box(frame)
    inner = [
        int(next((e.get(key, "0") for e in named(frame, name)), "0")) / EMU_PER_PT
        for name, key in (("chOff", "x"), ("chOff", "y"), ("chExt", "cx"), ("chExt", "cy"))
    ]
    if outer is None or not (inner[2] and inner[3]):
        return moved
    across, down = outer[2] / inner[2], outer[3] / inner[3]
    right, below = outer[0] - inner[0] * across, outer[1] - inner[1] * down
    return (
        moved[0] * across,
        moved[1] * down,
        moved[0] * right + moved[2],
        moved[1] * below + moved[3],
    )


def _shape(
    element: Element,
    archive: Mapping[str, bytes],
    links: Mapping[str, tuple[str, str]],
    places: Mapping[str, list[float]],
    box: list[float] | None,
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
        "box": box or places.get(key) or places.get(role),
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
        for element, box in _shapes(tree(archive[part])):
            holder = next(named(element, "ph"), None)
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
