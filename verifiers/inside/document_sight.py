"""Which runs of a document no reader sees: hidden ones, tiny ones, ink in the colour of its ground.

Looks go by the run, its styles and the defaults. What the style of a table paints is not known
here: light ink in such a table is in doubt, and so is what a floating shape may lie over; then the
rendered page decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from .archive import attribute, local, named
from .sight import LEAST_PT, WHITE, contrast, sinks

MAX_STYLE_DEPTH = 30
OFF = ("0", "false", "off")
LEAST_LINE = 80
"""Height in twentieths of a point below which an exact row or line shows no text."""
LIGHT = 2.0
HIGHLIGHTS = {
    "black": "000000", "white": WHITE, "red": "FF0000", "yellow": "FFFF00", "green": "00FF00",
    "cyan": "00FFFF", "blue": "0000FF", "magenta": "FF00FF", "lightGray": "C0C0C0",
    "darkGray": "808080", "darkBlue": "000080", "darkCyan": "008080", "darkGreen": "008000",
    "darkMagenta": "800080", "darkRed": "800000", "darkYellow": "808000",
}  # fmt: skip
BACKGROUNDS = ("background1", "light1")


class Styles:
    """The styles of a document: what they say, themselves or by what they rest on."""

    def __init__(self, sheet: Element | None, root: Element) -> None:
        """Args: root: the document's own part, which may colour the page."""
        found = list(named(sheet, "style")) if sheet is not None else []
        self.names = {attribute(s, "styleId"): _value(s, "name") for s in found}
        self._by_id = {attribute(style, "styleId"): style for style in found}
        self._normal = next((s for s in found if _is_default_paragraph(s)), None)
        defaults = list(named(sheet, "docDefaults")) if sheet is not None else []
        self.defaults = defaults[0] if defaults else None
        page = next((e for e in root if local(e) == "background"), None)
        self.page = _hex(attribute(page, "color")) if page is not None else ""

    def chain(self, style_id: str) -> Iterator[Element]:
        """A style and those that it rests on."""
        for _ in range(MAX_STYLE_DEPTH):
            style = self._by_id.get(style_id)
            if style is None:
                return
            yield style
            style_id = _value(style, "basedOn")

    def looks(self, run: Element, paragraph: Element) -> list[Element]:
        """What says how a run looks, the nearest first."""
        marks = [e for e in run if local(e) == "rPr"]
        layout = [e for e in paragraph if local(e) == "pPr"]
        styled = [s for m in marks for s in self.chain(_value(m, "rStyle"))]
        below = [s for each in layout for s in self.chain(_value(each, "pStyle"))]
        if not any(_value(each, "pStyle") for each in layout) and self._normal is not None:
            below = [self._normal]
        own = [e for style in (*styled, *below) for e in style if local(e) == "rPr"]
        last = [self.defaults] if self.defaults is not None else []
        return [*marks, *own, *last]

    def paints(self, table: Element) -> bool:
        """Whether the style of a table colours any of its cells."""
        return any(
            _shade(shade) not in ("", WHITE)
            for style in self.chain(_value(table, "tblStyle"))
            for shade in named(style, "shd")
        )


def unseen(
    run: Element, paragraph: Element, around: Sequence[Element], styles: Styles
) -> tuple[bool, bool]:
    """Whether no reader sees a run, and whether only the rendered page can tell.

    Args:
        around: the tables, rows and cells that it stands in, the nearest first.
    """
    looks = styles.looks(run, paragraph)
    hidden = next((told for each in looks if (told := _vanishes(each)) is not None), False)
    if hidden or _flat(paragraph, around):
        return True, False
    size = next(filter(None, (_value(each, "sz") for each in looks)), "")
    if size.isdigit() and int(size) / 2 < LEAST_PT:
        return True, False
    ink = next(filter(None, map(_ink, looks)), "")
    if not ink:
        return False, False
    grounds = _grounds(looks, paragraph, around, styles)
    painted = any(local(e) == "tbl" and styles.paints(e) for e in around)
    if painted and not grounds:
        return False, contrast(ink, WHITE) < LIGHT
    return sinks(ink, [grounds[0] if grounds else styles.page or WHITE]), False


def floats(root: Element) -> int:
    """Shapes that may lie over the text."""
    anchored = sum(e.get("behindDoc") in (None, *OFF) for e in named(root, "anchor"))
    return anchored + sum("position:absolute" in e.get("style", "") for e in root.iter())


def _grounds(
    looks: Sequence[Element], paragraph: Element, around: Sequence[Element], styles: Styles
) -> list[str]:
    """The colours behind a run, the nearest first."""
    found = []
    for each in looks:
        marker = HIGHLIGHTS.get(_value(each, "highlight"), "")
        found += [marker, *(_shade(e) for e in each if local(e) == "shd")]
    for layout in (e for e in paragraph if local(e) == "pPr"):
        holders = [layout, *styles.chain(_value(layout, "pStyle"))]
        found += [_shade(e) for holder in holders for e in _direct(holder, "pPr", "shd")]
    for each in around:
        found += [_shade(e) for e in _direct(each, f"{local(each)}Pr", "shd")]
    return [colour for colour in found if colour]


def _direct(holder: Element, within: str, name: str) -> Iterator[Element]:
    """The elements of a name in the properties of a holder, or in itself when it is those."""
    parts = [holder] if local(holder) == within else [e for e in holder if local(e) == within]
    return (e for part in parts for e in part if local(e) == name)


def _shade(shade: Element) -> str:
    solid = attribute(shade, "val") == "solid"
    return _hex(attribute(shade, "color" if solid else "fill"))


def _ink(looks: Element) -> str:
    colour = next(named(looks, "color"), None)
    if colour is None:
        return ""
    if attribute(colour, "themeColor") in BACKGROUNDS and not _hex(attribute(colour, "val")):
        return WHITE
    return _hex(attribute(colour, "val"))


def _flat(paragraph: Element, around: Sequence[Element]) -> bool:
    """Whether a row or a line is too low for any text."""
    rows = [e for each in around if local(each) == "tr" for e in named(each, "trHeight")]
    exact = [e for e in rows if attribute(e, "hRule") == "exact"]
    lines = [e for p in paragraph if local(p) == "pPr" for e in named(p, "spacing")]
    told = [attribute(e, "val") for e in exact]
    told += [attribute(e, "line") for e in lines if attribute(e, "lineRule") == "exact"]
    return any(height.isdigit() and int(height) < LEAST_LINE for height in told)


def _vanishes(element: Element) -> bool | None:
    """Whether it says that its text is hidden; None = it says nothing."""
    mark = next(named(element, "vanish"), None)
    return None if mark is None else attribute(mark, "val") not in OFF


def _is_default_paragraph(style: Element) -> bool:
    on = attribute(style, "default") not in ("", *OFF)
    return on and attribute(style, "type") == "paragraph"


def _value(element: Element, name: str) -> str:
    return next((attribute(e, "val") for e in named(element, name)), "")


def _hex(text: str) -> str:
    return text.upper() if len(text) == 6 and text.lower() != "auto" else ""
