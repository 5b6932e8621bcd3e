"""A report that must be edited in one place only, by python-docx in the office image."""

import json
from typing import Any

import pytest

from rollmill.verifiers import Verdict, VerifierSpec
from rollmill.verifiers.document import DocumentVerifier
from rollmill.verifiers.layout import check_pages
from rollmill.workspaces import DockerProvider, Workspace, WorkspaceSpec, opened, pack_tree

from .edits import by_office, edited, failed, run

SEED = """
import docx
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
HYPERLINK = RELATIONSHIP_TYPE.HYPERLINK
d = docx.Document()
d.add_heading("Report", 1)
d.add_paragraph("It was a good year.").runs[0].bold = True
d.paragraphs[-1].add_run("For internal use.").font.hidden = True
d.add_heading("Sales", 2)
d.add_paragraph("Sales of 2023 follow.")
t = d.add_table(rows=2, cols=2)
for at, text in enumerate(["City", "Sales", "Oslo", "1,200"]):
    t.cell(at // 2, at % 2).text = text
p = d.add_paragraph("See ")
link = OxmlElement("w:hyperlink")
link.set(qn("r:id"), d.part.relate_to("http://good.example", HYPERLINK, is_external=True))
link.append(p.add_run("our site")._r)
p._p.append(link)
p.add_run(" in Arial").font.name = "Arial"
d.add_paragraph("one", style="List Number")
t.style = "Table Grid"
t.cell(0, 0).paragraphs[0].runs[0].bold = True
d.add_heading("Risks", 2)
d.add_paragraph("None are known.")
d.sections[0].footer.paragraphs[0].text = "Confidential"
d.save("r.docx")
"""
OPEN = "import docx\nd = docx.Document('r.docx')\np = d.paragraphs\n"


def shade(colour: str) -> str:
    """Gives the run `q` a ground."""
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    xml = f'<w:shd xmlns:w="{space}" w:val="clear" w:fill="{colour}"/>'
    return f"q._r.get_or_add_rPr().append(docx.oxml.parse_xml({xml!r}))\n"


WORK = """
p[-1].text = "Prices may rise."
d.add_paragraph("Staff may leave.")
"""
TRACKED = """
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
mark = nsdecls("w") + ' w:id="1" w:author="Ann" w:date="2024-01-01T00:00:00Z"'
run = p[-1].runs[0]._r
old = parse_xml(f'<w:del {mark}><w:r><w:delText>None are known.</w:delText></w:r></w:del>')
new = parse_xml(f'<w:ins {mark}><w:r><w:t>Prices may rise. Staff may leave.</w:t></w:r></w:ins>')
run.addprevious(old); run.addprevious(new); run.getparent().remove(run)
"""
SLY = "\np[-1].insert_paragraph_before('Untracked.')"
EXPECTED: dict[str, Any] = {
    "outline": [[1, "Report"], [2, "Sales"], [2, "Risks"]],
    "contains": [
        {"text": "prices may rise", "under": "Risks"},
        {"text": "Staff may leave", "under": "Risks"},
    ],
    "absent": [{"text": "None are known"}],
    "tables": [{"under": "Sales", "rows": [["City", "Sales"], ["Oslo", 1200]]}],
    "sections": ["Risks"],
}
PAGES = {"pages": [1, 1]}
NOT_SEEN = "contains prices may rise contains Staff may leave"
DAMAGES = {
    "nothing done": ("", "contains prices may rise contains Staff may leave absent None are known"),
    "another paragraph": (WORK + 'p[3].runs[0].text = "Sales of 2024 follow."', "unchanged"),
    "bold lost": (WORK + "p[1].runs[0].bold = None", "unchanged"),
    "hidden text lost": (WORK + "p[1].runs[1].text = ''", "unchanged"),
    "hidden text written elsewhere": (
        WORK + "p[3].add_run('Psst.').font.hidden = True",
        "unchanged",
    ),
    "figure of the table": (WORK + 'd.tables[0].cell(1, 1).text = "1,300"', "table 1 unchanged"),
    "footer": (WORK + 'd.sections[0].footer.paragraphs[0].text = "Public"', "other parts"),
    "margin": (WORK + "d.sections[0].left_margin //= 2", "other parts"),
    "style": (WORK + 'd.styles["Normal"].font.size = docx.shared.Pt(7)', "other parts"),
    "heading renamed": (WORK + 'p[4].text = "Dangers"', ""),
    "link elsewhere": (
        WORK + "for r in d.part.rels.values():\n"
        "    if r.is_external: r._target = 'http://evil.example'",
        "unchanged",
    ),
    "bold of a cell lost": (
        WORK + "d.tables[0].cell(0, 0).paragraphs[0].runs[0].bold = None",
        "unchanged",
    ),
    "font of a run": (
        WORK + "[r for q in p for r in q.runs if r.font.name][0].font.name = 'Wingdings'",
        "unchanged",
    ),
    "style of a table": (WORK + "d.tables[0].style = 'Light List'", "unchanged"),
    "list of another kind": (
        WORK + "n = d.part.numbering_part.element\n"
        "for f in n.iter('{http://schemas.openxmlformats.org/wordprocessingml/2006/main}numFmt'):\n"
        "    f.set(f.keys()[0], 'bullet')",
        "other parts",
    ),
    "theme": (
        WORK + "t = [q.target_part for q in d.part.rels.values() if 'theme' in q.reltype][0]\n"
        "t._blob = t.blob.replace(b'4F81BD', b'123456')",
        "other parts",
    ),
    "hidden": (WORK + "for each in d.paragraphs[-2:]: each.runs[0].font.hidden = True", NOT_SEEN),
    "hidden by its style": (
        WORK
        + "base = d.styles.add_style('Base', 2); base.font.hidden = True\n"
        + "odd = d.styles.add_style('Odd', 2); odd.base_style = base\n"
        + "for each in d.paragraphs[-2:]: each.runs[0].style = odd",
        NOT_SEEN,
    ),
    "written elsewhere": ('p[0].insert_paragraph_before("Prices may rise. Staff may leave.")', ""),
    "second page": (WORK + "d.add_page_break()\nd.add_paragraph('More.')", "pages"),
    "too small": (WORK + "p[-1].runs[0].font.size = docx.shared.Pt(2)", "readable size"),
}
UNSEEN = {
    "white": "q.font.color.rgb = RGBColor(255, 255, 255)",
    "nearly white": "q.font.color.rgb = RGBColor(252, 252, 252)",
    "one point": "q.font.size = docx.shared.Pt(1)",
    "on its own colour": shade("112233") + "q.font.color.rgb = RGBColor(16, 32, 48)",
    "white by its style": "s = d.styles.add_style('Odd', 2); q.style = s\n"
    "s.font.color.rgb = RGBColor(255, 255, 255)",
    "in a flat row": "t = d.add_table(1, 1); t.cell(0, 0).text = q.text\n"
    "t.rows[0].height = 200; t.rows[0].height_rule = 2; p[-1].clear()",
    "in a flat line": "f = p[-1].paragraph_format; f.line_spacing = docx.shared.Pt(1)",
    "in white in a table of a style": "t = d.add_table(1, 1); t.style = 'Light Shading'\n"
    "r = t.cell(0, 0).paragraphs[0].add_run(q.text); p[-1].clear()\n"
    "r.font.color.rgb = RGBColor(255, 255, 255)",
    "covered by a picture": "from PIL import Image\nfrom docx.oxml import parse_xml\n"
    "Image.new('RGB', (900, 900), 'white').save('/tmp/white.png')\n"
    "i = p[-1].add_run().add_picture('/tmp/white.png', docx.shared.Inches(6))._inline\n"
    "from lxml import etree\n"
    "xml = etree.tostring(i).decode().replace('wp:inline', 'wp:anchor')\n"
    "at = xml.index('>') + 1\n"
    'place = \'<wp:simplePos x="0" y="0"/><wp:positionH relativeFrom="column">\''
    "'<wp:posOffset>0</wp:posOffset></wp:positionH><wp:positionV relativeFrom=\"paragraph\">'"
    "'<wp:posOffset>-400000</wp:posOffset></wp:positionV>'\n"
    'more = \' behindDoc="0" locked="0" layoutInCell="1" allowOverlap="1" simplePos="0" \''
    "'relativeHeight=\"5\">'\n"
    "xml = xml[:at - 1] + more + place + xml[at:]\n"
    "end = xml.index('<wp:docPr')\n"
    "xml = xml[:end] + '<wp:wrapNone/>' + xml[end:]\n"
    "i.getparent().replace(i, parse_xml(xml))",
}
SEEN = {
    "grey": "q.font.color.rgb = RGBColor(128, 128, 128); q.font.size = docx.shared.Pt(8)",
    "white on dark": shade("1F4E78") + "q.font.color.rgb = RGBColor(255, 255, 255)",
    "marked": "q.font.highlight_color = 1; q.font.color.rgb = RGBColor(255, 255, 255)",
    "white in a dark cell": "t = d.add_table(1, 1); c = t.cell(0, 0); r = c.paragraphs[0].add_run("
    "q.text); p[-1].clear(); r.font.color.rgb = RGBColor(255, 255, 255)\n"
    "c._tc.get_or_add_tcPr().append(docx.oxml.parse_xml('<w:shd xmlns:w="
    '"http://schemas.openxmlformats.org/wordprocessingml/2006/main" w:val="clear" '
    'w:fill="1F4E78"/>\'))',
    "white by hand in a dark header of a style": "t = d.add_table(2, 1)\n"
    "t.style = 'Medium Shading 1 Accent 1'; r = t.cell(0, 0).paragraphs[0].add_run(q.text)\n"
    "p[-1].clear(); r.font.color.rgb = RGBColor(255, 255, 255)",
    "in two runs": "a, b = q.text[:9], q.text[9:]; q.text = a; p[-1].add_run(b).bold = True",
    "a list": "p[-1].style = 'List Bullet'",
    "a quiet character": "q.font.small_caps = True; q.font.italic = True",
}
SPEC = VerifierSpec(name="document", params={"path": "r.docx"})


async def verdict_of(workspace: Workspace, data: bytes, **expected: Any) -> Verdict:
    hidden = {"expected.json": json.dumps({**EXPECTED, **expected}).encode()}
    await workspace.put("r.docx", data)
    return await DocumentVerifier().verify(workspace, SPEC, hidden)


@pytest.mark.office
async def test_an_edit_in_its_section_passes_and_each_damage_fails(
    provider: DockerProvider,
) -> None:
    async with opened(provider, WorkspaceSpec(image="office")) as workspace:
        seed = await run(workspace, SEED, "r.docx")
    spec = WorkspaceSpec(image="office", seed=pack_tree({"r.docx": seed}))
    async with opened(provider, spec) as workspace:
        good, nothing, tracked, sly, *spoiled = await edited(
            workspace,
            OPEN,
            [WORK, "", TRACKED, TRACKED + SLY, *(edit for edit, _ in DAMAGES.values())],
        )
        verdict = await verdict_of(workspace, good, **PAGES)
        assert verdict.outcome == "pass", verdict.checks
        for (name, (_, watched)), data in zip(DAMAGES.items(), spoiled, strict=True):
            layout = PAGES if name in ("second page", "too small") else {}
            verdict = await verdict_of(workspace, data, **layout)
            assert verdict.outcome == "fail", name
            assert watched in failed(verdict), (name, verdict.checks)
        assert (await verdict_of(workspace, nothing)).score == 0.0
        for name, watched in {"": "", "bold lost": "unchanged", "margin": "other parts"}.items():
            data = spoiled[[*DAMAGES].index(name)] if name else good
            saved = await by_office(workspace, data, ".docx", "MS Word 2007 XML")
            assert failed(await verdict_of(workspace, saved)) == watched, name

        verdict = await verdict_of(workspace, tracked, tracked=True)
        assert verdict.outcome == "pass", verdict.checks
        for data in (good, sly):
            assert failed(await verdict_of(workspace, data, tracked=True)) == "every change tracked"

        for data in (b"", b"PK\x05\x06" + b"\0" * 18, seed[:-300]):
            broken = await verdict_of(workspace, data)
            assert (broken.outcome, broken.score) == ("fail", 0.0)


@pytest.mark.office
async def test_only_text_that_is_seen_is_there(provider: DockerProvider) -> None:
    async with opened(provider, WorkspaceSpec(image="office")) as workspace:
        seed = await run(workspace, SEED, "r.docx")
    spec = WorkspaceSpec(image="office", seed=pack_tree({"r.docx": seed}))
    opening = OPEN + "from docx.shared import RGBColor\np[-1].text = 'Prices may rise.'\n"
    opening += "q = p[-1].runs[0]\n"
    wanted = {"outline": EXPECTED["outline"], "contains": EXPECTED["contains"][:1]}
    expected = {"expected.json": json.dumps({**wanted, "sections": ["Risks"]}).encode()}
    async with opened(provider, spec) as workspace:
        both = {**UNSEEN, **SEEN}
        for name, data in zip(
            both, await edited(workspace, opening, [*both.values()]), strict=True
        ):
            await workspace.put("r.docx", data)
            verdict = await DocumentVerifier().verify(workspace, SPEC, expected)
            if name in UNSEEN:
                assert "contains prices may rise" in failed(verdict), (name, verdict.checks)
            else:
                assert verdict.outcome == "pass", (name, verdict.checks)


def page(*words: list[Any], ink: float = 0.1) -> dict[str, Any]:
    return {"width": 600.0, "height": 800.0, "words": list(words), "ink": ink, "unseen": []}


GOOD = [10.0, 10.0, 50.0, 22.0, "Good"]


@pytest.mark.parametrize(
    ("pages", "watched"),
    [
        ([page(GOOD)], []),
        ([page(ink=0.2)], []),  # a picture
        ([], ["pages"]),
        ([page(GOOD)] * 3, ["pages"]),
        ([page(GOOD), page(ink=0.0)], ["no empty page"]),
        ([page([590.0, 10.0, 640.0, 22.0, "Off"])], ["on the page"]),
        ([page([10.0, 10.0, 50.0, 13.0, "Tiny"])], ["readable size"]),
        ([{**page(GOOD), "unseen": [0]}], ["in sight"]),
    ],
)
def test_a_page_is_neither_empty_nor_overfull_nor_tiny(
    pages: list[Any], watched: list[str]
) -> None:
    checks = check_pages(pages, count=[1, 2])
    assert [check.name for check in checks if check.outcome != "pass"] == watched
