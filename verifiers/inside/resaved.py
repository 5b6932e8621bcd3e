"""Tells what a document or deck is after LibreOffice has only opened and saved it, once and twice.

What comes of that is no fault of whoever used it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from . import deck, document
from .answering import answer
from .soffice import convert

READERS = {".docx": (document.document, document.FILTER), ".pptx": (deck.deck, deck.FILTER)}


def main() -> None:
    """Answer the request on standard input."""
    answer(read)


def read(request: dict[str, Any]) -> dict[str, Any]:
    """The original as its reader tells it, after each time it was saved."""
    original = Path(request["original"])
    reader, name = READERS[original.suffix]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        latest = Path(folder) / f"0{original.suffix}"
        latest.write_bytes(original.read_bytes())
        for time in ("once", "twice"):
            scratch = Path(folder) / time
            to = f"{original.suffix[1:]}:{name}"
            convert([latest], to, scratch, request["timeout_s"], name)
            latest = scratch / "out" / latest.name
            found.append(reader(latest))
    return {"saved": found}
