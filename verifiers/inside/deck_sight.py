"""What of a slide cannot be seen: text in the colour of its ground, or tiny; and what may cover it.

Colours go by the slide, its layout, its master and the theme. Where no colour or ground is named
that can be known, text counts as seen.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from .archive import attribute, local, named
from .sight import LEAST_PT, WHITE, contrast, sinks

LIGHT = 2.0
"""Contrast with white below which an ink is a light one."""
DARK, UNKNOWN, CLEAR = "000000", "", "clear"
FILLS = ("solidFill", "gradFill", "blipFill", "pattFill", "noFill", "grpFill")
PLAIN_GROUND = "1001"
"""The background of a theme that is one colour; others are gradients and pictures."""
MAPPED = {"tx1": "dk1", "bg1": "lt1", "tx2": "dk2", "bg2": "lt2"}


class Palette:
    """The colours of a slide's theme, and the ground of the slide."""

    def __init__(self, theme: Element | None, backgrounds: Sequence[Element]) -> None:
        """Args: backgrounds: slide, layout and master; the first that names a ground has it."""
        maps = [e for root in backgrounds for e in root.iter() if local(e) == "clrMap"]
        self._mapped = MAPPED | (dict(maps[0].attrib) if maps else {})
        self._colours: dict[str, str] = {}
        scheme = next(named(theme, "clrScheme"), None) if theme is not None else None
        for place in scheme if scheme is not None else ():
            colour = next(iter(place), None)
            if colour is not None:
                said = colour.get("lastClr") or colour.get("val")
                self._colours[local(place)] = said or UNKNOWN
        grounds = (g for root in backgrounds for g in named(root, "bg"))
        ground = next(grounds, None)
        self.ground = [WHITE] if ground is None else self._filled(ground)

    def _filled(self, ground: Element) -> list[str]:
        reference = next(named(ground, "bgRef"), None)
        if reference is not None:
            plain = reference.get("idx") == PLAIN_GROUND
            return [self.colour(reference) if plain else UNKNOWN]
        return next((self.fill(e) for e in ground if local(e) == "bgPr"), None) or [WHITE]

    def fill(self, element: Element) -> list[str] | None:
        """The colours that its properties fill it with; None = none, an empty one = not known."""
        for part in element:
            if local(part) == "noFill":
                return None
            if local(part) in ("solidFill", "gradFill", "pattFill"):
                stops = [e for e in part.iter() if local(e) in ("gs", "fgClr", "bgClr")]
                return [self.colour(each) for each in stops or [part]]
            if local(part) in ("blipFill", "grpFill"):
                return [UNKNOWN]
        return None

    def colour(self, holder: Element) -> str:
        """The colour named in an element as RRGGBB; empty = it cannot be known."""
        for part in holder.iter():
            name, value = local(part), part.get("val", "")
            if name == "srgbClr":
                return _changed(value.upper(), part)
            if name == "schemeClr":
                found = self._colours.get(self._mapped.get(value, value), UNKNOWN)
                return _changed(found.upper(), part) if found else UNKNOWN
            if name in ("sysClr", "prstClr"):
                named_colours = {"white": WHITE, "black": DARK}
                return part.get("lastClr") or named_colours.get(value, UNKNOWN)
        return UNKNOWN


def _changed(rgb: str, colour: Element) -> str:
    """A colour lightened, darkened or seen through, as its children say."""
    try:
        parts = [int(rgb[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    except ValueError:
        return UNKNOWN
    for change in colour:
        share = int(change.get("val", "100000")) / 100_000
        hue, light, saturation = colorsys.rgb_to_hls(*parts)
        if local(change) == "lumMod":
            light *= share
        elif local(change) == "lumOff":
            light += share
        elif local(change) == "tint":
            light = light * share + 1 - share
        elif local(change) == "shade":
            light *= share
        elif local(change) == "alpha" and share < 0.1:
            return CLEAR
        parts = list(colorsys.hls_to_rgb(hue, min(max(light, 0.0), 1.0), saturation))
    return "".join(f"{round(part * 255):02X}" for part in parts)


def unseen_texts(
    element: Element, palette: Palette, inherited: Sequence[Element]
) -> Iterator[Element]:
    """The runs of a shape that no reader sees.

    Args:
        inherited: shapes and styles that the shape takes its looks from, nearest first.
    """
    frame = [e for e in element if local(e) in ("spPr", "style")]
    ground = _ground(frame, palette)
    for cell in list(named(element, "tc")) or [element]:
        own = next((e for e in cell if local(e) == "tcPr"), None)
        below = palette.fill(own) if own is not None else None
        in_table = local(cell) == "tc"
        grounds = below or (None if in_table and own_style(element) else ground)
        for paragraph in named(cell, "p"):
            for run in (e for e in paragraph if local(e) in ("r", "fld")):
                if _is_unseen(run, paragraph, element, grounds, palette, inherited):
                    yield run


def leaving_shapes(slide: Element) -> Iterator[Element]:
    """The shapes that an animation takes from a slide, by themselves or with their group."""
    ends = (e for e in named(slide, "cTn") if e.get("presetClass") == "exit")
    hides = (e for e in named(slide, "set") if any(v.get("val") == "hidden" for v in e.iter()))
    taken = {e.get("spid") for effect in (*ends, *hides) for e in named(effect, "spTgt")}
    for element in slide.iter():
        told = next((e for part in element for e in part if local(e) == "cNvPr"), None)
        if told is not None and told.get("id") in taken:
            yield from element.iter()


def in_doubt(element: Element, palette: Palette) -> bool:
    """Whether light text stands in cells whose ground is for the table's style to say."""
    if not own_style(element):
        return False
    looks = (e for e in named(element, "rPr") if any(local(c) in FILLS for c in e))
    inks = [ink for look in looks for ink in palette.fill(look) or [CLEAR]]
    return any(contrast(ink, WHITE) < LIGHT for ink in inks if ink) or CLEAR in inks


def own_style(element: Element) -> bool:
    """Whether a table has a style, which may colour any of its cells."""
    return next(named(element, "tableStyleId"), None) is not None


def _ground(frame: Sequence[Element], palette: Palette) -> list[str]:
    for part in frame:
        if local(part) == "spPr":
            told = [e for e in part if local(e) in FILLS]
            if told:
                return palette.fill(part) or palette.ground
        for reference in named(part, "fillRef"):
            if reference.get("idx", "0") != "0":
                return [palette.colour(reference)]
    return palette.ground


def _is_unseen(
    run: Element,
    paragraph: Element,
    shape: Element,
    grounds: list[str] | None,
    palette: Palette,
    inherited: Sequence[Element],
) -> bool:
    level = next((e.get("lvl", "0") for e in paragraph if local(e) == "pPr"), "0")
    looks = [e for e in run if local(e) == "rPr"]
    for holder in (shape, *inherited):
        for style in named(holder, f"lvl{int(level) + 1}pPr"):
            looks += [e for e in style if local(e) == "defRPr"]
    size = next((e.get("sz") for e in looks if e.get("sz")), None)
    if size is not None and float(size) / 100 < LEAST_PT:
        return True
    inks = (palette.fill(e) for e in looks if any(local(c) in FILLS for c in e))
    ink = next(inks, _referred(shape, palette))
    if ink is None:
        return True  # no fill at all
    known = [colour for colour in ink if colour]
    if not known or not ink:
        return False
    if known == [CLEAR]:
        return True
    return grounds is not None and all(grounds) and all(sinks(each, grounds) for each in known)


def _referred(shape: Element, palette: Palette) -> list[str]:
    """The ink of a shape's style; black where nothing is said."""
    reference = next(named(shape, "fontRef"), None)
    return [DARK] if reference is None else [palette.colour(reference)]


def covering(element: Element, palette: Palette) -> bool:
    """Whether a shape hides what lies under it."""
    if local(element) == "pic":
        return True
    told = next((e for e in element if local(e) == "spPr"), None)
    if told is not None and any(local(e) in FILLS for e in told):
        fill = palette.fill(told)
        return fill is not None and CLEAR not in fill
    references = [e for part in element if local(part) == "style" for e in named(part, "fillRef")]
    return any(attribute(each, "idx") not in ("", "0") for each in references)


def shared(box: Sequence[float], other: Sequence[float]) -> float:
    """The share of a box that lies within another."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    return max(width, 0.0) * max(height, 0.0) / (box[2] * box[3]) if box[2] * box[3] else 0.0
