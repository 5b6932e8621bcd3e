"""The office tasks under attack: a report, a deck, a table and the state of an app."""

from __future__ import annotations

import json
from typing import Any

from rollmill.model import ToolCall
from rollmill.pipelines.task import Task
from rollmill.verifiers import VerifierSpec

from .tasks import bash, hand_made, python

SALES = b"City,Sales\nOslo,1200\nBergen,800.5\n"
RISK = "Prices may rise."
STATE: dict[str, Any] = {"orders": [{"id": "a1", "status": "open", "total": 10}], "log": []}
SHIPPED: dict[str, Any] = {"orders": [{"id": "a1", "status": "shipped", "total": 10}], "log": []}


def report(more: str = "", risk: str = RISK) -> ToolCall:
    """Writes the report; `more` changes it, with the run of the risk as `r`."""
    return python(f"""
import docx
from docx.shared import Pt, RGBColor
d = docx.Document()
d.add_heading("Sales", 1)
t = d.add_table(2, 2)
for at, text in enumerate(["City", "Sales", "Oslo", "1,200"]):
    t.cell(at // 2, at % 2).text = text
d.add_heading("Risks", 1)
r = d.add_paragraph().add_run({risk!r})
{more}
d.save("report.docx")
""")


def deck(more: str = "", lead: str = "Oslo leads") -> ToolCall:
    """Makes the deck; `more` changes it, with the slide as `s` and the run of the lead as `r`."""
    return python(f"""
from pptx import Presentation
from pptx.dml.color import RGBColor
from pptx.util import Inches, Pt
d = Presentation()
s = d.slides.add_slide(d.slide_layouts[5])
s.shapes.title.text = "Cities"
b = s.shapes.add_textbox(Inches(1), Inches(3), Inches(6), Inches(1))
r = b.text_frame.paragraphs[0].add_run()
r.text = {lead!r}
r.font.size = Pt(18)
{more}
d.save("cities.pptx")
""")


def saved(path: str, content: Any) -> ToolCall:
    """Writes a text, or a value as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    return python(f"open({path!r}, 'w').write({text!r})")


def _task(name: str, path: str, expected: Any, solution: ToolCall, image: str) -> Task:
    seed = json.dumps(STATE).encode() if name == "state" else SALES
    return hand_made(
        domain="cowork",
        image=image,
        files={path if name == "state" else "sales.csv": seed},
        verifier=VerifierSpec(name=name, params={"path": path}),
        hidden={"expected.json": json.dumps(expected).encode()},
        artifacts=(path,),
        solution=solution,
    )


def document_task() -> Task:
    """A report with a table and a sentence, each under its heading."""
    expected = {
        "outline": [[1, "Sales"], [1, "Risks"]],
        "contains": [{"text": RISK, "under": "Risks"}],
        "tables": [{"under": "Sales", "rows": [["City", "Sales"], ["Oslo", 1200]]}],
        "pages": [1, 2],
    }
    return _task("document", "report.docx", expected, report(), "office")


def deck_task() -> Task:
    """One slide with a title and a sentence, laid out so that it can be read."""
    slide = {"at": 1, "title": "Cities", "contains": ["Oslo leads"], "absent": ["Bergen"]}
    expected = {"count": 1, "layout": True, "slides": [slide]}
    return _task("deck", "cities.pptx", expected, deck(), "office")


def table_task() -> Task:
    """The sales as JSON records."""
    columns = [{"name": "city", "type": "text"}, {"name": "sales", "type": "number"}]
    expected = {"columns": columns, "rows": [["Oslo", 1200], ["Bergen", 800.5]], "key": ["city"]}
    rows = [{"city": "Oslo", "sales": 1200}, {"city": "Bergen", "sales": 800.5}]
    return _task("table", "sales.json", expected, saved("sales.json", rows), "python")


def state_task() -> Task:
    """An order to be shipped, and nothing else."""
    expected = {
        "changes": {"/orders/a1/status": {"after": "shipped"}},
        "ids": {"/orders": "id"},
        "ignore": ["/log", "/log/*"],
    }
    return _task("state", "app.json", expected, saved("app.json", SHIPPED), "python")


def packed(path: str, part: str, content: str) -> ToolCall:
    """Puts a part into a package that is there; `content` is an expression."""
    return python(
        f"import zipfile\nwith zipfile.ZipFile({path!r}, 'a', zipfile.ZIP_DEFLATED) as z:\n"
        f"    z.writestr({part!r}, {content})"
    )


def linked(path: str) -> ToolCall:
    """Puts a link in the place of a file that is right."""
    return bash(f"mv {path} right && ln -s right {path}")
