"""What a workbook holds besides values, in words that do not depend on which program wrote it.

Two tables of facets: `parts` (names, charts, rules, notes, hidden state, widths, and the details of
`workbook_details.py`) and `styles` of cells. What openpyxl drops when it saves is read from the
archive itself.
"""

from __future__ import annotations

import colorsys
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from .archive import link, local, named, parts_of, related, tree
from .workbook_details import book_details, looks_of, sheet_details

BOOK = ""
"""The key of facets that belong to the workbook, not to a sheet."""
Value = str | float | dict[str, str]
Facets = dict[str, dict[str, Value]]
"""Sheet -> facet such as `width B` or `merged A1:B2` -> its value."""
ANY = "any"
"""The font of a cell whose style names none: each program takes another."""
AS_WRITTEN = "format as written"
"""The number format to the letter; programs write the same one differently."""
THEME_ORDER = (1, 0, 3, 2, 4, 5, 6, 7, 8, 9, 10, 11)
"""Index of a theme colour in a cell -> its place in the theme's list."""
FORBIDDEN = {
    "macros": r"vbaProject|xl/macrosheets/",
    "embedded objects": r"xl/(embeddings|activeX|ctrlProps)/",
    "pivot tables": r"xl/pivotTables/",
    "external links": r"xl/externalLinks/[^/]*\.xml",
    "connections": r"xl/(connections|queryTables/)",
    "threaded comments": r"xl/threadedComments/",
}
"""Things counted by the names of parts."""


def parts(path: Path, book: Any) -> Facets:
    """Every facet of a workbook that is not a cell."""
    found: Facets = {BOOK: dict(_of_book(book))}
    archive = parts_of(path)
    for kind, pattern in FORBIDDEN.items():
        if count := sum(re.search(pattern, name) is not None for name in archive):
            found[BOOK][kind] = count
    colours = palette(book)
    main = next((t for _, kind, t in related(archive, "") if kind == "officeDocument"), "")
    files, looks = _sheet_files(archive, main), looks_of(archive, main)
    found[BOOK].update(book_details(archive, main))
    for sheet in book.worksheets:
        part = files.get(sheet.title, "")
        found[sheet.title] = dict(_of_sheet(sheet, colours))
        found[sheet.title].update(_of_archive(archive, part))
        if part in archive:
            found[sheet.title].update(sheet_details(archive, part, looks))
    for sheet in book.chartsheets:
        found[sheet.title] = {"state": sheet.sheet_state}
        found[sheet.title].update(_of_archive(archive, files.get(sheet.title, "")))
    return found


def _of_book(book: Any) -> Iterator[tuple[str, Value]]:
    yield "order of sheets", "\n".join(book.sheetnames)
    for name, defined in book.defined_names.items():
        yield f"name {name}", plain_reference(defined.attr_text)
    if book.security is not None and book.security.lockStructure:
        yield "locked structure", 1


def _of_sheet(sheet: Any, colours: list[str]) -> Iterator[tuple[str, Value]]:
    yield "state", sheet.sheet_state
    yield "filter", (sheet.auto_filter.ref or "").replace("$", "")
    yield "protected", float(bool(sheet.protection.sheet))
    yield "orientation", sheet.page_setup.orientation or "portrait"
    yield "print area", plain_reference(str(sheet.print_area or ""))
    yield "print titles", plain_reference(str(sheet.print_titles or ""))
    for area in sheet.merged_cells.ranges:
        yield f"merged {area.coord}", ""
    for name, defined in sheet.defined_names.items():
        if not name.startswith("_xlnm"):
            yield f"name {name}", plain_reference(defined.attr_text)
    for row, shape in sheet.row_dimensions.items():
        if shape.hidden:
            yield f"hidden row {row}", ""
    yield from _columns(sheet)
    yield from _rules(sheet, colours)
    for name, table in sheet.tables.items():
        yield f"table {name}", f"{table.ref} {[column.name for column in table.tableColumns]}"
    for cell in list(sheet._cells.values()):
        if cell.comment is not None:
            yield f"comment {cell.coordinate}", cell.comment.text.strip()
        if cell.hyperlink is not None:
            link = cell.hyperlink
            yield f"link {cell.coordinate}", link.target or link.location or ""


def _columns(sheet: Any) -> Iterator[tuple[str, Value]]:
    from openpyxl.utils import get_column_letter

    for shape in sheet.column_dimensions.values():
        if not (shape.hidden or shape.customWidth) or shape.min is None:
            continue
        if shape.max - shape.min > 1000:  # "all columns to the right", as some programs write it
            continue
        for number in range(shape.min, shape.max + 1):
            letter = get_column_letter(number)
            if shape.hidden:
                yield f"hidden column {letter}", ""
            elif shape.customWidth:
                yield f"width {letter}", float(shape.width)


def _rules(sheet: Any, colours: list[str]) -> Iterator[tuple[str, Value]]:
    for group in sheet.conditional_formatting:
        for number, rule in enumerate(group.rules):
            formulas = [plain_formula(text) for text in rule.formula]
            looks = "" if rule.dxf is None else _differential(rule.dxf, colours)
            scale = [
                colour_of(colour, colours)
                for part in (rule.colorScale, rule.dataBar)
                if part is not None
                for colour in (part.color if isinstance(part.color, list) else [part.color])
            ]
            icons = rule.iconSet.iconSet if rule.iconSet else ""
            told = f"{rule.type} {rule.operator or ''} {formulas} {looks} {scale} {icons}"
            yield f"conditional format {group.sqref}#{number}", told
            if veil := _veil(rule, colours):
                yield f"veil {group.sqref}#{number}", veil
    for check in sheet.data_validations.dataValidation:
        operator = "" if check.type == "list" else check.operator or "between"
        second = check.formula2 if "etween" in operator else None
        formulas = [plain_formula(text or "") for text in (check.formula1, second)]
        yield f"validation {check.sqref}", f"{check.type} {operator} {formulas}"


def _differential(dxf: Any, colours: list[str]) -> str:
    fill = dxf.fill
    ground = "" if fill is None else colour_of(fill.bgColor, colours)
    ink = "" if dxf.font is None else colour_of(dxf.font.color, colours)
    bold = dxf.font is not None and bool(dxf.font.b)
    return f"fill={ground} ink={ink} bold={bold}"


def _veil(rule: Any, colours: list[str]) -> str:
    """What a rule does to the sight of a value: ink|ground|hides|when; empty = nothing."""
    dxf, ink, ground = rule.dxf, "", ""
    if dxf is not None and dxf.font is not None and dxf.font.color is not None:
        ink = colour_of(dxf.font.color, colours) or "000000"
    if dxf is not None and dxf.fill is not None and dxf.fill.bgColor.rgb != "00000000":
        ground = colour_of(dxf.fill.bgColor, colours)
    code = dxf.numFmt.formatCode if dxf is not None and dxf.numFmt is not None else "0"
    bare = re.sub(r'"[^"]*"|\\.|\[[^\]]*\]', "", code)
    shows = [bar.showValue for bar in (rule.dataBar, rule.iconSet) if bar is not None]
    hides = re.search(r"[0#?@ymdhsg]", bare, re.I) is None or "[white" in code.lower()
    if not (ink or ground or hides or False in shows):
        return ""
    when = f"{rule.operator} {rule.formula[0]}" if rule.type == "cellIs" and rule.formula else ""
    return f"{ink}|{ground}|{'hides' if hides or False in shows else ''}|{when}"


def _sheet_files(archive: dict[str, bytes], book: str) -> dict[str, str]:
    """Sheet -> the part that holds it."""
    targets = {key: target for key, _, target in related(archive, book)}
    sheets = named(tree(archive[book]), "sheet") if book in archive else ()
    return {sheet.get("name", ""): targets.get(link(sheet), "") for sheet in sheets}


def _of_archive(archive: dict[str, bytes], part: str) -> Iterator[tuple[str, Value]]:
    """Charts, pictures and newer kinds of rules, which openpyxl reads in part or not at all."""
    if part not in archive:
        return
    for extension in named(tree(archive[part]), "ext"):
        for inner in extension:
            digest = hashlib.sha256("".join(inner.itertext()).encode()).hexdigest()[:12]
            yield f"extension {local(inner)} {digest}", ""
    drawings = [t for _, kind, t in related(archive, part) if kind == "drawing"]
    shown: list[str] = []
    for drawing in drawings:
        for _, kind, target in related(archive, drawing):
            data = archive.get(target, b"")
            if kind == "chart" and data:
                shown.append(chart(tree(data)))
            elif kind == "image":
                shown.append(f"picture {hashlib.sha256(data).hexdigest()[:16]}")
        texts = [t.text or "" for t in named(tree(archive[drawing]), "t")] if drawings else []
        if texts:
            shown.append(f"text box {''.join(texts)}")
    for number, told in enumerate(sorted(shown), 1):
        yield f"drawing {number}", told


def chart(space: Element) -> str:
    """A chart in words: its kinds, its title, and which cells it draws."""
    kinds, series = [], []
    for area in named(space, "plotArea"):
        for plot in area:
            if local(plot).endswith("Chart"):
                kinds.append(local(plot))
                series += [_series(each) for each in named(plot, "ser")]
    title = next((t for t in named(space, "title")), None)
    told = "" if title is None else "".join(t.text or "" for t in named(title, "t"))
    return f"{'+'.join(kinds)} {told!r} of {'; '.join(series)}"


def _series(element: Element) -> str:
    wanted = {"tx", "cat", "val", "xVal", "yVal", "bubbleSize"}
    return ", ".join(
        f"{local(part)}={plain_reference(formula.text or '')}"
        for part in element
        if local(part) in wanted
        for formula in named(part, "f")
    )


def styles(book: Any) -> dict[str, Any]:
    """The styles in use and, per sheet, which of them each cell has.

    Returns: `styles`, a list of aspect -> value, the first being that of an untouched cell;
        `styled`, sheet -> cell -> place in that list.
    """
    colours = palette(book)
    table: list[dict[str, Any]] = [{}]
    known: dict[Any, int] = {}
    styled: dict[str, dict[str, int]] = {}
    for sheet in book.worksheets:
        styled[sheet.title] = {}
        for cell in sheet._cells.values():
            key = tuple(cell._style)
            if key not in known:
                look = style_of(cell, colours)
                if look not in table:
                    table.append(look)
                known[key] = table.index(look)
            styled[sheet.title][cell.coordinate] = known[key]
    return {"styles": table, "styled": styled}


def style_of(cell: Any, colours: list[str]) -> dict[str, Any]:
    """What one sees of a cell, without what is so by default."""
    font, fill, place = cell.font, cell.fill, cell.alignment
    found = {
        "number format": plain_format(cell.number_format),
        "font": "" if font.name == "Calibri" else font.name or ANY,
        "size": 0.0 if font.sz in (None, 11) else float(font.sz) or 0.1,
        "bold": bool(font.b),
        "italic": bool(font.i),
        "underline": font.u or "",
        "strike": bool(font.strike),
        "ink": colour_of(font.color, colours),
        "fill": _ground(fill, colours),
        "border": _border(cell.border, colours),
        "horizontal": "" if place.horizontal in (None, "general") else place.horizontal,
        "vertical": "" if place.vertical in (None, "bottom") else place.vertical,
        "wrap": bool(place.wrapText),
        "rotation": place.textRotation or 0,
        "indent": place.indent or 0,
        "shrink": bool(place.shrinkToFit),
        "script": font.vertAlign or "",
        "unlocked": not cell.protection.locked,
        "formula hidden": bool(cell.protection.hidden),
        AS_WRITTEN: "" if cell.number_format == "General" else cell.number_format,
    }
    return {aspect: value for aspect, value in found.items() if value}


def _ground(fill: Any, colours: list[str]) -> str:
    """One colour, or the kind of a pattern or gradient and its colours."""
    kind = getattr(fill, "patternType", "gradient")
    if kind in (None, "none"):
        return ""
    if kind == "solid":
        return colour_of(fill.fgColor, colours) or "000000"
    if kind == "gradient":
        mixed = [colour_of(stop.color, colours) or "000000" for stop in fill.stop]
    else:
        mixed = [colour_of(fill.fgColor, colours) or "000000", _behind(fill.bgColor, colours)]
    return " ".join([str(kind), *mixed])


def _behind(colour: Any, colours: list[str]) -> str:
    """The ground of a pattern, which is white unless it says otherwise."""
    if colour is None or colour.rgb == "00000000" or colour.type == "indexed":
        return "FFFFFF"
    return colour_of(colour, colours) or "000000"


def _border(border: Any, colours: list[str]) -> str:
    sides = ("left", "right", "top", "bottom", "diagonal")
    lines = [(side, getattr(border, side)) for side in sides]
    return " ".join(
        f"{side}={line.style} {colour_of(line.color, colours)}".strip()
        for side, line in lines
        if line and line.style
    )


def palette(book: Any) -> list[str]:
    """The colours of the workbook's theme as RRGGBB, in the order of the theme's list."""
    if not book.loaded_theme:
        return []
    scheme = next(named(tree(book.loaded_theme), "clrScheme"), None)
    inner = [next(iter(place), None) for place in scheme] if scheme is not None else []
    return [
        "" if colour is None else colour.get("lastClr") or colour.get("val") or ""
        for colour in inner
    ]


def colour_of(colour: Any, colours: list[str]) -> str:
    """A colour as RRGGBB; empty for black, automatic or none, which look the same as ink."""
    from openpyxl.styles.colors import COLOR_INDEX

    if colour is None:
        return ""
    if colour.type == "rgb":
        found = str(colour.rgb)[-6:]
    elif colour.type == "indexed" and colour.indexed < len(COLOR_INDEX):
        found = COLOR_INDEX[colour.indexed][-6:]
    elif colour.type == "theme" and colour.theme < min(len(colours), len(THEME_ORDER)):
        found = _tinted(colours[THEME_ORDER[colour.theme]], colour.tint or 0.0)
    else:
        found = ""
    return "" if found == "000000" else found.upper()


def _tinted(rgb: str, tint: float) -> str:
    if not tint or len(rgb) != 6:
        return rgb
    red, green, blue = (int(rgb[at : at + 2], 16) / 255 for at in (0, 2, 4))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    light = light * (1 + tint) if tint < 0 else light * (1 - tint) + tint
    return "".join(
        f"{round(part * 255):02X}" for part in colorsys.hls_to_rgb(hue, light, saturation)
    )


def plain_format(code: str) -> str:
    """A number format without what another program writes differently."""
    bare = re.sub(r"\[\$-[^\]]*\]|;@$|[\\\"]", "", code or "").lower()
    return "" if bare == "general" else bare


def plain_reference(text: str) -> str:
    """A reference without dollars and quotes."""
    return re.sub(r"[$']", "", text)


def plain_formula(text: str) -> str:
    """A formula of a rule without spaces and letter case."""
    return re.sub(r"[\s$]", "", str(text)).upper()
