"""Rules about rendered pages: none empty, nothing off the page, too small to read or out of sight.

They see words and ink as LibreOffice lays them out. Taste is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .reading import summary
from .sameness import even
from .types import Check

MIN_WORD_PT = 5.0
"""Height of a word's box; that of 6-point text is about 7."""
EMPTY_INK = 0.0005
EDGE_PT = 2.0


def check_pages(
    pages: Sequence[Mapping[str, Any]],
    *,
    count: Sequence[int] = (1, 60),
    min_word_pt: float = MIN_WORD_PT,
) -> tuple[Check, ...]:
    """Checks on rendered pages.

    Args:
        count: the fewest and the most pages.
        min_word_pt: the least height of a word's box.
    """
    low, high = count
    number = [] if low <= len(pages) <= high else [f"expected {low} to {high}, got {len(pages)}"]
    empty, off, small, blank = [], [], [], []
    for at, page in enumerate(pages, 1):
        if not page["words"] and page["ink"] < EMPTY_INK:
            empty.append(f"page {at} is empty")
        for place in page["unseen"]:
            text = page["words"][place][4]
            blank.append(f"page {at}: {text!r} is covered or in the colour of its ground")
        for x0, y0, x1, y1, text in page["words"]:
            inside = x0 >= -EDGE_PT and y0 >= -EDGE_PT
            inside = inside and x1 <= page["width"] + EDGE_PT and y1 <= page["height"] + EDGE_PT
            if not inside:
                off.append(f"page {at}: {text!r} runs off the page")
            if y1 - y0 < min_word_pt:
                small.append(f"page {at}: {text!r} is {y1 - y0:.1f} pt high")
    return (
        summary("pages", number),
        summary("no empty page", empty),
        summary("on the page", off),
        summary("readable size", small),
        summary("in sight", blank),
    )


def is_lost(text: str, pages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a text stands on rendered pages, and some word of it is unseen wherever it does."""
    words = text.split()
    found = False
    for page in pages:
        told, blank = [word for *_, word in page["words"]], set(page["unseen"])
        for start in range(len(told) - len(words) + 1 if words else 0):
            places = range(start, start + len(words))
            if even(text) in even(" ".join(told[start : start + len(words)])):
                if blank.isdisjoint(places):
                    return False
                found = True
    return found
