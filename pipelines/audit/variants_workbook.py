"""Near misses and rewrites of a gold workbook, as the gate asks for them.

The near misses are those of `pipelines/cowork/mutants.py`. It reads workbooks that we made; an
agent's is never opened here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping

import openpyxl

from ..cowork.mutants import workbook_mutants

Change = tuple[str, bytes]


def region_mutants(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """One thing wrong each; none where the hidden assets declare no regions."""
    expected = json.loads(hidden.get("expected.json", b"{}"))
    if isinstance(expected, dict) and expected.get("regions"):
        yield from workbook_mutants(content, expected)


def workbook_rewrites(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """The same workbook, with another title and author."""
    book = openpyxl.load_workbook(io.BytesIO(content))
    book.properties.title, book.properties.creator = "Report", "somebody"
    buffer = io.BytesIO()
    book.save(buffer)
    yield "saved anew by somebody else", buffer.getvalue()
