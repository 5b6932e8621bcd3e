"""What a judge gets to read of an office file: all that a reader would see, and nothing hidden."""

import pytest

from rollmill.verifiers import Check
from rollmill.verifiers.content import content_of
from rollmill.workspaces import DockerProvider, WorkspaceSpec, opened

MAKE = r"""
import docx
d = docx.Document()
d.save("empty.docx")
d.add_heading("Risks", 2)
d.add_paragraph("Prices may rise.")
t = d.add_table(rows=1, cols=2)
t.cell(0, 0).text, t.cell(0, 1).text = "Oslo", "1,200"
d.save("r.docx")

from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches
p = Presentation()
for title in ("Cities", "Secret"):
    s = p.slides.add_slide(p.slide_layouts[5])
    s.shapes.title.text = title
s._element.set("show", "0")
c = CategoryChartData()
c.categories = ["Oslo", "Bergen"]
c.add_series("Sales", (1200, 800.5))
s = p.slides[0]
s.shapes.add_chart(XL_CHART_TYPE.PIE, Inches(1), Inches(2), Inches(4), Inches(3), c)
s.notes_slide.notes_text_frame.text = "Say it slowly"
p.save("d.pptx")

import openpyxl
b = openpyxl.Workbook()
b.active.title = "Sales"
b.active["A1"], b.active["A2"], b.active["A3"] = "Sum", 40, "=A2+2"
b.create_sheet("Secret")["A1"] = "42 is right"
b["Secret"].sheet_state = "hidden"
b.save("b.xlsx")
"""
TEXTS = {
    "r.docx": "## Risks\n\nPrices may rise.\n\nOslo | 1,200",
    "d.pptx": "# Slide 1\n\nCities\n\nChart of Oslo, Bergen\nSales: 1200.0, 800.5\n\n"
    "Notes: Say it slowly",
    "b.xlsx": "# Sheet Sales\nA1: Sum\nA2: 40\nA3: 42",
}


@pytest.mark.office
async def test_office_files_are_read_as_shown_and_empty_ones_are_refused(
    provider: DockerProvider,
) -> None:
    async with opened(provider, WorkspaceSpec(image="office")) as workspace:
        made = await workspace.exec(["python3", "-c", MAKE])
        assert made.exit_code == 0, made.stderr
        for path, text in TEXTS.items():
            assert await content_of(workspace, path) == text
        await workspace.put("torn.docx", b"PK\x03\x04")
        for path in ("empty.docx", "torn.docx", "none.pptx", "none.xlsx"):
            found = await content_of(workspace, path)
            assert isinstance(found, Check), path
            assert found.outcome == "fail"
