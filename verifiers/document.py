"""Judges a .docx: its outline, texts and tables, that edits kept to their place, and its layout.

Writing style and truth are not judged.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..workspaces import Workspace
from .layout import check_pages, is_lost
from .reading import lay_original, read_inside, saved_by_office, summary, unreadable
from .sameness import even, same_rows
from .types import Check, Verdict, VerifierSpec, failures, judge_edit, new_work

EXPECTED = "expected.json"
HEADING = "heading "

FREE = ("style ", "picture ")
"""Parts that may come new, for what is written in the declared sections."""

Block = Mapping[str, Any]


class DocumentVerifier:
    """Passes when the document holds what it must and was changed only where it may be.

    Params: `path`. Hidden asset `expected.json`, every key optional:
    `outline`, all headings in order, as [level, text];
    `contains` and `absent`, `{"text": T, "under": HEADING}`, `under` being optional;
    `tables`, `{"under": HEADING, "rows": [...], "absolute": A}`, cells being texts or numbers;
    `sections`, headings of the sections that may change or come new (left out = all may);
    `tracked`, true = every change is a tracked one, so that rejecting all gives the original;
    `pages`, [fewest, most], and with it the rules of `layout.py`.
    """

    name: ClassVar[str] = "document"
    version: ClassVar[str] = "3"

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the document in `workspace`; see `Verifier.verify`."""
        path, expected = spec.params["path"], json.loads(hidden[EXPECTED])
        original = await lay_original(workspace, path)
        request = {"path": path, "original": original, "render": "pages" in expected}
        found = await read_inside(workspace, "document", request)
        judged = f"{self.name}@{self.version}"
        if found["ending"] != "read":
            check = unreadable(path, "a document", found["ending"], found["detail"])
            return judge_edit((check,), (), verifier=judged)
        kept = compare_kept(found["document"], found["original"], expected)
        if original is not None and any(check.outcome == "fail" for check in kept):
            for saved in await saved_by_office(workspace, original):
                kept = min(kept, compare_kept(found["document"], saved, expected), key=failures)
        if "pages" in expected:
            kept = (*kept, *check_pages(found["pages"], count=expected["pages"]))
        work = compare_content(found["document"]["blocks"], expected, found["pages"])
        if found["original"] is not None:
            work, held = new_work(work, compare_content(found["original"]["blocks"], expected))
            kept = (*held, *kept)
        return judge_edit(work, kept, verifier=judged)


def compare_content(
    blocks: Sequence[Block], expected: Mapping[str, Any], pages: Sequence[Mapping[str, Any]] = ()
) -> tuple[Check, ...]:
    """One check for the outline, one a text, one a table. Tracked changes count as accepted.

    Args:
        pages: as they are rendered, where they were; what is unseen on them is not there.
    """
    checks = []
    if "outline" in expected:
        got = [[level(block), even(block["text"])] for block in blocks if level(block)]
        wanted = [[depth, even(text)] for depth, text in expected["outline"]]
        wrong = [] if got == wanted else [f"expected {wanted}, got {got}"]
        wrong += [f"{text!r} cannot be seen" for _, text in wanted if is_lost(text, pages)]
        checks.append(summary("outline", wrong))
    for kind in ("contains", "absent"):
        for each in expected.get(kind, ()):
            texts = [_all_text(block) for block in _under(blocks, each.get("under"))]
            there = any(even(each["text"]) in even(text) for text in texts)
            place = f" under {each['under']!r}" if "under" in each else ""
            wrong = [] if there == (kind == "contains") else [f"{kind} {each['text']!r}{place}"]
            if there and kind == "contains" and is_lost(each["text"], pages):
                wrong = [f"expected {each['text']!r} where it can be seen"]
            checks.append(summary(f"{kind} {each['text'][:40]}", wrong))
    for number, table in enumerate(expected.get("tables", ()), 1):
        found = [b["rows"] for b in _under(blocks, table.get("under")) if b["kind"] == "table"]
        right = any(same_rows(rows, table["rows"], table.get("absolute")) for rows in found)
        wrong = [] if right else [f"expected {table['rows'][:2]}..., got {[r[:2] for r in found]}"]
        cells = [str(cell) for row in table["rows"] for cell in row]
        wrong += [f"{cell!r} cannot be seen" for cell in cells if is_lost(cell, pages)]
        checks.append(summary(f"table {number}", wrong))
    return tuple(checks)


def compare_kept(
    after: Mapping[str, Any], before: Mapping[str, Any] | None, expected: Mapping[str, Any]
) -> tuple[Check, ...]:
    """What must be as it was: blocks outside of the declared sections, and all other parts."""
    if before is None:
        return ()
    checks = []
    if expected.get("tracked"):
        rejected = [_rejected(block) for block in after["blocks"] if not _only_added(block)]
        original = [_rejected(block) for block in before["blocks"]]
        checks.append(summary("every change tracked", _differences(original, rejected)))
    if "sections" in expected:
        free = {even(name) for name in expected["sections"]}
        kept = [_whole(b) for b, section in _sectioned(before["blocks"]) if not section & free]
        now = [_whole(b) for b, section in _sectioned(after["blocks"]) if not section & free]
        checks.append(summary("unchanged", _differences(kept, now)))
        was, parts = before["parts"], after["parts"]
        changed = [
            f"{name}: expected {was.get(name, 'none')!r} as before, got {parts.get(name, 'none')!r}"
            for name in dict.fromkeys([*was, *parts])
            if was.get(name) != parts.get(name) and not (name.startswith(FREE) and name not in was)
        ]
        checks.append(summary("other parts", changed))
    return tuple(checks)


def level(block: Block) -> int:
    """The depth of a heading, 1 being the top; 0 = it is none."""
    style = str(block["style"]).casefold()
    digits = style.removeprefix(HEADING)
    return int(digits) if style.startswith(HEADING) and digits.isdigit() else 0


def _sectioned(blocks: Sequence[Block]) -> list[tuple[Block, set[str]]]:
    """Each block with the headings that it stands under, its own included."""
    open_headings: list[tuple[int, str]] = []
    found = []
    for block in blocks:
        if depth := level(block):
            open_headings = [each for each in open_headings if each[0] < depth]
            open_headings.append((depth, even(block["text"])))
        found.append((block, {text for _, text in open_headings}))
    return found


def _under(blocks: Sequence[Block], heading: str | None) -> list[Block]:
    if heading is None:
        return list(blocks)
    return [block for block, section in _sectioned(blocks) if even(heading) in section]


def _all_text(block: Block) -> str:
    return "\t".join(cell for row in block["rows"] for cell in row) or str(block["text"])


def _whole(block: Block) -> str:
    told = [
        block["kind"],
        block["style"],
        _all_text(block),
        block["look"],
        block["pictures"],
        block["concealed"],
        block["digest"],
    ]
    return json.dumps([told, block["rows"]], ensure_ascii=False)


def _rejected(block: Block) -> str:
    return json.dumps([block["kind"], block["style"], block["was"]], ensure_ascii=False)


def _only_added(block: Block) -> bool:
    return bool(block["fresh"]) and not block["was"]


def _differences(before: Sequence[str], after: Sequence[str]) -> list[str]:
    lines = difflib.unified_diff(before, after, lineterm="", n=0)
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
