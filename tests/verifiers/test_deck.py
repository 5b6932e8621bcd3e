"""A deck in which one slide must be made of data, by python-pptx in the office image."""

import json
from typing import Any

import pytest

from rollmill.verifiers import Verdict, VerifierSpec
from rollmill.verifiers.deck import DeckVerifier, check_shapes
from rollmill.workspaces import DockerProvider, Workspace, WorkspaceSpec, opened, pack_tree

from .edits import by_office, edited, failed, run

HEAD = """
from pptx.dml.color import RGBColor
from pptx.enum.dml import MSO_THEME_COLOR
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
NOTE = GOLD + BOX.format(7, 2) + 'b.text = "Oslo leads"\nr = b.text_frame.paragraphs[0].runs[0]\n'
COVER = """
x = s[1].shapes.add_shape(1, Inches(6.9), Inches(1.9), Inches(3), Inches(1))
x.fill.solid(); x.fill.fore_color.rgb = RGBColor(255, 255, 255)
"""
TIMED = (
    "from pptx.oxml import parse_xml\n"
    "s[1]._element.append(parse_xml('<p:timing xmlns:p=\"http://schemas.openxmlformats.org/"
    'presentationml/2006/main"><p:tnLst><p:par><p:cTn id="1"><p:childTnLst><p:set><p:cBhvr>'
    '<p:cTn id="2" dur="1"/><p:tgtEl><p:spTgt spid="%d"/></p:tgtEl></p:cBhvr><p:to>'
    '<p:strVal val="{}"/></p:to></p:set></p:childTnLst></p:cTn></p:par></p:tnLst></p:timing>\''
    " % {}.shape_id))"
)
CELLS = "for c in [c for row in t.rows for c in row.cells]:\n    "
UNSEEN = {
    "white": NOTE + "r.font.color.rgb = RGBColor(255, 255, 255)",
    "nearly white": NOTE + "r.font.color.rgb = RGBColor(250, 250, 250)",
    "white by the theme": NOTE + "r.font.color.theme_color = MSO_THEME_COLOR.BACKGROUND_1",
    "black on black": NOTE + "b.fill.solid(); b.fill.fore_color.rgb = RGBColor(0, 0, 0)",
    "one point": NOTE + "r.font.size = Pt(1)",
    "covered": NOTE + COVER,
    "covered by a picture's place": NOTE + COVER + "x.text_frame.text = 'x'",
    "off the slide": NOTE + "b.left = Inches(20)",
    "hidden shape": NOTE + 'b._element.nvSpPr.cNvPr.set("hidden", "1")',
    "animated away": NOTE + TIMED.format("hidden", "b"),
    "leaving by an effect": NOTE
    + TIMED.format("visible", "b").replace('id="1"', 'id="1" presetClass="exit"'),
    "animated away with its group": NOTE
    + "g = s[1].shapes.add_group_shape([b])\n"
    + TIMED.format("hidden", "g"),
    "in the notes": GOLD + 's[1].notes_slide.notes_text_frame.text = "Oslo leads"',
}
SEEN = {
    "plain": NOTE,
    "white on blue": NOTE
    + "r.font.color.rgb = RGBColor(255, 255, 255)\n"
    + "b.fill.solid(); b.fill.fore_color.rgb = RGBColor(0, 0, 160)",
    "white on a dark slide": NOTE
    + "r.font.color.rgb = RGBColor(255, 255, 255)\n"
    + "g = s[1].background.fill; g.solid(); g.fore_color.rgb = RGBColor(0, 0, 0)\n"
    + "h = s[1].shapes.title.text_frame.paragraphs[0].runs[0].font\n"
    + "h.color.rgb = RGBColor(255, 255, 255)",
    "grey, of eight points": NOTE
    + "r.font.color.rgb = RGBColor(128, 128, 128); r.font.size = Pt(8)",
    "animated in": NOTE + TIMED.format("visible", "b"),
    "over a shape": GOLD + COVER + NOTE.removeprefix(GOLD),
    "beside a shape": NOTE + COVER.replace("6.9), Inches(1.9", "8.8), Inches(1.4"),
    "below a frame": NOTE + COVER + "x.fill.background()",
    "in a title's run": GOLD + 's[1].shapes.title.text = "Cities"\n' + NOTE.removeprefix(GOLD),
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
        for name in ("", "another slide", "order"):
            data = spoiled[[*DAMAGES].index(name)] if name else good
            saved = await by_office(workspace, data, ".pptx", "Impress MS PowerPoint 2007 XML")
            verdict = await verdict_of(workspace, saved)
            assert ("unchanged" in failed(verdict)) == bool(name), (name, verdict.checks)
            assert name or verdict.outcome == "pass", verdict.checks
        verdict = await verdict_of(workspace, nothing)
        assert (verdict.outcome, verdict.score) == ("fail", 0.0)
        for data in (b"", seed[:-300]):
            broken = await verdict_of(workspace, data)
            assert (broken.outcome, broken.score) == ("fail", 0.0)


@pytest.mark.office
async def test_only_text_that_is_seen_is_there(provider: DockerProvider) -> None:
    async with opened(provider, WorkspaceSpec(image="office")) as workspace:
        seed = await run(workspace, SEED, "d.pptx")
    spec = WorkspaceSpec(image="office", seed=pack_tree({"d.pptx": seed}))
    wanted = [{"at": 2, "title": "Cities", "contains": ["Oslo leads"], "absent": ["Bergen"]}]
    table = [{"at": 2, "table": [["City", "Sales"], ["Oslo", 1200]]}]
    async with opened(provider, spec) as workspace:
        white, hidden, *decks = await edited(
            workspace,
            OPEN,
            [
                GOLD + CELLS + "c.text_frame.paragraphs[0].runs[0].font.color.rgb = "
                "RGBColor(252, 252, 252); c.fill.solid(); c.fill.fore_color.rgb = "
                "RGBColor(255, 255, 255)",
                NOTE + 's[1]._element.set("show", "0")',
                *UNSEEN.values(),
                *SEEN.values(),
            ],
        )
        for name, data in zip([*UNSEEN, *SEEN], decks, strict=True):
            verdict = await verdict_of(workspace, data, slides=wanted)
            told = "slide 2: contains Oslo leads" if name in UNSEEN else ""
            assert failed(verdict) == told, (name, verdict.checks)
        verdict = await verdict_of(workspace, white, slides=table)
        assert failed(verdict) == "slide 2: table", verdict.checks
        verdict = await verdict_of(workspace, hidden, slides=wanted)
        assert "slide 2: absent Bergen" in failed(verdict)
        assert "slide 2: title" in failed(verdict)
        assert verdict.score == 0.0


def shape(name: str, *box: float) -> dict[str, Any]:
    told: dict[str, Any] = {"text": "x", "unseen": "", "rows": [], "chart": None}
    return {"name": name, "kind": "sp", "box": list(box), **told}


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
