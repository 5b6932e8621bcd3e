"""A workbook with everything an edit must leave alone, and ways to damage one thing of it."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import openpyxl
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.formatting.rule import CellIsRule, FormulaRule
from openpyxl.styles import Alignment, Border, Font, PatternFill, Side
from openpyxl.workbook.defined_name import DefinedName
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.formula import ArrayFormula

ROWS = (("Origin", "Price"), ("USA", 3), ("Japan", 4), ("USA", 5), ("Europe", 6.5))


def furnished() -> Any:
    """A sheet of rows with a chart, rules, notes and looks, and a hidden sheet."""
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.title = "Data"
    for row in ROWS:
        sheet.append(row)
    sheet["A1"].font = Font(bold=True, color="1F4E78")
    sheet["A1"].fill = PatternFill("solid", start_color="DDEBF7")
    sheet["A1"].border = Border(bottom=Side(style="thin"))
    sheet["B2"].number_format = "#,##0.00"
    sheet["B3"].alignment = Alignment(horizontal="center")
    sheet.column_dimensions["A"].width = 22
    sheet.row_dimensions[5].hidden = True
    sheet["A2"].comment = Comment("Ask sales", "Ann")
    red = PatternFill("solid", bgColor="FFC7CE")
    above: Any = CellIsRule
    sheet.conditional_formatting.add("B2:B5", above("greaterThan", ["4"], fill=red))
    check = DataValidation(type="list", formula1='"USA,Japan,Europe"', showErrorMessage=True)
    check.error = "Only these three"
    check.add("A2:A5")
    sheet.add_data_validation(check)
    sheet.merge_cells("D1:E1")
    sheet.freeze_panes = "A2"
    sheet.row_dimensions[1].height = 40
    sheet.row_dimensions[4].outlineLevel = 1
    sheet.sheet_properties.tabColor = "FF0000"
    sheet.page_margins.left = 2
    assert sheet.oddHeader is not None
    sheet.oddHeader.center.text = "Confidential"
    chart = BarChart()
    chart.title, chart.y_axis.title = "Prices", "Euro"
    chart.add_data(Reference(sheet, min_col=2, min_row=1, max_row=5), titles_from_data=True)
    chart.set_categories(Reference(sheet, min_col=1, min_row=2, max_row=5))
    sheet.add_chart(chart, "G2")
    book.defined_names["Prices"] = DefinedName("Prices", attr_text="Data!$B$2:$B$5")
    notes = book.create_sheet("Notes")
    notes["A1"] = "internal"
    notes.sheet_state = "hidden"
    return book


def saved(book: Any) -> bytes:
    """The file of a workbook."""
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def done(book: Any) -> Any:
    """The asked-for work: a sheet with a sum, as a formula."""
    sums = book.create_sheet("Sums")
    sums["A1"], sums["A2"] = "Sum", "=SUM(Data!B2:B5)"
    return book


def _chart_gone(book: Any) -> None:
    book["Data"]._charts.clear()


def _chart_shortened(book: Any) -> None:
    sheet = book["Data"]
    chart = BarChart()
    chart.title = "Prices"
    chart.add_data(Reference(sheet, min_col=2, min_row=1, max_row=4), titles_from_data=True)
    chart.set_categories(Reference(sheet, min_col=1, min_row=2, max_row=5))
    sheet._charts[:] = []
    sheet.add_chart(chart, "G2")


def _rule_gone(book: Any) -> None:
    book["Data"].conditional_formatting = type(book["Data"].conditional_formatting)()


def _rule_added(book: Any) -> None:
    equal: Any = CellIsRule
    book["Data"].conditional_formatting.add("A2:A5", equal("equal", ["1"]))


def _validation_changed(book: Any) -> None:
    book["Data"].data_validations.dataValidation[0].formula1 = '"USA"'


def _name_moved(book: Any) -> None:
    book.defined_names["Prices"].attr_text = "Data!$B$2:$B$4"


def _name_gone(book: Any) -> None:
    del book.defined_names["Prices"]


def _set(sheet: str, at: str, **looks: Any) -> Callable[[Any], None]:
    def change(book: Any) -> None:
        for aspect, value in looks.items():
            setattr(book[sheet][at], aspect, value)

    return change


def _shown(book: Any) -> None:
    book["Notes"].sheet_state = "visible"


def _hidden_column(book: Any) -> None:
    book["Data"].column_dimensions["B"].hidden = True


def _row_shown(book: Any) -> None:
    book["Data"].row_dimensions[5].hidden = False


def _hidden_sheet_added(book: Any) -> None:
    book.create_sheet("Scratch").sheet_state = "hidden"


def _chart(**fields: Any) -> Callable[[Any], None]:
    def change(book: Any) -> None:
        for name, value in fields.items():
            *path, last = name.split("__")
            part = book["Data"]._charts[0]
            for step in path:
                part = getattr(part, step)
            setattr(part, last, value)

    return change


def _part(path: str, value: Any) -> Callable[[Any], None]:
    """A change of something that hangs on the sheet `Data`, by its path of names."""

    def change(book: Any) -> None:
        *steps, last = path.split(".")
        part = book["Data"]
        for step in steps:
            part = part[int(step)] if step.isdigit() else getattr(part, step)
        setattr(part, last, value)

    return change


def _rule_looks_changed(book: Any) -> None:
    for group in book["Data"].conditional_formatting:
        group.rules[0].dxf.font = Font(strike=True)


def _covered(book: Any) -> None:
    chart = BarChart()
    chart.add_data(Reference(book["Data"], min_col=2, min_row=1, max_row=5))
    book["Sums"].add_chart(chart, "A1")


def _ruled(**looks: Any) -> Callable[[Any], None]:
    def change(book: Any) -> None:
        rule: Any = FormulaRule
        book["Sums"].conditional_formatting.add("A1:A9", rule(["TRUE"], **looks))

    return change


def _reordered(book: Any) -> None:
    book.move_sheet("Notes", -1)


def _narrowed(book: Any) -> None:
    book["Data"].column_dimensions["A"].width = 8


RED = PatternFill("solid", start_color="FF0000")
DAMAGES: Mapping[str, tuple[Callable[[Any], None], str]] = {
    "chart gone": (_chart_gone, "other parts"),
    "chart of fewer rows": (_chart_shortened, "other parts"),
    "conditional format gone": (_rule_gone, "other parts"),
    "conditional format added": (_rule_added, "other parts"),
    "validation changed": (_validation_changed, "other parts"),
    "name moved": (_name_moved, "other parts"),
    "name gone": (_name_gone, "other parts"),
    "comment gone": (_set("Data", "A2", comment=None), "other parts"),
    "comment added": (_set("Data", "B4", comment=Comment("x", "y")), "other parts"),
    "width changed": (
        lambda b: setattr(b["Data"].column_dimensions["A"], "width", 8),
        "other parts",
    ),
    "merged no more": (lambda b: b["Data"].unmerge_cells("D1:E1"), "other parts"),
    "hidden sheet shown": (_shown, "other parts"),
    "column hidden": (_hidden_column, "other parts"),
    "hidden row shown": (_row_shown, "other parts"),
    "hidden sheet added": (_hidden_sheet_added, "other parts"),
    "row lower": (lambda b: setattr(b["Data"].row_dimensions[1], "height", 3), "other parts"),
    "grouping lost": (
        lambda b: setattr(b["Data"].row_dimensions[4], "outlineLevel", 0),
        "other parts",
    ),
    "tab colour lost": (_part("sheet_properties.tabColor", None), "other parts"),
    "margin changed": (_part("page_margins.left", 0.1), "other parts"),
    "header lost": (_part("oddHeader.center.text", None), "other parts"),
    "panes thawed": (_part("freeze_panes", None), "other parts"),
    "validation switched off": (
        _part("data_validations.dataValidation.0.showErrorMessage", False),
        "other parts",
    ),
    "validation says another thing": (
        _part("data_validations.dataValidation.0.error", "Whatever"),
        "other parts",
    ),
    "look of a rule changed": (_rule_looks_changed, "other parts"),
    "chart turned": (_chart(barDir="bar"), "other parts"),
    "chart stacked": (_chart(grouping="stacked"), "other parts"),
    "chart moved": (_chart(anchor="Z50"), "other parts"),
    "axis cut": (_chart(y_axis__scaling__min=2), "other parts"),
    "axis renamed": (_chart(y_axis__title="Dollar"), "other parts"),
    "legend lost": (_chart(legend=None), "other parts"),
    "name hidden": (lambda b: setattr(b.defined_names["Prices"], "hidden", True), "other parts"),
    "comment by another": (_set("Data", "A2", comment=Comment("Ask sales", "Eve")), "other parts"),
    "sheets in another order": (_reordered, "other parts"),
    "bold lost": (_set("Data", "A1", font=Font(color="1F4E78")), "styles"),
    "fill lost": (_set("Data", "A1", fill=PatternFill()), "styles"),
    "border in another colour": (
        _set("Data", "A1", border=Border(bottom=Side(style="thin", color="00FF00"))),
        "styles",
    ),
    "shrunk to fit": (_set("Data", "A1", alignment=Alignment(shrink_to_fit=True)), "styles"),
    "border lost": (_set("Data", "A1", border=Border()), "styles"),
    "number format changed": (_set("Data", "B2", number_format="0"), "styles"),
    "alignment lost": (_set("Data", "B3", alignment=Alignment()), "styles"),
    "empty cell painted": (
        _set("Data", "C3", fill=RED),
        "styles",
    ),
}
"""What was damaged beside the work -> how, and the check that must see it."""
SPOILED: Mapping[str, tuple[Callable[[Any], None], str]] = {
    "work hidden": (lambda b: setattr(b["Sums"], "sheet_state", "hidden"), "Sums!A1:A1 Sums!A2:A2"),
    "work white on white": (_set("Sums", "A2", font=Font(color="FFFFFF")), "Sums!A2:A2"),
    "work nearly white": (_set("Sums", "A2", font=Font(color="FEFEFE")), "Sums!A2:A2"),
    "work on its own colour": (
        _set("Sums", "A2", fill=PatternFill("solid", start_color="111111")),
        "Sums!A2:A2",
    ),
    "work in a white pattern": (
        _set("Sums", "A2", font=Font(color="FFFFFF"), fill=PatternFill("gray125", "F8F8F8")),
        "Sums!A2:A2",
    ),
    "work white by format": (_set("Sums", "A2", number_format="[White]0.00"), "Sums!A2:A2"),
    "work shown as another figure": (_set("Sums", "A2", number_format='"99"'), "Sums!A2:A2"),
    "figures beside the work": (_set("Sums", "A2", number_format='"1"0.0'), "Sums!A2:A2"),
    "text hidden by format": (_set("Sums", "A1", number_format='0;0;0;"x"'), "Sums!A1:A1"),
    "work too small": (_set("Sums", "A2", font=Font(sz=1)), "Sums!A2:A2"),
    "work in a flat row": (
        lambda b: setattr(b["Sums"].row_dimensions[2], "height", 0.1),
        "Sums!A2:A2",
    ),
    "work in a narrow column": (
        lambda b: setattr(b["Sums"].column_dimensions["A"], "width", 0.1),
        "Sums!A1:A1 Sums!A2:A2",
    ),
    "work below a chart": (_covered, "Sums!A1:A1 Sums!A2:A2"),
    "work white by a rule": (_ruled(font=Font(color="FFFFFF")), "Sums!A1:A1 Sums!A2:A2"),
    "work black by a rule": (
        _ruled(fill=PatternFill("solid", bgColor="010101")),
        "Sums!A1:A1 Sums!A2:A2",
    ),
    "work hidden by format": (_set("Sums", "A2", number_format=";;;"), "Sums!A2:A2"),
    "constant in disguise": (_set("Sums", "A2", value="=18.5+0*Data!B2"), "other inputs 1"),
    "constant from a name": (_set("Sums", "A2", value="=18.5+0*SUM(Prices)"), "other inputs 1"),
    "range one row short": (_set("Sums", "A2", value="=SUM(Data!B2:B4)+6.5"), "other inputs 1"),
}
"""How the work itself was spoiled -> how, and the checks that must see it."""


def _named_sum(book: Any) -> None:
    book["Sums"]["A2"] = "=SUM(Prices)"


def _array(book: Any) -> None:
    book["Sums"]["A2"] = ArrayFormula("A2", "=SUM(Data!B2:B5*1)")


def _light_on_dark(book: Any) -> None:
    sheet = book["Sums"]
    for at in ("A1", "A2"):
        sheet[at].font = Font(color="FFFFFF", bold=True, size=14)
        sheet[at].fill = PatternFill("solid", start_color="1F4E78")


def _zeros_hidden(book: Any) -> None:
    rule: Any = CellIsRule
    white = Font(color="FFFFFF")
    book["Sums"].conditional_formatting.add("A1:A9", rule("equal", ["0"], font=white))


def _chart_beside(book: Any) -> None:
    chart = BarChart()
    chart.add_data(Reference(book["Data"], min_col=2, min_row=1, max_row=5))
    book["Sums"].add_chart(chart, "D1")


UNUSUAL: Mapping[str, Callable[[Any], None]] = {
    "a name": _named_sum,
    "a computed reference": _set("Sums", "A2", value='=SUM(INDIRECT("Data!B2:B5"))'),
    "an array formula": _array,
    "a shifted reference": _set("Sums", "A2", value="=SUM(OFFSET(Data!B1,1,0,4))"),
    "light on dark": _light_on_dark,
    "money": _set("Sums", "A2", number_format="[$€-407] #,##0.00;[Red]-#,##0.00"),
    "a unit": _set("Sums", "A2", number_format='0.0" m2"'),
    "millions": _set("Sums", "A2", number_format='#,##0.0,,"M"'),
    "grey ink": _set("Sums", "A2", font=Font(color="808080", size=8)),
    "zeros hidden": _zeros_hidden,
    "a chart beside it": _chart_beside,
    "a higher row": lambda b: setattr(b["Sums"].row_dimensions[1], "height", 30),
}
"""Honest work that looks unusual -> how it differs."""
