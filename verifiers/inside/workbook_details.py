"""The finer things of a workbook, element by element: page, view, rules, rows, charts, theme.

Each facet is a table of path -> value taken from the XML without the ids and caches that every
program writes anew, so that one comparison serves them all. A chart's cache is a facet of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from .archive import link, local, named, related, tree

Paths = dict[str, str]
Detail = tuple[str, Paths | float]
PAGE = frozenset({
    "sheetPr", "sheetProtection", "protectedRanges", "printOptions", "pageMargins", "pageSetup",
    "headerFooter", "rowBreaks", "colBreaks", "scenarios", "autoFilter",
})  # fmt: skip
"""Elements of a sheet that are compared as they are."""
VIEW = frozenset({
    "showGridLines", "showFormulas", "showRowColHeaders", "showZeros", "rightToLeft", "xSplit",
    "ySplit", "state",
})  # fmt: skip
"""What of a view is compared; zoom and cursor are the reader's own."""
PASSING = frozenset({
    "priority", "dxfId", "codeName", "horizontalDpi", "verticalDpi", "usePrinterDefaults",
    "sqref", "filterMode", "syncRef", "tabSelected", "windowProtection",
})  # fmt: skip
"""Attributes that say nothing of their own or are told elsewhere."""
ON = frozenset({
    "summaryBelow", "summaryRight", "fitToWidth", "fitToHeight", "copies", "showGridLines",
    "showZeros", "showRowColHeaders", "gridLinesSet", "scaleWithDoc", "alignWithMargins",
    "firstPageNumber", "insertRows", "insertColumns", "insertHyperlinks", "deleteRows",
    "deleteColumns", "formatCells", "formatRows", "formatColumns", "sort", "autoFilter",
    "pivotTables", "fullPrecision", "showValue",
})  # fmt: skip
"""Attributes that are 1 when they are not written."""
DEFAULTS = {
    **dict.fromkeys(ON, "1"),
    "scale": "100", "orientation": "portrait", "pageOrder": "downThenOver", "paperSize": "1",
    "cellComments": "none", "calcMode": "auto", "errors": "displayed", "errorStyle": "stop",
    "operator": "between", "imeMode": "noControl", "view": "normal",
}  # fmt: skip
"""What an attribute is when it is not written; all others are 0."""
SKIPPED = frozenset(("extLst", "numCache", "strCache", "multiLvlStrCache", "AlternateContent"))
"""A chart's copy of the cells, and what one program adds for itself."""
FLAGS = frozenset(["b", "i", "strike", "outline", "shadow", "condense", "extend", "u"])
ROW_PT, ROW_SLACK = 15.0, 3.0
"""Height of an ordinary row; what is near it was measured by a program, not chosen."""
EMU_PER_COLUMN, EMU_PER_ROW = 609600, 190500


def flat(element: Element, *, bare: bool = False, skipped: frozenset[str] = SKIPPED) -> Paths:
    """An element as path -> value.

    Args:
        bare: leave out elements that say nothing but that they are there.
    """
    return dict(_walk(element, "", bare, skipped))


def sheet_details(
    archive: Mapping[str, bytes], part: str, looks: list[Element]
) -> Iterator[Detail]:
    """The facets of one sheet; `looks` are the workbook's differential styles."""
    root = tree(archive[part])
    for element in root:
        name = local(element)
        if name in PAGE:
            yield f"detail {name}", flat(element, bare=True)
        elif name == "sheetViews":
            view = next(named(element, "sheetView"), element)
            paths = [(p, v) for p, v in flat(view).items() if p.rpartition("@")[2] in VIEW]
            yield "detail view", dict(paths)
    yield from _rows(root)
    yield from _rules(root, looks)
    yield from _linked(archive, part)
    yield from drawn(archive, part)


def book_details(archive: Mapping[str, bytes], part: str) -> Iterator[Detail]:
    """The facets of the workbook itself: settings, names, theme."""
    root = tree(archive[part])
    kept = ("date1904", "calcMode", "fullPrecision", "iterate")
    settings = [e for e in root if local(e) in ("workbookPr", "calcPr")]
    yield (
        "detail settings",
        {
            path: value
            for element in settings
            for path, value in flat(element).items()
            if path.rpartition("@")[2] in kept
        },
    )
    for name in named(root, "definedName"):
        if not name.get("name", "").startswith("_xlnm"):
            told: Paths = {"hidden": "1"} if _on(name.get("hidden")) else {}
            yield f"detail name {name.get('name')}", told
    theme = next((t for _, kind, t in related(archive, part) if kind == "theme"), "")
    if theme in archive:
        parts = [e for e in tree(archive[theme]).iter() if local(e) in ("clrScheme", "fontScheme")]
        for element in parts:
            yield f"detail theme {local(element)}", flat(element)


def looks_of(archive: Mapping[str, bytes], part: str) -> list[Element]:
    """The differential styles that rules refer to by number."""
    target = next((t for _, kind, t in related(archive, part) if kind == "styles"), "")
    if target not in archive:
        return []
    return [e for group in named(tree(archive[target]), "dxfs") for e in group]


def _rows(root: Element) -> Iterator[Detail]:
    for row in named(root, "row"):
        number = row.get("r", "")
        height = float(row.get("ht") or ROW_PT)
        if abs(height - ROW_PT) > ROW_SLACK and _on(row.get("customHeight")):
            yield f"height {number}", height
        if row.get("outlineLevel", "0") != "0":
            yield f"detail row {number}", {"outlineLevel": row.get("outlineLevel", "")}
    for column in named(root, "col"):
        if column.get("outlineLevel", "0") != "0":
            first, last = int(column.get("min", "1")), int(column.get("max", "1"))
            for at in range(first, min(last, first + 200) + 1):
                yield f"detail column {at}", {"outlineLevel": column.get("outlineLevel", "")}
    for element in named(root, "sheetFormatPr"):
        low = 0 < float(element.get("defaultRowHeight") or ROW_PT) < 4
        narrow = float(element.get("defaultColWidth") or 8) < 0.6
        if _on(element.get("zeroHeight")) or low or narrow:
            yield "hidden by default", 1.0


def _rules(root: Element, looks: list[Element]) -> Iterator[Detail]:
    counts: dict[str, int] = {}
    for group in (e for e in root if local(e) == "conditionalFormatting"):
        area = group.get("sqref", "")
        for rule in named(group, "cfRule"):
            number = counts[area] = counts.get(area, -1) + 1
            told = flat(rule)
            at = rule.get("dxfId", "")
            if at.isdigit() and int(at) < len(looks):
                told |= {f"look/{path}": value for path, value in flat(looks[int(at)]).items()}
            yield f"detail conditional format {area}#{number}", told
    for check in named(root, "dataValidation"):
        yield f"detail validation {check.get('sqref', '')}", flat(check)
    for each in named(root, "hyperlink"):
        yield f"detail link {each.get('ref', '')}", {"tooltip": each.get("tooltip", "")}


def _linked(archive: Mapping[str, bytes], part: str) -> Iterator[Detail]:
    """What stands in parts of its own: who wrote a comment, how a table is made."""
    for _, kind, target in related(archive, part):
        if target not in archive:
            continue
        root = tree(archive[target]) if kind in ("comments", "table") else None
        if root is not None and kind == "comments":
            authors = [(e.text or "").strip() for e in named(root, "author")]
            for comment in named(root, "comment"):
                at = int(comment.get("authorId") or 0)
                author = authors[at] if at < len(authors) else ""
                yield f"detail comment {comment.get('ref', '')}", {"author": author}
        elif root is not None:
            yield f"detail table {root.get('displayName', '')}", flat(root, bare=True)


def drawn(archive: Mapping[str, bytes], part: str) -> Iterator[Detail]:
    """Each chart and picture: where it lies, and a chart in full. Numbered as they are drawn."""
    number = 0
    for _, kind, drawing in related(archive, part):
        if kind != "drawing" or drawing not in archive:
            continue
        targets = {key: target for key, _, target in related(archive, drawing)}
        for anchor in tree(archive[drawing]):
            number += 1
            yield f"detail anchor {number}", _anchor(anchor)
            keys = [link(e) for e in named(anchor, "chart")]
            target = next((targets[key] for key in keys if key in targets), "")
            if target in archive:
                chart = tree(archive[target])
                yield f"detail chart {number}", _chart(chart)
                yield f"points {number}", dict(_points(chart))


def _anchor(anchor: Element) -> Paths:
    """The cells that a drawing begins and ends in."""
    ends: dict[str, int] = {}
    for name in ("from", "to"):
        corner = next((e for e in anchor if local(e) == name), None)
        for part in corner if corner is not None else ():
            ends[f"{name} {local(part)}"] = int(part.text or 0)
    size = next((e for e in anchor if local(e) == "ext"), None)
    if size is not None and "from col" in ends:
        across = int(size.get("cx", "0")) + ends.get("from colOff", 0)
        down = int(size.get("cy", "0")) + ends.get("from rowOff", 0)
        ends["to col"] = ends["from col"] + across // EMU_PER_COLUMN
        ends["to row"] = ends["from row"] + down // EMU_PER_ROW
    return {name: str(value) for name, value in ends.items() if not name.endswith("Off")}


def _chart(root: Element) -> Paths:
    """A chart without its copy of the cells, its axes numbered as they come."""
    axes: list[str] = []
    told: Paths = {}
    for path, value in flat(root).items():
        if re.search(r"(?:axId|crossAx)(?:\[\d+\])?@val$", path):
            axes += [value] if value not in axes else []
            value = str(axes.index(value))
        told[re.sub(r"(?:num|str)Ref", "ref", path)] = value
    linked = [p.removesuffix("@sourceLinked") for p in told if p.endswith("@sourceLinked")]
    for path in linked:
        told.pop(f"{path}@formatCode", None)  # the cells' own format
    return told


def _points(chart: Element) -> Iterator[tuple[str, str]]:
    """The chart's copy of the numbers that it draws: reference and place in it -> number."""
    for reference in named(chart, "numRef"):
        area = next((e.text or "" for e in named(reference, "f")), "")
        for point in named(reference, "pt"):
            value = next((e.text or "" for e in named(point, "v")), "")
            yield f"{_plain_text(area)} {point.get('idx', '0')}", value


def _walk(
    element: Element, path: str, bare: bool, skipped: frozenset[str]
) -> Iterator[tuple[str, str]]:
    found = False
    for key, value in element.attrib.items():
        space, _, name = key.rpartition("}")
        if space and name in ("id", "uid"):
            continue
        plain = _plain(name, value)
        if name not in PASSING and plain != DEFAULTS.get(name, "0"):
            found = True
            yield f"{path}@{name}", plain
    text = (element.text or "").strip()
    if text:
        found = True
        yield path, _plain_text(text) if local(element) == "f" else text
    counts: dict[str, int] = {}
    for child in element:
        name = local(child)
        if name in skipped:
            continue
        found = True
        counts[name] = counts.get(name, 0) + 1
        step = name if counts[name] == 1 else f"{name}[{counts[name]}]"
        yield from _walk(child, f"{path}/{step}", bare, skipped)
    if not found and not bare and path:
        name = local(element)
        yield (f"{path}@val", "1") if name in FLAGS and "val" not in element.attrib else (path, "")


def _plain(name: str, value: str) -> str:
    if value in ("true", "false"):
        return "1" if value == "true" else "0"
    if name == "rgb":
        return value[-6:].upper()
    try:
        return f"{float(value):.6g}" if re.fullmatch(r"-?\d+(\.\d+)?", value) else value
    except ValueError:
        return value


def _plain_text(formula: str) -> str:
    return re.sub(r"[$']", "", formula)


def _on(value: str | None) -> bool:
    return value in ("1", "true")
