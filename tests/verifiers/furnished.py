"""A workbook with everything an edit must leave alone, and ways to damage one thing of it."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import openpyxl
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.formatting.rule import CellIsRule
from openpyxl.styles import Alignment, Border, Font, PatternFill, Side
from openpyxl.workbook.defined_name import DefinedName
from openpyxl.worksheet.datavalidation import DataValidation

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
    check = DataValidation(type="list", formula1='"USA,Japan,Europe"')
    check.add("A2:A5")
    sheet.add_data_validation(check)
    sheet.merge_cells("D1:E1")
    sheet.freeze_panes = "A2"
    chart = BarChart()
    chart.title = "Prices"
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
    "sheets in another order": (_reordered, "other parts"),
    "bold lost": (_set("Data", "A1", font=Font(color="1F4E78")), "styles"),
    "fill lost": (_set("Data", "A1", fill=PatternFill()), "styles"),
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
    "work hidden by format": (_set("Sums", "A2", number_format=";;;"), "Sums!A2:A2"),
    "constant in disguise": (_set("Sums", "A2", value="=18.5+0*Data!B2"), "other inputs 1"),
    "range one row short": (_set("Sums", "A2", value="=SUM(Data!B2:B4)+6.5"), "other inputs 1"),
}
"""How the work itself was spoiled -> how, and the checks that must see it."""
