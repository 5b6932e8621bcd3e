"""Renders a document or a deck: pages as LibreOffice lays them out, with words and ink."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any

from .answering import Refusal
from .soffice import convert, run

MAX_PAGES = 60
MAX_WORDS = 3000
"""Words kept of one page."""
RASTER_DPI = 96
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

    `unseen` counts, for each word, in how many of its places the page is blank.

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


def blank_words(words: list[list[Any]], picture: Path) -> dict[str, int]:
    """Words that the page does not show where they stand: in the colour of the ground, or covered.

    Returns: word -> in how many places.
    """
    from PIL import Image

    found: dict[str, int] = {}
    scale = RASTER_DPI / 72
    with Image.open(picture) as image:
        grey = image.convert("L")
        for x0, y0, x1, y1, word in words:
            edges = (x0 * scale, y0 * scale, x1 * scale + 1, y1 * scale + 1)
            left, top, right, bottom = (max(0, int(edge)) for edge in edges)
            right, bottom = min(right, grey.width), min(bottom, grey.height)
            if not any(map(str.isalnum, word)) or left >= right or top >= bottom:
                continue
            shades = grey.crop((left, top, right, bottom)).tobytes()
            if max(shades) - min(shades) < FLAT:
                found[word] = found.get(word, 0) + 1
    return found


def lost_words(page: dict[str, Any]) -> set[str]:
    """The words that a page shows in none of their places."""
    counts = Counter(word for *_, word in page["words"])
    return {word for word, count in page["unseen"].items() if count >= counts[word]}


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
