"""Templates of workbook tasks by name. A new one is one module and one line here."""

from . import clean, column, lookup, merge, periods, question, selection, totals
from .template import Draft, Template

TEMPLATES: dict[str, Template] = {
    module.TEMPLATE.name: module.TEMPLATE
    for module in (totals, periods, lookup, question, column, merge, clean, selection)
}

__all__ = ["TEMPLATES", "Draft", "Template"]
