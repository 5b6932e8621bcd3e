"""What a document holds besides the text of its blocks, each facet comparable as text.

XML is taken without the marks that a program leaves behind, and with references replaced by what
they lead to, so that numbers of relationships and lists do not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from .archive import attribute, local, named, related, tree

TRACES = frozenset({"proofErr", "lastRenderedPageBreak", "bookmarkEnd", "nsid", "tmpl"})
MARKS = frozenset({"paraId", "textId", "space", "durableId"})
"""Elements and attributes that programs leave behind; and so are all named `rsid...`."""
TOLD = ("header", "footer", "comments", "footnotes", "endnotes")
SETTINGS = frozenset(
    {"documentProtection", "evenAndOddHeaders", "mirrorMargins", "footnotePr", "endnotePr"}
)


class Parts:
    """The parts of a document, and what references of its main part lead to."""

    def __init__(self, archive: Mapping[str, bytes], main: str) -> None:
        self._archive, self._main = archive, main
        self.links = list(related(archive, main))
        self._targets = {main: {key: target for key, _, target in self.links}}
        lists = self._root("numbering")
        self._lists = self._list_looks(lists) if lists is not None else {}

    def digest(self, element: Element, part: str = "") -> str:
        """All of an element, in a few letters."""
        return _short(self._plain(element, part or self._main))

    def facets(self, body: Element) -> Iterator[tuple[str, str]]:
        """Headers, notes, pictures, styles, theme, settings, page set-up, macros."""
        for kind, target in sorted(each[1:] for each in self.links):
            if target not in self._archive:
                continue
            data = self._archive[target]
            if kind in TOLD:
                root = tree(data)
                name = target.rpartition("/")[2]
                lines = ["".join(t.text or "" for t in named(p, "t")) for p in named(root, "p")]
                yield f"{kind} {name}", "\n".join(lines).strip()
                yield f"look of {kind} {name}", self.digest(root, target)
            elif kind == "image":
                yield f"picture {_short(data.hex())}", ""
            elif kind == "styles":
                yield from self._styles(tree(data), target)
            elif kind == "theme":
                schemes = [e for e in tree(data).iter() if local(e) in ("clrScheme", "fontScheme")]
                yield "theme", " ".join(self.digest(each, target) for each in schemes)
            elif kind == "settings":
                kept = [e for e in tree(data) if local(e) in SETTINGS]
                yield "settings", " ".join(self.digest(each, target) for each in kept)
        for number, section in enumerate(named(body, "sectPr"), 1):
            yield f"section {number}", self.digest(section)
        if any("vbaProject" in name for name in self._archive):
            yield "macros", ""

    def _styles(self, root: Element, part: str) -> Iterator[tuple[str, str]]:
        for style in named(root, "style"):
            yield f"style {attribute(style, 'styleId')}", self.digest(style, part)
        for defaults in named(root, "docDefaults"):
            yield "style defaults", self.digest(defaults, part)

    def _plain(self, element: Element, part: str) -> str:
        name = local(element)
        marks = []
        for key, value in element.attrib.items():
            space, _, short = key.rpartition("}")
            if short in MARKS or short.startswith("rsid"):
                continue
            if space.endswith("/relationships"):
                value = self._led_to(part, value)
            elif name == "numId" and short == "val":
                value = self._lists.get(value, value)
            elif short == "id" and name not in ("footnoteReference", "endnoteReference"):
                continue
            marks.append(f"{short}={value}")
        inner = [self._plain(e, part) for e in element if local(e) not in TRACES and not _idle(e)]
        text = element.text or "" if name in ("t", "delText", "instrText", "v", "f") else ""
        return f"<{name} {' '.join(sorted(marks))}>{text}{''.join(inner)}</>"

    def _led_to(self, part: str, key: str) -> str:
        """What a relationship of a part leads to: an address, or the part's content."""
        if part not in self._targets:
            self._targets[part] = {k: target for k, _, target in related(self._archive, part)}
        target = self._targets[part].get(key, "")
        data = self._archive.get(target)
        if data is None:
            return target
        if target.endswith(".xml") and target != part:
            return self.digest(tree(data), target)
        return _short(data.hex())

    def _root(self, kind: str) -> Element | None:
        part = next((t for _, k, t in self.links if k == kind and t in self._archive), None)
        return None if part is None else tree(self._archive[part])

    def _list_looks(self, lists: Element) -> dict[str, str]:
        """Number of a list -> how it looks."""
        self._lists = {}
        plain = {
            attribute(e, "abstractNumId"): self._plain(_bare(e), "")
            for e in lists
            if local(e) == "abstractNum"
        }
        found = {}
        for each in (e for e in lists if local(e) == "num"):
            base = next((attribute(e, "val") for e in named(each, "abstractNumId")), "")
            own = "".join(self._plain(e, "") for e in each if local(e) == "lvlOverride")
            found[attribute(each, "numId")] = _short(plain.get(base, "") + own)
        return found


def _bare(element: Element) -> Element:
    """An element without its own attributes, which only number it."""
    copy = Element(element.tag)
    copy.extend(element)
    return copy


def _idle(element: Element) -> bool:
    return local(element) == "bookmarkStart" and attribute(element, "name") == "_GoBack"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
