"""Renders a document or a deck: pages as LibreOffice lays them out, with words and ink."""

from __future__ import annotations

import re
import tempfile
from html import unescape
from pathlib import Path
from typing import Any

from .answering import Refusal
from .soffice import convert, run

MAX_PAGES = 60
MAX_WORDS = 3000
"""Words kept of one page."""
RASTER_DPI = 96
RIM = 0.25
"""Share of a word's box, above and below, that the lines of a table may cross."""
FLAT = 8
"""Where greys differ less than this within the box of a word, there is no word to see."""
INK = 245
"""A grey value below this is ink."""
PAGE = re.compile(r'<page width="([\d.]+)" height="([\d.]+)">(.*?)</page>', re.DOTALL)
WORD = re.compile(
    r'<word xMin="(-?[\d.]+)" yMin="(-?[\d.]+)" xMax="(-?[\d.]+)" yMax="(-?[\d.]+)">(.*?)</word>'
)


def render(path: Path, reader: str, timeout_s: float) -> list[dict[str, Any]]:
    """Each page: width and height in points, words as [x0, y0, x1, y1, text], share of ink.

    `unseen` lists the places of words that the page does not show.

    Raises:
        Refusal: LibreOffice or poppler left nothing, or there are too many pages.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        copy = scratch / f"file{path.suffix}"
        copy.write_bytes(path.read_bytes())
        convert([copy], "pdf", scratch, timeout_s, reader)
        pdf, log = scratch / "out" / "file.pdf", scratch / "poppler.log"
        with log.open("w+b") as output:
            boxes = scratch / "boxes.html"
            run(["pdftotext", "-bbox", str(pdf), str(boxes)], output.fileno(), timeout_s)
            raster = ["pdftoppm", "-r", str(RASTER_DPI), "-gray", "-png"]
            run([*raster, str(pdf), str(scratch / "page")], output.fileno(), timeout_s)
        if not boxes.exists():
            raise Refusal("not_converted", f"poppler: {log.read_bytes()[:300]!r}")
        pages = [_page(found) for found in PAGE.finditer(boxes.read_text("utf-8", "replace"))]
        if len(pages) > MAX_PAGES:
            raise Refusal("too_big", f"it has {len(pages)} pages, over {MAX_PAGES}")
        for page, picture in zip(pages, sorted(scratch.glob("page*.png")), strict=True):
            page["ink"] = ink_of(picture)
            page["unseen"] = blank_words(page["words"], picture)
    return pages


def blank_words(words: list[list[Any]], picture: Path) -> list[int]:
    """Places in `words` where the page shows nothing: covered, or in the colour of its ground."""
    from PIL import Image

    found = []
    scale = RASTER_DPI / 72
    with Image.open(picture) as image:
        grey = image.convert("L")
        for at, (x0, y0, x1, y1, word) in enumerate(words):
            rim = (y1 - y0) * RIM
            edges = (x0 * scale, (y0 + rim) * scale, x1 * scale + 1, (y1 - rim) * scale + 1)
            left, top, right, bottom = (max(0, int(edge)) for edge in edges)
            right, bottom = min(right, grey.width), min(bottom, grey.height)
            if not any(map(str.isalnum, word)) or left >= right or top >= bottom:
                continue
            shades = grey.crop((left, top, right, bottom)).tobytes()
            if max(shades) - min(shades) < FLAT:
                found.append(at)
    return found


def lost_words(page: dict[str, Any]) -> set[str]:
    """The words that a page shows in none of their places."""
    blank = set(page["unseen"])
    seen = {word for at, (*_, word) in enumerate(page["words"]) if at not in blank}
    return {page["words"][at][4] for at in blank} - seen


def ink_of(picture: Path) -> float:
    """The share of a page that is not white."""
    from PIL import Image

    with Image.open(picture) as image:
        counts = image.convert("L").histogram()
    return float(sum(counts[:INK]) / sum(counts))


def _page(found: re.Match[str]) -> dict[str, Any]:
    words = [
        [*(round(float(word[at]), 1) for at in range(1, 5)), unescape(word[5])]
        for word in WORD.finditer(found[3])
    ]
    return {"width": float(found[1]), "height": float(found[2]), "words": words[:MAX_WORDS]}
