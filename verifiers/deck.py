"""Judges a .pptx: its slides, tables and charts against data, edits kept to their slides, layout.

Taste and truth are not judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar

from ..workspaces import Workspace
from .layout import check_pages
from .reading import lay_original, read_inside, saved_by_office, summary, unreadable
from .sameness import even, near, same_rows
from .types import Check, Verdict, VerifierSpec, failures, judge_edit, new_work

EXPECTED = "expected.json"
SLACK_PT = 2.0
OVERLAP = 0.1
"""Share of the smaller of two shapes that may lie under the other."""
MIN_WORD_PT = 10.0
"""Height of a word's box; that of 10-point text is about 11."""

Slide = Mapping[str, Any]


class DeckVerifier:
    """Passes when the deck shows what it must and was changed only where it may be.

    Params: `path`. Hidden asset `expected.json`, every key optional:
    `count`, how many slides; `slides`, `{"at": 2, "title": T, "contains": [...], "absent": [...],
    "table": rows, "chart": {"categories": [...], "series": {name: [...]}}, "absolute": A}`, slides
    being counted from 1; `edited`, numbers of the slides that may differ from the seed's (left
    out = all may); `layout`, true = rules for shapes and rendered pages.
    """

    name: ClassVar[str] = "deck"
    version: ClassVar[str] = "3"

    async def verify(
        self, workspace: Workspace, spec: VerifierSpec, hidden: Mapping[str, bytes]
    ) -> Verdict:
        """Judge the deck in `workspace`; see `Verifier.verify`."""
        path, expected = spec.params["path"], json.loads(hidden[EXPECTED])
        wants_layout = bool(expected.get("layout"))
        original = await lay_original(workspace, path)
        request = {"path": path, "original": original, "render": wants_layout}
        found = await read_inside(workspace, "deck", request)
        judged = f"{self.name}@{self.version}"
        if found["ending"] != "read":
            check = unreadable(path, "a deck", found["ending"], found["detail"])
            return judge_edit((check,), (), verifier=judged)
        deck, before = found["deck"], found["original"]
        work, kept = compare_slides(deck["slides"], expected), compare_kept(deck, before, expected)
        if original is not None and any(check.outcome == "fail" for check in kept):
            for saved in await saved_by_office(workspace, original):
                kept = min(kept, compare_kept(deck, saved, expected), key=failures)
        if wants_layout:
            shown = sum(not slide["hidden"] for slide in deck["slides"])
            pages = check_pages(found["pages"], count=(shown, shown), min_word_pt=MIN_WORD_PT)
            kept = (*kept, *check_shapes(deck), check_overflow(deck, found["pages"]), *pages)
        if before is not None:
            work, held = new_work(work, compare_slides(before["slides"], expected))
            kept = (*held, *kept)
        return judge_edit(work, kept, verifier=judged)


def compare_slides(slides: Sequence[Slide], expected: Mapping[str, Any]) -> tuple[Check, ...]:
    """One check for the number of slides, and one for each thing that a slide must show."""
    checks = []
    if "count" in expected:
        wrong = [] if len(slides) == expected["count"] else [f"got {len(slides)} slides"]
        checks.append(summary("count", wrong))
    for wanted in expected.get("slides", ()):
        at = wanted["at"]
        slide = slides[at - 1] if at <= len(slides) else None
        for name, wrong in _about(slide, wanted):
            checks.append(summary(f"slide {at}: {name}", wrong))
    return tuple(checks)


def _about(slide: Slide | None, wanted: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each thing that is wanted of a slide, and what is wrong with it."""
    shapes = [] if slide is None or slide["hidden"] else slide["shapes"]
    texts = even("\n".join("\n".join([s["text"], *map("\t".join, s["rows"])]) for s in shapes))
    absolute = wanted.get("absolute")
    if "title" in wanted:
        title = "" if slide is None or slide["hidden"] else slide["title"]
        right = even(title) == even(wanted["title"])
        yield "title", [] if right else [f"expected {wanted['title']!r}, got {title!r}"]
    for text in wanted.get("contains", ()):
        yield f"contains {text[:40]}", [] if even(text) in texts else [f"got {texts[:150]!r}"]
    covered = even("\n".join(shape["unseen"] for shape in shapes))
    for text in wanted.get("absent", ()):
        there = slide is None or slide["hidden"] or even(text) in texts or even(text) in covered
        wrong = [f"expected a visible slide without {text!r}"] if there else []
        yield f"absent {text[:40]}", wrong
    if "table" in wanted:
        tables = [shape["rows"] for shape in shapes if shape["rows"]]
        right = any(same_rows(rows, wanted["table"], absolute) for rows in tables)
        yield "table", [] if right else [f"expected {wanted['table'][:2]}, got {tables}"]
    if "chart" in wanted:
        charts = [shape["chart"] for shape in shapes if shape["chart"]]
        right = any(_same_chart(chart, wanted["chart"], absolute) for chart in charts)
        yield "chart", [] if right else [f"expected {wanted['chart']}, got {charts}"]


def compare_kept(
    after: Mapping[str, Any], before: Mapping[str, Any] | None, expected: Mapping[str, Any]
) -> tuple[Check, ...]:
    """Slides that were not to be edited, in their order, and masters, layouts and themes."""
    if before is None or "edited" not in expected:
        return ()
    free = {number - 1 for number in expected["edited"]}
    added = len(after["slides"]) - len(before["slides"])
    was, now = before["slides"], [s for at, s in enumerate(after["slides"]) if at not in free]
    kept = was if added == len(free) else [s for at, s in enumerate(was) if at not in free]
    wrong = [] if len(kept) == len(now) else [f"expected {len(kept)} other slides, got {len(now)}"]
    wrong += [
        f"{left['title']!r}: expected this slide as before"
        for left, right in zip(kept, now, strict=False)
        if left["digest"] != right["digest"]
    ]
    parts = [
        f"{name}: expected as before"
        for name in dict.fromkeys([*before["parts"], *after["parts"]])
        if before["parts"].get(name) != after["parts"].get(name)
        and not (name.startswith("notesMaster") and name not in before["parts"])
    ]
    return summary("unchanged", wrong), summary("other parts", parts)


def check_shapes(deck: Mapping[str, Any]) -> tuple[Check, ...]:
    """Nothing off the slide, nothing on top of another, no slide without content."""
    off, overlaps, empty = [], [], []
    for number, slide in enumerate(deck["slides"], 1):
        shown = [s for s in slide["shapes"] if s["box"] and _has_content(s)]
        if not shown:
            empty.append(f"slide {number} is empty")
        for shape in shown:
            left, top, width, height = shape["box"]
            inside = left >= -SLACK_PT and top >= -SLACK_PT
            inside = inside and left + width <= deck["width"] + SLACK_PT
            if not (inside and top + height <= deck["height"] + SLACK_PT):
                off.append(f"slide {number}: {shape['name']!r} lies off the slide")
        for one, other in combinations(shown, 2):
            if _overlap(one["box"], other["box"]) > OVERLAP:
                overlaps.append(f"slide {number}: {one['name']!r} and {other['name']!r} overlap")
    return (
        summary("on the slide", off),
        summary("no overlap", overlaps),
        summary("no empty slide", empty),
    )


def check_overflow(deck: Mapping[str, Any], pages: Sequence[Mapping[str, Any]]) -> Check:
    """Whether the rendered pages show all text, and show it above the lower edge of its shape.

    A word counts as below its shape only where it stands once on the page.
    """
    wrong = []
    shown = [(at, s) for at, s in enumerate(deck["slides"], 1) if not s["hidden"]]
    for (number, slide), page in zip(shown, pages, strict=False):
        lowest: dict[str, list[float]] = {}
        for _, top, _, bottom, word in page["words"]:
            lowest.setdefault(word, []).append((top + bottom) / 2)
        for shape in slide["shapes"]:
            words = shape["text"].split()
            cut = [word for word in words if word not in lowest]
            if cut:
                wrong.append(f"slide {number}: {cut[0]!r} of {shape['name']!r} is cut off")
            elif words and shape["box"]:
                edge = shape["box"][1] + shape["box"][3] + SLACK_PT
                places = lowest[words[-1]]
                if len(places) == 1 and places[0] > edge:
                    told = f"{words[-1]!r} runs out of {shape['name']!r}"
                    wrong.append(f"slide {number}: {told}")
    return summary("no overflow", wrong)


def _has_content(shape: Mapping[str, Any]) -> bool:
    if shape["kind"] == "cxnSp":
        return False
    told = shape["text"] or shape["unseen"] or shape["rows"] or shape["chart"]
    return bool(told or shape["kind"] == "pic")


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """The common area as a share of the smaller one."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    smaller = min(one[2] * one[3], other[2] * other[3])
    return max(width, 0.0) * max(height, 0.0) / smaller if smaller > 0 else 0.0


def _same_chart(
    chart: Mapping[str, Any], wanted: Mapping[str, Any], absolute: float | None
) -> bool:
    series = {even(each["name"]): each["values"] for each in chart["series"]}
    return same_rows([chart["categories"]], [wanted["categories"]], absolute) and (
        series.keys() == {even(name) for name in wanted["series"]}
        and all(
            len(series[even(name)]) == len(values)
            and all(near(*pair, absolute) for pair in zip(series[even(name)], values, strict=True))
            for name, values in wanted["series"].items()
        )
    )
