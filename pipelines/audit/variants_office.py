"""Near misses and rewrites of gold documents and decks: one text or figure wrong, another packing.

It reads files that we made ourselves, part by part as text; an agent's is never opened here.
Layout and styles are left as they are.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape, unescape

Change = tuple[str, bytes]
Parts = Mapping[str, bytes]
EACH_KIND = 3
"""Mutants of one kind."""
SHOWN = (
    (re.compile(r"word/document\.xml"), re.compile(r"(<w:t(?: [^>]*)?>)([^<]+)(?=</w:t>)")),
    (re.compile(r"ppt/slides/slide\d+\.xml"), re.compile(r"(<a:t>)([^<]+)(?=</a:t>)")),
    (re.compile(r"ppt/charts/chart\w*\.xml"), re.compile(r"(<c:v>)([^<]+)(?=</c:v>)")),
)
"""Parts that show something, and where their texts stand in the XML."""
PARAGRAPH = re.compile(r"<w:p[ >](?:(?!<w:p[ >]).)*?</w:p>", re.DOTALL)
NUMBER = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?")


def office_mutants(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """One thing wrong each, in what the gold solution wrote, then one outside of it."""
    parts, seed = _parts(content), _parts(before) if before else {}
    texts = list(_texts(parts))
    known = {(name, text) for name, text, _ in _texts(seed)}
    written = [each for each in texts if each[:2] not in known]
    numbers = [each for each in written if NUMBER.fullmatch(each[1].strip())]
    words = [each for each in written if each not in numbers]
    for name, text, span in _spread(numbers):
        yield f"{text!r} off by 1 %", _with(parts, name, span, _off(text))
    for name, text, span in _spread(words):
        yield f"{text[:30]!r} with a letter more", _with(parts, name, span, f"{text}s")
    for name, text, span in _spread(words)[-1:]:
        yield f"{text[:30]!r} left empty", _with(parts, name, span, "")
    yield from _paragraphs_lost(parts, {text for _, text, _ in words})
    kept = [each for each in texts if each not in written]
    for name, text, span in _spread(kept)[:1]:
        yield f"{text[:30]!r} changed, outside", _with(parts, name, span, "changed")


def office_rewrites(
    path: str, content: bytes, before: bytes, hidden: Mapping[str, bytes]
) -> Iterator[Change]:
    """The same parts in an archive without compression."""
    yield "packed without compression", _packed(_parts(content), zipfile.ZIP_STORED)


def _paragraphs_lost(parts: Parts, written: set[str]) -> Iterator[Change]:
    """A document without one of the paragraphs that the gold solution wrote."""
    name = "word/document.xml"
    xml = parts.get(name, b"").decode()
    _, pattern = SHOWN[0]
    lost = [
        found.span()
        for found in PARAGRAPH.finditer(xml)
        if any(unescape(text[2]) in written for text in pattern.finditer(found[0]))
    ]
    for start, end in lost[-1:]:
        changed = xml[:start] + xml[end:]
        yield "a paragraph left out", _packed({**parts, name: changed.encode()})


def _texts(parts: Parts) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Part, text and its place in the part, of everything that is shown."""
    for name in sorted(parts):
        for where, pattern in SHOWN:
            if where.fullmatch(name):
                for found in pattern.finditer(parts[name].decode()):
                    yield name, unescape(found[2]), found.span(2)


def _off(text: str) -> str:
    value = float(text.replace(",", ""))
    return f"{value * 1.01:.4f}" if value else "0.01"


def _with(parts: Parts, name: str, span: tuple[int, int], text: str) -> bytes:
    xml = parts[name].decode()
    changed = xml[: span[0]] + escape(text) + xml[span[1] :]
    return _packed({**parts, name: changed.encode()})


def _parts(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as package:
        return {name: package.read(name) for name in package.namelist()}


def _packed(parts: Parts, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as package:
        for name, data in parts.items():
            package.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return buffer.getvalue()


def _spread(
    found: list[tuple[str, str, tuple[int, int]]],
) -> list[tuple[str, str, tuple[int, int]]]:
    """The first, the last and one between."""
    return found if len(found) <= EACH_KIND else [found[0], found[len(found) // 2], found[-1]]
