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
RASTER_DPI = 24
INK = 245
"""A grey value below this is ink."""
PAGE = re.compile(r'<page width="([\d.]+)" height="([\d.]+)">(.*?)</page>', re.DOTALL)
WORD = re.compile(
    r'<word xMin="(-?[\d.]+)" yMin="(-?[\d.]+)" xMax="(-?[\d.]+)" yMax="(-?[\d.]+)">(.*?)</word>'
)


def render(path: Path, reader: str, timeout_s: float) -> list[dict[str, Any]]:
    """Each page: width and height in points, words as [x0, y0, x1, y1, text], share of ink.

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
    return pages


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
