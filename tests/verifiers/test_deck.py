"""A deck in which one slide must be made of data, by python-pptx in the office image."""

import json
from typing import Any

import pytest

from rollmill.verifiers import Verdict, VerifierSpec
from rollmill.verifiers.deck import DeckVerifier, check_shapes
from rollmill.workspaces import DockerProvider, Workspace, WorkspaceSpec, opened, pack_tree

from .edits import edited, failed, run

HEAD = """
from pptx import Presentation
from pptx.util import Pt, Inches
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
"""
SEED = f"""{HEAD}
d = Presentation()
for title, text in [("Sales", "A good year"), ("Cities", ""), ("Outlook", "Prices may rise")]:
    s = d.slides.add_slide(d.slide_layouts[1 if text else 5])
    s.shapes.title.text = title
    if text:
        s.placeholders[1].text = text
d.save("d.pptx")
"""
OPEN = f"{HEAD}\nd = Presentation('d.pptx')\ns = d.slides\n"
WORK = """
t = s[1].shapes.add_table(2, 2, Inches(0.5), Inches(1.6), Inches(4), Inches(1)).table
for at, text in enumerate(["City", "Sales", "Oslo", "1,200"]):
    t.cell(at // 2, at % 2).text = text
c = CategoryChartData()
c.categories = ["Oslo", "Bergen"]
c.add_series("Sales", VALUES)
kind = XL_CHART_TYPE.COLUMN_CLUSTERED
s[1].shapes.add_chart(kind, Inches(0.5), Inches(3), Inches(6), Inches(4), c)
"""
GOLD = WORK.replace("VALUES", "(1200, 800.5)")
EXPECTED: dict[str, Any] = {
    "count": 3,
    "slides": [
        {
            "at": 2,
            "title": "Cities",
            "table": [["City", "Sales"], ["Oslo", 1200]],
            "chart": {"categories": ["Oslo", "Bergen"], "series": {"Sales": [1200, 800.5]}},
        },
        {"at": 3, "contains": ["prices may rise"], "absent": ["fall"]},
    ],
    "edited": [2],
}
LAYOUT = {"layout": True}
BOX = "b = s[1].shapes.add_textbox(Inches({}), Inches({}), Inches(2), Inches(0.5))\n"
DAMAGES = {
    "chart of other data": (WORK.replace("VALUES", "(1200, 801)"), "slide 2: chart"),
    "another slide": (GOLD + 's[0].placeholders[1].text = "A bad year"', "unchanged"),
    "notes of another": (GOLD + 's[0].notes_slide.notes_text_frame.text = "x"', "unchanged"),
    "order": (GOLD + "x = s._sldIdLst; x.append(x[0])", "unchanged"),
    "slide gone": (GOLD + "x = s._sldIdLst; x.remove(x[2])", "count"),
    "master": (GOLD + 'd.slide_master.shapes[0].name = "changed"', "other parts"),
    "title": (GOLD + 's[1].shapes.title.text = "Towns"', "slide 2: title"),
    "hidden": (GOLD + 's[1]._element.set("show", "0")', "slide 2: table"),
    "off the slide": (GOLD + BOX.format(9.5, 1) + 'b.text = "Note"', "on the slide"),
    "overlap": (GOLD + BOX.format(1, 4) + 'b.text = "Note"', "no overlap"),
    "too small": (
        GOLD + BOX.format(7, 2) + 'b.text = "Note"\nb.text_frame.paragraphs[0].font.size = Pt(4)',
        "readable size",
    ),
    "overflow": (GOLD + BOX.format(7, 2) + r'b.text = "\n".join("abcdefgh")', "no overflow"),
    "cut off": (
        GOLD + BOX.format(7, 6.9) + r'b.text = "\n".join(["ab"] * 9 + ["z"])',
        "no overflow",
    ),
}
SPEC = VerifierSpec(name="deck", params={"path": "d.pptx"})


async def verdict_of(workspace: Workspace, data: bytes, **expected: Any) -> Verdict:
    hidden = {"expected.json": json.dumps({**EXPECTED, **expected}).encode()}
    await workspace.put("d.pptx", data)
    return await DeckVerifier().verify(workspace, SPEC, hidden)


@pytest.mark.office
async def test_a_slide_of_data_passes_and_each_damage_fails(provider: DockerProvider) -> None:
    async with opened(provider, WorkspaceSpec(image="office")) as workspace:
        seed = await run(workspace, SEED, "d.pptx")
    spec = WorkspaceSpec(image="office", seed=pack_tree({"d.pptx": seed}))
    async with opened(provider, spec) as workspace:
        good, nothing, *spoiled = await edited(
            workspace, OPEN, [GOLD, "", *(edit for edit, _ in DAMAGES.values())]
        )
        verdict = await verdict_of(workspace, good, **LAYOUT)
        assert verdict.outcome == "pass", verdict.checks
        for (name, (_, watched)), data in zip(DAMAGES.items(), spoiled, strict=True):
            needs_layout = name in ("off the slide", "overlap", "too small", "overflow", "cut off")
            verdict = await verdict_of(workspace, data, **(LAYOUT if needs_layout else {}))
            assert verdict.outcome == "fail", name
            assert watched in failed(verdict), (name, verdict.checks)
        verdict = await verdict_of(workspace, nothing)
        assert (verdict.outcome, verdict.score) == ("fail", 0.0)
        for data in (b"", seed[:-300]):
            broken = await verdict_of(workspace, data)
            assert (broken.outcome, broken.score) == ("fail", 0.0)


def shape(name: str, *box: float) -> dict[str, Any]:
    return {"name": name, "kind": "sp", "text": "x", "rows": [], "chart": None, "box": list(box)}


@pytest.mark.parametrize(
    ("shapes", "watched"),
    [
        ([shape("a", 0, 0, 100, 100), shape("b", 100, 0, 100, 100)], []),
        ([shape("a", 0, 0, 100, 100), shape("b", 50, 0, 100, 100)], ["no overlap"]),
        ([shape("a", 350, 0, 100, 100)], ["on the slide"]),
        ([shape("a", -20, 0, 100, 100)], ["on the slide"]),
        ([], ["no empty slide"]),
    ],
)
def test_shapes_lie_on_the_slide_and_apart(shapes: list[Any], watched: list[str]) -> None:
    checks = check_shapes({"width": 400.0, "height": 300.0, "slides": [{"shapes": shapes}]})
    assert [check.name for check in checks if check.outcome != "pass"] == watched
